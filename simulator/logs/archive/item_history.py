"""The items as they were at any version of a log of items, read forward as decisions name them."""

from bisect import bisect_right
from collections.abc import Callable, Iterator

from banditloop_client.schemas import Item
from bandits.errors import ArtifactError, BanditloopError
from bandits.log.positions import is_after, log_order, position_at, position_ms
from bandits.log.records import ItemsBaseRecord, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue
from policies.items.past import SLACK_MS, ItemsLog
from policies.items.timeline import ItemTimeline, position_of, whole_catalogue

WHOLES_KEPT = 8
ERAS_KEPT = 2
FORGET_EVERY = 1_000
"""Entries after which what older versions had is forgotten."""

Order = tuple[int, int]
ItemAt = Callable[[str], Item | None]
"""Gives an item as it was at a version; None: there was none."""


class ItemHistory:
    """The items of each version that decisions name, as they were put, with all their fields.

    A version that is up to ten minutes older than the latest that was asked for costs nothing more;
    one before that, a reading from its whole catalogue on.
    """

    def __init__(self, log: ItemsLog, blob: Callable[[str], bytes]) -> None:
        """Begin with nothing read.

        Args:
            log: of the items.
            blob: gives whole catalogues that the log has not.
        """
        self._log = log
        self._blob = blob
        self._wholes: dict[str, ItemTimeline] = {}
        self._eras: list[_Era] = []

    def at(self, version: str) -> ItemAt | None:
        """Return what gives the items of a version; None: it cannot be read any more."""
        try:
            position = position_of(version)
            return self._whole(version) if position is None else self._at(version, position)
        except BanditloopError:
            return None

    def _whole(self, name: str) -> ItemAt:
        if name not in self._wholes:
            while len(self._wholes) >= WHOLES_KEPT:
                del self._wholes[next(iter(self._wholes))]
            self._wholes[name] = ItemTimeline(Catalogue.decode(self._data(name)))
        return self._wholes[name].item

    def _data(self, name: str) -> bytes:
        try:
            return whole_catalogue(self._log.blob, name)
        except BanditloopError:
            return whole_catalogue(self._blob, name)

    def _at(self, version: str, position: str) -> ItemAt | None:
        at = log_order(position)
        era = next((each for each in reversed(self._eras) if each.covers(at)), None)
        if era is None:
            era = self._begin(position)
        while era.reached < at and era.end is None:
            entry = era.next(self._log)
            if entry is None or log_order(entry.id) > at:
                era.ahead = entry
                break
            self._apply(era, entry)
            era = self._eras[-1] if era.end is not None else era
        return era.at(version, at)

    def _apply(self, era: "_Era", entry: LogEntry) -> None:
        record = entry.record
        if not isinstance(record, ItemsBaseRecord) or record.version is not None:
            era.apply(entry, self._log.blob)
            return
        try:
            timeline = ItemTimeline(Catalogue.decode(self._data(record.digest)), at=entry.id)
        except ArtifactError:
            era.apply(entry, self._log.blob)  # it changes nothing, for anybody
            return
        era.end, reader = log_order(entry.id), era.reader
        era.reader = iter(())
        self._add(timeline).reader = reader

    def _begin(self, position: str) -> "_Era":
        """Begin at the newest whole catalogue that a position can be reached from."""
        for entry in self._log.bases(position):
            record = entry.record
            if not isinstance(record, ItemsBaseRecord):
                continue
            version = record.version
            begin = entry.id if version is None else position_of(version)
            # One that says which version it is may stand behind later ones.
            if begin is None or is_after(begin, position):
                continue
            try:
                catalogue = Catalogue.decode(self._data(record.digest))
            except BanditloopError:
                if version is None:
                    raise
                continue
            return self._add(ItemTimeline(catalogue, version=version, at=begin))
        return self._add(ItemTimeline())

    def _add(self, timeline: ItemTimeline) -> "_Era":
        self._eras = [*self._eras[1 - ERAS_KEPT :], _Era(timeline)]
        return self._eras[-1]


class _Era:
    """The items from one whole catalogue on, to the one that replaces them all.

    ``oldest`` and ``reached``: where the versions that it can tell of begin, and end by now.
    """

    def __init__(self, timeline: ItemTimeline) -> None:
        self.oldest = self.reached = log_order(timeline.position)
        self.end: Order | None = None
        self.ahead: LogEntry | None = None
        self.reader: Iterator[LogEntry] = iter(())
        self._timeline = timeline
        self._versions: dict[str, Order] = {timeline.version: self.reached}
        self._changed: dict[str, list[tuple[Order, Item | None]]] = {}
        self._read = 0

    def covers(self, at: Order) -> bool:
        """Return whether the versions there are its own."""
        return self.oldest <= at and (self.end is None or at < self.end)

    def next(self, log: ItemsLog) -> LogEntry | None:
        """Return the next entry; None: the log ends here, by now."""
        ahead, self.ahead = self.ahead, None
        entry = next(self.reader, None) if ahead is None else ahead
        if entry is None:
            self.reader = iter(log.encoded(self._timeline.position))
            entry = next(self.reader, None)
        return entry

    def apply(self, entry: LogEntry, blob: Callable[[str], bytes]) -> None:
        """Take in the next entry."""
        record, timeline = entry.record, self._timeline
        changed = [each.id for each in record.changes] if isinstance(record, ItemsRecord) else []
        for item_id in changed:
            self._changed.setdefault(item_id, [(self.oldest, timeline.item(item_id))])
        timeline.apply(entry, blob)

        self.reached = log_order(entry.id)
        self._versions.setdefault(timeline.version, self.reached)
        for item_id in set(changed):
            self._changed[item_id].append((self.reached, timeline.item(item_id)))
        self._read += 1
        if self._read % FORGET_EVERY == 0:
            self._forget(position_at(position_ms(entry.id) - SLACK_MS))

    def at(self, version: str, at: Order) -> ItemAt | None:
        """Return what gives the items of a version; None: it is none of these."""
        if self._versions.get(version) != at:
            return None

        def item(item_id: str) -> Item | None:
            changed = self._changed.get(item_id)
            if changed is None:
                return self._timeline.item(item_id)
            return changed[bisect_right(changed, at, key=_order_of) - 1][1]

        return item

    def _forget(self, position: str) -> None:
        """Forget what versions before a position had."""
        kept = log_order(position)
        if kept <= self.oldest:
            return
        self._timeline.forget(self._timeline.position)
        self.oldest = kept
        self._versions = {name: at for name, at in self._versions.items() if at >= kept}
        for changed in self._changed.values():
            del changed[: bisect_right(changed, kept, key=_order_of) - 1]
        self._changed = {each: had for each, had in self._changed.items() if len(had) > 1}


def _order_of(change: tuple[Order, Item | None]) -> Order:
    return change[0]
