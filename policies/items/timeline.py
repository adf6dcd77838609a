"""Every version of what there is to offer, from some version on: a fold over the log of items.

A version is a chain: ``version_after`` names it by the one before and the entry that made it, so
whoever has read the same entries has the same version. It begins with the entry's position, so that
it can be found again. A whole catalogue that replaces all items is a version of its own, whatever
was before: its digest.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime
from math import inf

import msgspec

from banditloop_client.schemas import Item
from bandits.errors import ArtifactError, MissingBlobError
from bandits.log.codec import digest, encode
from bandits.log.positions import START
from bandits.log.records import (
    ItemChange,
    ItemsBaseRecord,
    ItemsRecord,
    LogEntry,
)
from policies.items.catalogue import Catalogue
from policies.items.changes import decode_item, decode_patch, encode_item, patched, refusal_of

SEPARATOR = "~"
ABSENT = -1
"""The row of an item that is not there."""


def version_after(previous: str, position: str, record: ItemsRecord) -> str:
    """Return the version that an entry makes.

    Args:
        previous: the version before it.
        position: the entry's.
        record: the entry's.
    """
    return f"{position}{SEPARATOR}{digest(previous.encode() + b' ' + encode(record))}"


def position_of(version: str) -> str | None:
    """Return the position of the entry that made a version; None: it is a catalogue's digest."""
    position, separator, _ = version.partition(SEPARATOR)
    return position if separator else None


class RefusedChange(msgspec.Struct, frozen=True):
    """A change that was not made, and why: its place in the entry, and the reason."""

    at: int
    id: str
    reason: str


class Offer(msgspec.Struct, frozen=True, gc=False):
    """When an item is offered: from ``from_ms`` until just before ``until_ms``, unless hidden."""

    from_ms: float = -inf
    until_ms: float = inf
    hidden: bool = False

    @classmethod
    def of(cls, item: Item) -> "Offer | None":
        """Return when an item is offered; None: always."""
        begins, ends = item.available_from, item.available_until
        offer = cls(
            begins.timestamp() * 1000 if isinstance(begins, datetime) else -inf,
            ends.timestamp() * 1000 if isinstance(ends, datetime) else inf,
            item.hidden is True,
        )
        return None if offer == _ALWAYS else offer

    def holds(self, now_ms: float) -> bool:
        """Return whether the item is offered at this time."""
        return not self.hidden and self.from_ms <= now_ms < self.until_ms


_ALWAYS = Offer()


