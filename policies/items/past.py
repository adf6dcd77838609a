"""Catalogues of the past, by version: what a decision's features are made of when it is learned.

A version that has a position is looked for in the log of items, which is read from the newest whole
catalogue at or before it, and then on. A version without one is a whole catalogue, so a blob.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from banditloop_client.schemas import Item
from bandits.errors import ArchiveError, ArtifactError, MissingBlobError
from bandits.log.positions import is_after, log_order, position_at, position_ms
from bandits.log.records import ItemsBaseRecord, LogEntry
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline, position_of, whole_catalogue

WHOLES_KEPT = 8
ERAS_KEPT = 4
SLACK_MS = 600_000
"""A decision to come may name a version that is so much older than those that are needed."""
LEAST_READ = 5_000
"""Entries to read before it is worth while to forget."""

Blob = Callable[[str], bytes]
Order = tuple[int, int]


class ItemsLog(Protocol):
    """A log of items, all of it: the stream and the archive behind it."""

    def encoded(self, after: str, through: str | None = None) -> Iterable[LogEntry]:
        """Yield its entries, in order.

        Args:
            after: entries past this position; "0-0" is before the first.
            through: up to this one, included; None for the end of the log.
        """
        ...

    def bases(self, through: str) -> Iterable[LogEntry]:
        """Yield the entries at or before a position that say what all items are, newest first."""
        ...

    def blob(self, digest: str) -> bytes:
        """Return a blob that an entry names."""
        ...


class NoItems:
    """The log of items of those who have none."""

    def encoded(self, after: str, through: str | None = None) -> Iterable[LogEntry]:  # noqa: ARG002
        """Yield nothing, whatever the positions."""
        return ()

    def bases(self, through: str) -> Iterable[LogEntry]:  # noqa: ARG002 - as ItemsLog has it
        """Yield nothing."""
        return ()

    def blob(self, digest: str) -> bytes:
        """Raise MissingBlobError: there is none."""
        raise MissingBlobError(f"there is no log of items that names blob {digest}", "digest")


class _Era:
    """A timeline, from the catalogue that it began with on to the one that replaces all items.

    ``end`` is where that one is, None until it is met. ``oldest`` and ``reached`` are where its
    oldest and its newest version are. All are ``log_order`` of positions. ``used``: higher, the
    later.
    """

    def __init__(self, timeline: ItemTimeline) -> None:
        self.timeline = timeline
        self.begin = self.oldest = self.reached = log_order(timeline.position)
        self.end: Order | None = None
        self.reader: Iterator[LogEntry] = iter(())
        self.ahead: LogEntry | None = None
        self.used = 0

    def apply(self, entry: LogEntry, blob: Blob) -> None:
        """Apply the next entry."""
        self.timeline.apply(entry, blob)
        self.reached = log_order(entry.id)

    def forget(self, position: str) -> None:
        """Forget what versions before a position need."""
        self.timeline.forget(position)
        oldest = position_of(self.timeline.oldest)
        self.oldest = self.begin if oldest is None else log_order(oldest)

    def covers(self, at: Order) -> bool:
        """Return whether the versions there are those of this timeline."""
        return self.oldest <= at and (self.end is None or at < self.end)


class ItemsPast:
    """The catalogues of a log of items, by version.

    What was read is kept: the timelines of the newest eras that were asked for (an era ends where a
    whole catalogue replaces all items), as far as ``tidy`` leaves it. What is forgotten and asked
    for again is read again.

    Args:
        log: the log of items.
        timeline: makes the timeline of an era.
    """

    def __init__(
        self, log: ItemsLog | None = None, timeline: type[ItemTimeline] = ItemTimeline
    ) -> None:
        self.log: ItemsLog = NoItems() if log is None else log
        self._timeline = timeline
        self._wholes: dict[str, Catalogue] = {}
        self._read_whole: tuple[Catalogue, ItemTimeline] | None = None
        self._eras: list[_Era] = []
        self._uses = 0
        self._read = 0
        self._needed: list[Callable[[], Iterable[str]]] = []

    def catalogue(self, version: str, blob: Blob | None = None) -> Catalogue:
        """Return the catalogue of a version.

        Args:
            version: as a decision names it.
            blob: gives whole catalogues that the log of items has not.

        Raises:
            ArtifactError: it is a digest, and what it names is no catalogue.
            MissingBlobError: it is none of the log's versions, or a blob is missing; or whatever
                reading the log, or ``blob``, raises.
        """
        position = position_of(version)
        if position is None:
            return self._whole(version, blob)

        at = log_order(position)
        era = self._era_at(at) or self._begin(position)
        while era.reached < at:
            entry = self._next(era)
            if entry is None or log_order(entry.id) > at:
                era.ahead = entry
                break
            era = self._apply(era, entry)
        return era.timeline.at(version)

    def item(self, version: str, item_id: str) -> Item | None:
        """Return an item of a version, or as it is since; None: there is none.

        Args:
            version: one whose catalogue was returned before.
            item_id: the item.
        """
        timeline = self.timeline(version)
        return None if timeline is None else timeline.item(item_id)

    def timeline(self, version: str) -> ItemTimeline | None:
        """Return the timeline that has a version; None: its catalogue was not returned before."""
        for era in self._eras:
            if era.timeline.holds(version):
                return era.timeline

        whole = self._wholes.get(version)
        if whole is None:
            return None
        if self._read_whole is None or self._read_whole[0] is not whole:
            self._read_whole = whole, self._timeline(whole)
        return self._read_whole[1]

    def _whole(self, name: str, blob: Blob | None) -> Catalogue:
        for era in self._eras:
            if era.timeline.holds(name):
                return era.timeline.at(name)

        if name not in self._wholes:
            catalogue = Catalogue.decode(self._data(name, blob))
            while len(self._wholes) >= WHOLES_KEPT:
                del self._wholes[next(iter(self._wholes))]
            self._wholes[name] = catalogue
        return self._wholes[name]

    def _data(self, name: str, blob: Blob | None) -> bytes:
        """Return the bytes of a whole catalogue, wherever they are."""
        if blob is None:
            return whole_catalogue(self.log.blob, name)
        if isinstance(self.log, NoItems):
            return whole_catalogue(blob, name)
        try:
            return whole_catalogue(self.log.blob, name)
        except (MissingBlobError, ArchiveError):
            return whole_catalogue(blob, name)

    # Eras

    def _era_at(self, at: Order) -> _Era | None:
        """Return the era that has the versions there, the latest begun if several do."""
        found: _Era | None = None
        for era in self._eras:
            if era.covers(at) and (found is None or era.begin >= found.begin):
                found = era
        if found is not None:
            self._uses += 1
            found.used = self._uses
        return found

    def _begin(self, position: str) -> _Era:
        """Begin a timeline at the newest whole catalogue that a position can be reached from."""
        for entry in self.log.bases(position):
            record = entry.record
            if not isinstance(record, ItemsBaseRecord):
                continue

            # One that says which version it is may stand behind later ones.
            version = record.version
            begin = entry.id if version is None else position_of(version)
            if begin is None or is_after(begin, position):
                continue
            try:
                catalogue = self._taken(record.digest)
            except ArtifactError:
                continue  # it changes nothing, for anybody
            except (MissingBlobError, ArchiveError):
                if version is None:
                    raise
                continue
            return self._add(self._timeline(catalogue, version=version, at=begin))
        return self._add(self._timeline())

    def _taken(self, name: str) -> Catalogue:
        """Return a whole catalogue, for a timeline, which is asked for it from now on."""
        known = self._wholes.pop(name, None)
        return Catalogue.decode(whole_catalogue(self.log.blob, name)) if known is None else known

    def _add(self, timeline: ItemTimeline) -> _Era:
        while len(self._eras) >= ERAS_KEPT:
            self._eras.remove(min(self._eras, key=lambda era: era.used))
        self._uses += 1
        era = _Era(timeline)
        era.used = self._uses
        self._eras.append(era)
        return era

    def _next(self, era: _Era) -> LogEntry | None:
        """Return the next entry of an era; None: the log ends here, by now."""
        ahead, era.ahead = era.ahead, None
        entry = next(era.reader, None) if ahead is None else ahead
        if entry is None:
            era.reader = iter(self.log.encoded(era.timeline.position))
            entry = next(era.reader, None)
        return entry

    def _apply(self, era: _Era, entry: LogEntry) -> _Era:
        """Apply an entry; return the era that it is of, which it may have begun."""
        record = entry.record
        self._read += 1
        if not isinstance(record, ItemsBaseRecord) or record.version is not None:
            era.apply(entry, self.log.blob)
            return era

        try:
            catalogue = self._taken(record.digest)
        except ArtifactError:
            era.apply(entry, self.log.blob)  # which changes nothing, for anybody
            return era
        era.end, reader = log_order(entry.id), era.reader
        era.reader = iter(())
        era = self._add(self._timeline(catalogue, at=entry.id))
        era.reader = reader
        return era

    # Forgetting

    def asked_by(self, needed: Callable[[], Iterable[str]]) -> None:
        """Let somebody ask from now on.

        Args:
            needed: gives the versions that he may ask for again.
        """
        self._needed.append(needed)

    def tidy(self) -> None:
        """Forget what nobody needs who asks this object, if it is worth while.

        No catalogue that was returned before may be used afterwards.
        """
        if self._read < LEAST_READ:
            return
        self._read = 0
        versions = {version for needed in self._needed for version in needed()}
        positions = [made for version in versions if (made := position_of(version)) is not None]
        oldest = min(positions, key=log_order, default=None)

        self._eras = [
            era
            for era in self._eras
            if era.end is None or (oldest is not None and era.end > log_order(oldest))
        ]
        for era in self._eras:
            reached = era.timeline.position
            kept = reached if oldest is None else min(oldest, reached, key=log_order)
            era.forget(position_at(position_ms(kept) - SLACK_MS))
