"""Every version of what there is to offer, from some version on: a fold over the log of items.

A version is a chain: ``version_after`` names it by the one before and the entry that made it, so
whoever has read the same entries has the same version. It begins with the entry's position, so that
it can be found again. A whole catalogue that replaces all items is a version of its own, whatever
was before: its digest.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from math import inf
from typing import Any, NamedTuple

import msgspec
import numpy as np

from banditloop_client.schemas import Item
from bandits.errors import ArtifactError, MissingBlobError
from bandits.log.codec import digest
from bandits.log.positions import START, has_reached
from bandits.log.records import (
    ItemChange,
    ItemsBaseRecord,
    ItemsRecord,
    LogEntry,
)
from policies.items.catalogue import EMPTIED, NEVER_PUT, Catalogue, sizes_of
from policies.items.changes import decode_item, decode_patch, encode_item, patched, refusal_of
from policies.items.stored import StoredItems
from policies.items.table import FeatureTable
from policies.items.version import ABSENT, CatalogueVersion, step_of

SEPARATOR = "~"
LEAST_DEAD = 1_000
"""Rows that nobody needs any more are taken out once they are more than these, and than half."""

_encode = msgspec.msgpack.Encoder().encode


def version_after(previous: str, position: str, record: ItemsRecord) -> str:
    """Return the version that an entry makes.

    Args:
        previous: the version before it.
        position: the entry's.
        record: the entry's.
    """
    # Of what every build reads in it, also where a later one has appended fields.
    content = _encode([(change.op, change.id, change.fields) for change in record.changes])
    return f"{position}{SEPARATOR}{digest(previous.encode() + b' ' + content)}"


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
        self._stored = StoredItems(catalogue.encoded, catalogue.sizes)
        self.offers = {
            item.id: offer
            for item in self._stored.perhaps_absent()
            if (offer := Offer.of(item)) is not None
        }

        # What became of each item that has changed: from which step on it had which row. And how
        # many items there were after each step, from the first that is not forgotten.
        self._changed: dict[str, list[tuple[int, int]]] = {}
        self._steps = {self.version: 0}
        self._counts = [len(self._rows)]
        self._first = self._dead = 0
        self._newest: CatalogueVersion | None = None

    def apply(self, entry: LogEntry, blob: Callable[[str], bytes]) -> list[RefusedChange]:
        """Apply the next entry; return the changes that were refused, alike by whoever reads them.

        Args:
            entry: of the log of items.
            blob: gives the bytes that an entry names by digest.

        Raises:
            MissingBlobError: a whole catalogue is not stored, or is another.
        """
        record, refused = entry.record, list[RefusedChange]()
        if isinstance(record, ItemsRecord):
            refused = self._change(record)
            self._step(version_after(self.version, entry.id, record))
        elif isinstance(record, ItemsBaseRecord) and record.version is None:
            try:
                self._begin(Catalogue.decode(whole_catalogue(blob, record.digest)), None)
            except ArtifactError as error:
                refused = [RefusedChange(0, "", error.message)]
        self.position = entry.id
        return refused

    def _change(self, record: ItemsRecord) -> list[RefusedChange]:
        # Whoever has the newest version keeps it as it is.
        if self._newest is not None:
            self._newest.freeze()
            self._newest = None

        refused: list[RefusedChange] = []
        put: dict[str, Item | None] = {}
        for at, change in enumerate(record.changes):
            try:
                put[change.id] = self._changed_item(change, put)
            except ArtifactError as error:
                refused.append(RefusedChange(at, change.id, error.message))

        kept = [item for item in put.values() if item is not None]
        row = self._table.extend([item.features for item in kept])
        step = self._first + len(self._counts)
        for item_id, item in put.items():
            if item is None and item_id not in self._rows:
                continue
            history = self._changed.setdefault(item_id, [])
            if not history:
                history.append((self._first, self._rows.get(item_id, ABSENT)))
            self.offers.pop(item_id, None)
            if item is None:
                history.append((step, ABSENT))
                self._rows.pop(item_id, None)
                self._stored.changed.pop(item_id, None)
                continue

            history.append((step, row))
            self._rows[item_id] = row
            self._stored.changed[item_id] = encode_item(item)
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
        self._steps[version] = self._first + len(self._counts)
        self._counts.append(len(self._rows))
        self.version = version

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def holds(self, version: str) -> bool:
        """Return whether a version can be asked for."""
        return version in self._steps

    def item(self, item_id: str) -> Item | None:
        """Return an item as it is now; None: there is none."""
        text = self.text(item_id)
        return None if text is None else decode_item(text)

    def text(self, item_id: str) -> bytes | None:
        """Return the JSON of an item as it is now; None: there is none."""
        row = self._rows.get(item_id)
        return None if row is None else self._stored.text(item_id, row)

    def with_text(self, needle: bytes) -> Iterator[list[bytes]]:
        """Yield the JSON of the items that may contain a text, of some thousand items at a time.

        Args:
            needle: in small letters that JSON writes as they are.
        """
        # Both are made anew together: whoever takes its time has those of the beginning.
        stored, rows = self._stored, self._rows
        for part in stored.with_text(needle):
            # One that has changed has another row by now, or none.
            yield [text for row, text in part if rows.get(decode_item(text).id) == row]
        yield from stored.changed_with(needle)

    def values(self, names: Sequence[str]) -> Iterator[tuple[list[str], list[list[Any]]]]:
        """Yield all items as they are now, some at a time: ids, and by name a feature of each.

        Args:
            names: the features; of an item that lacks one it is None.
        """
        return self._stored.values(self._rows, names)

    @property
    def newest(self) -> Catalogue:
        """The catalogue as of the newest version; it stays as it is when more entries come."""
        self._table.catch_up()
        return self._now()

    def _now(self) -> "CatalogueVersion":
        if self._newest is None:
            self._newest = CatalogueVersion(self, self.version, self._steps[self.version])
        return self._newest

    def at(self, version: str) -> Catalogue:
        """Return the catalogue as of a version.

        Raises:
            MissingBlobError: it is none of the versions since this timeline was begun.
        """
        if version == self.version:
            return self._now()
        step = self._steps.get(version)
        if step is None:
            raise MissingBlobError(f"the log of items has no version {version}", "catalogue")
        older = CatalogueVersion(self, version, step)
        older.freeze()
        return older

    @property
    def encoded(self) -> bytes:
        """The items as they are now, as the blob of a whole catalogue holds them."""
        return self._as_blob(self._texts())

    def _texts(self) -> list[bytes]:
        return [self._stored.text(item_id, row) for item_id, row in self._rows.items()]

    def _as_blob(self, texts: Sequence[bytes]) -> bytes:
        # A log in which some were put says so, even if none is left.
        if not texts and self.version != NEVER_PUT:
            return EMPTIED
        return b"[" + b",".join(texts) + b"]"

    @property
    def oldest(self) -> str:
        """The oldest version that can be asked for."""
        return next(iter(self._steps))

    def forget(self, position: str) -> None:
        """Forget what no version needs that is in force at a position, or comes later.

        A catalogue of a version before must no longer be used.

        Args:
            position: in the log of items; one before its first version forgets nothing.
        """
        self.forget_versions(position)
        if self.is_due:
            self.adopt(self.trimmed())

    def forget_versions(self, position: str) -> None:
        """Forget the versions that ``forget`` forgets, and leave what they needed where it is.

        Args:
            position: see ``forget``.
        """
        kept, gone = self._first, list[str]()
        for version, step in self._steps.items():
            made = position_of(version)
            if made is not None and not has_reached(position, made):
                break
            kept = step
            gone.append(version)

        if kept == self._first:
            return
        for version in gone[:-1]:
            del self._steps[version]
        del self._counts[: kept - self._first]
        self._first = kept
        self._forget_rows(kept)

    @property
    def is_due(self) -> bool:
        """Whether so much is kept for no version that it is to be taken out (``trimmed``)."""
        return self._dead > max(LEAST_DEAD, self._table.rows // 2)

    def _forget_rows(self, kept: int) -> None:
        """Drop the rows that items had before a step, and no longer at it."""
        as_ever: list[str] = []
        for item_id, history in self._changed.items():
            at = bisect_right(history, kept, key=step_of) - 1
            self._dead += sum(row != ABSENT for _, row in islice(history, at))
            del history[:at]
            if len(history) == 1:
                as_ever.append(item_id)
        for item_id in as_ever:
            del self._changed[item_id]

    def trimmed(self) -> "TrimmedItems":
        """Return what some version needs, and nothing else; of a million items it takes seconds.

        In a thread it may be asked for, while nothing is applied.
        """
        live = np.fromiter(self._rows.values(), np.intp, len(self._rows))
        needed = {row for history in self._changed.values() for _, row in history} - {ABSENT}
        older = np.fromiter(needed.difference(live.tolist()), np.intp)
        rows = np.concatenate([live, np.sort(older)])

        places = np.full(self._table.rows + 1, ABSENT)  # that of ABSENT is the last
        places[rows] = np.arange(len(rows))
        changed = {
            item_id: [(step, int(places[row])) for step, row in history]
            for item_id, history in self._changed.items()
        }
        numbered = {item_id: row for row, item_id in enumerate(self._rows)}
        texts = self._texts()
        stored = StoredItems(self._as_blob(texts), sizes_of(texts))
        return TrimmedItems(stored, self._table.taken(rows), numbered, changed)

    def adopt(self, trimmed: "TrimmedItems") -> None:
        """Keep what was found to be needed; catalogues that were given out keep what they have.

        Args:
            trimmed: of this timeline, to which nothing was applied since.
        """
        self._stored, self._table, self._rows, self._changed = trimmed
        self._dead, self._newest = 0, None


class TrimmedItems(NamedTuple):
    """What a timeline keeps: texts, features, the row of each item, and of those that changed."""

    stored: StoredItems
    table: FeatureTable
    rows: dict[str, int]
    changed: dict[str, list[tuple[int, int]]]


def whole_catalogue(blob: Callable[[str], bytes], name: str) -> bytes:
    """Return the bytes of a whole catalogue.

    Args:
        blob: gives the bytes that an entry names by digest.
        name: its digest.

    Raises:
        MissingBlobError: other bytes are stored under its name; or whatever ``blob`` raises.
    """
    data = blob(name)
    if digest(data) != name:
        raise MissingBlobError(
            f"what is stored as blob {name} are other bytes: restore it", "digest"
        )
    return data