class ItemTimeline:
    """The items of a log of items, as of each of its versions from where it was begun.

    ``position`` is that of the newest entry, ``version`` the newest version; ``offers`` has the
    items that are not always offered, as of now. Rows of features are only ever appended: all
    versions share them.
    """

    def __init__(
        self, catalogue: Catalogue | None = None, *, version: str | None = None, at: str = START
    ) -> None:
        """Begin with a catalogue.

        Args:
            catalogue: the items; without one, none was ever put.
            version: the version that it is; without one, its digest.
            at: the position of the entry that it is of.
        """
        self.position = at
        self.offers: dict[str, Offer] = {}
        self._begin(Catalogue() if catalogue is None else catalogue, version)

    def _begin(self, catalogue: Catalogue, version: str | None) -> None:
        """Let these be the items; whatever was before is forgotten."""
        self.version = catalogue.digest if version is None else version
        self._table = catalogue.features
        self._rows = dict(zip(catalogue.ids, range(len(catalogue.ids)), strict=True))
        texts = msgspec.json.decode(catalogue.encoded, type=list[msgspec.Raw])
        self._texts: dict[str, bytes | msgspec.Raw] = dict(zip(catalogue.ids, texts, strict=True))
        self.offers = {
            item_id: offer
            for item_id, text in self._texts.items()
            if (offer := Offer.of(decode_item(text))) is not None
        }

        # What became of each item that has changed: from which step on it had which row.
        self._changed: dict[str, list[tuple[int, int]]] = {}
        self._steps = {self.version: 0}
        self._counts = [len(self._rows)]
        self._newest = CatalogueVersion(self, self.version, 0)

    def apply(self, entry: LogEntry, blob: Callable[[str], bytes]) -> list[RefusedChange]:
        """Apply the next entry; return the changes that were refused, alike by whoever reads them.

        Args:
            entry: of the log of items.
            blob: gives the bytes that an entry names by digest.

        Raises:
            ArtifactError: a whole catalogue is none.
            MissingBlobError: it is not stored, or is another.
        """
        record, refused = entry.record, list[RefusedChange]()
        if isinstance(record, ItemsRecord):
            refused = self._change(record)
            self._step(version_after(self.version, entry.id, record))
        elif isinstance(record, ItemsBaseRecord) and record.version is None:
            self._begin(Catalogue.decode(_whole(blob, record.digest)), None)
        self.position = entry.id
        return refused

    def _change(self, record: ItemsRecord) -> list[RefusedChange]:
        refused: list[RefusedChange] = []
        put: dict[str, Item | None] = {}
        for at, change in enumerate(record.changes):
            try:
                put[change.id] = self._changed_item(change, put)
            except ArtifactError as error:
                refused.append(RefusedChange(at, change.id, error.message))

        kept = [item for item in put.values() if item is not None]
        row = self._table.extend([item.features for item in kept])
        step = len(self._counts)
        for item_id, item in put.items():
            history = self._changed.setdefault(item_id, [(0, self._rows.get(item_id, ABSENT))])
            self.offers.pop(item_id, None)
            if item is None:
                history.append((step, ABSENT))
                self._rows.pop(item_id, None)
                self._texts.pop(item_id, None)
                continue

            history.append((step, row))
            self._rows[item_id] = row
            self._texts[item_id] = encode_item(item)
            if (offer := Offer.of(item)) is not None:
                self.offers[item_id] = offer
            row += 1
        return refused

    def _changed_item(self, change: ItemChange, put: dict[str, Item | None]) -> Item | None:
        """Return the item that a change makes; None: it goes.

        Raises:
            ArtifactError: the change cannot be made.
        """
        if change.op == "delete":
            return None
        if change.op == "put":
            item = decode_item(change.fields)
            if item.id != change.id:
                raise ArtifactError(f"the item says that its id is {item.id!r}", "id")
        else:
            before = put[change.id] if change.id in put else self.item(change.id)
            if before is None:
                raise ArtifactError("there is no such item to patch", "id")
            item = patched(before, decode_patch(change.fields))
        if reason := refusal_of(item):
            raise ArtifactError(reason, "item")
        return item

    def _step(self, version: str) -> None:
        self._newest.freeze()
        self._steps[version] = len(self._counts)
        self._counts.append(len(self._rows))
        self.version = version
        self._newest = CatalogueVersion(self, version, self._steps[version])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def item(self, item_id: str) -> Item | None:
        """Return an item as it is now; None: there is none."""
        text = self._texts.get(item_id)
        return None if text is None else decode_item(text)

    @property
    def newest(self) -> Catalogue:
        """The catalogue as of the newest version; it stays as it is when more entries come."""
        return self._newest

    def at(self, version: str) -> Catalogue:
        """Return the catalogue as of a version.

        Raises:
            MissingBlobError: it is none of the versions since this timeline was begun.
        """
        if version == self.version:
            return self._newest
        if version not in self._steps:
            raise MissingBlobError(f"the log of items has no version {version}", "catalogue")
        older = CatalogueVersion(self, version, self._steps[version])
        older.freeze()
        return older

    @property
    def encoded(self) -> bytes:
        """The items as they are now, as the blob of a whole catalogue holds them."""
        return b"[" + b",".join(map(bytes, self._texts.values())) + b"]"


class CatalogueVersion(Catalogue):
    """One version of a timeline, in the place of a catalogue of its own."""

    def __init__(self, timeline: ItemTimeline, version: str, step: int) -> None:
        self.digest = version
        self._timeline, self._step = timeline, step
        self._features = timeline._table  # noqa: SLF001 - two parts of one thing
        self._rows = timeline._rows  # noqa: SLF001
        self._changed = timeline._changed  # noqa: SLF001
        self._count = timeline._counts[step]  # noqa: SLF001
        self._row = self._rows.get
        self._lacking = None

    def freeze(self) -> None:
        """Look rows up as of this version: later ones are about to come, or have."""
        self._row = self._row_then

    def _row_then(self, item_id: str, default: int) -> int:
        history = self._changed.get(item_id)
        if history is None:
            return self._rows.get(item_id, default)
        row = history[bisect_right(history, self._step, key=lambda each: each[0]) - 1][1]
        return default if row == ABSENT else row

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """The items, in the order in which they came."""
        every = dict.fromkeys((*self._rows, *self._changed))
        return tuple(item_id for item_id in every if item_id in self)


def _whole(blob: Callable[[str], bytes], name: str) -> bytes:
    data = blob(name)
    if digest(data) != name:
        raise MissingBlobError(
            f"what is stored as blob {name} are other bytes: restore it", "digest"
        )
    return data
