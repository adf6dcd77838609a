"""A log of items in memory, random changes of items, and what catalogues say of them."""

from collections.abc import Iterator

import msgspec
from hypothesis import strategies as st

from bandits.errors import MissingBlobError
from bandits.log.codec import digest
from bandits.log.positions import has_reached, is_after
from bandits.log.records import ItemChange, ItemsBaseRecord, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline


class MemoryItems:
    """A log of items in memory.

    ``timeline``: the items now. ``versions``: each version that there was, in order.
    """

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.blobs: dict[str, bytes] = {}
        self.timeline = ItemTimeline()
        self.versions: list[str] = []
        self.reads = 0

    def append(self, *changes: ItemChange, at: int | None = None) -> str:
        """Append an entry; return the version that it makes."""
        return self._add(ItemsRecord(list(changes)), at)

    def replace(self, items: list[Item], at: int | None = None) -> str:
        """Append a whole catalogue that replaces all items; return its version."""
        catalogue = Catalogue.put(items)
        self.blobs[catalogue.digest] = catalogue.encoded
        return self._add(ItemsBaseRecord(catalogue.digest), at)

    def add_base(self, timeline: ItemTimeline | None = None, at: int | None = None) -> str:
        """Append the items as they are, or as they were when a timeline was read so far."""
        timeline = self.timeline if timeline is None else timeline
        data = timeline.encoded
        self.blobs[digest(data)] = data
        return self._add(ItemsBaseRecord(digest(data), timeline.version), at)

    def _add(self, record: ItemsRecord | ItemsBaseRecord, at: int | None) -> str:
        number = len(self.entries) + 1
        entry = LogEntry(f"{1000 * number if at is None else at}-{number}", record)
        self.entries.append(entry)
        self.timeline.apply(entry, self.blob)
        self.versions.append(self.timeline.version)
        return self.timeline.version

    # As ItemsLog has it

    def encoded(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        for entry in list(self.entries):
            if is_after(entry.id, after) and (through is None or has_reached(through, entry.id)):
                self.reads += 1
                yield entry

    def bases(self, through: str) -> Iterator[LogEntry]:
        for entry in reversed(self.entries):
            if isinstance(entry.record, ItemsBaseRecord) and has_reached(through, entry.id):
                yield entry

    def blob(self, name: str) -> bytes:
        if name not in self.blobs:
            raise MissingBlobError(f"blob {name} is gone", "digest")
        return self.blobs[name]


def put(item: Item) -> ItemChange:
    return ItemChange("put", item.id, encode_item(item))


def patch(item_id: str, **fields) -> ItemChange:
    return ItemChange("patch", item_id, msgspec.json.encode(fields))


def delete(item_id: str) -> ItemChange:
    return ItemChange("delete", item_id)


IDS = "abcdefg"
FEATURES = st.dictionaries(
    st.sampled_from(["price", "tags", "new", "kind"]),
    st.one_of(
        st.sampled_from([0.0, 1.5, -2.0]),
        st.sampled_from(["x", "y"]),
        st.booleans(),
        st.lists(st.sampled_from(["t0", "t1", "t2", "t3"]), max_size=4),
    ),
    max_size=4,
)
ITEMS = st.builds(Item, st.sampled_from(IDS), FEATURES)
CHANGES = st.one_of(
    st.builds(put, ITEMS),
    st.builds(
        lambda name, features: patch(name, features=features), st.sampled_from(IDS), FEATURES
    ),
    st.builds(delete, st.sampled_from(IDS)),
)
ALL_ITEMS = st.lists(ITEMS, max_size=6, unique_by=lambda item: item.id)
STEPS = st.one_of(
    st.lists(CHANGES, min_size=1, max_size=4),
    st.tuples(st.just("replace"), ALL_ITEMS),
    st.tuples(st.just("base"), st.integers(0, 5)),
)
"""An entry: changes, a whole catalogue, or a base that is so many entries late."""


def played(steps) -> tuple[MemoryItems, list[Catalogue]]:
    """A log of such steps; and by entry, a catalogue made anew of the items that there are then.

    What a change means is said here once more, in the plainest way.
    """
    log, now, all_then, timelines = MemoryItems(), {}, [], []
    for step in steps:
        timelines.append(_copy_of(log))
        if isinstance(step, list):
            log.append(*step)
            for change in step:
                now = _changed(now, change)
        elif step[0] == "replace":
            log.replace(step[1])
            now = {item.id: item for item in step[1]}
        else:
            log.add_base(timelines[max(0, len(timelines) - 1 - step[1])])
        all_then.append(Catalogue.put(list(now.values())))
    return log, all_then


def _copy_of(log: MemoryItems) -> ItemTimeline:
    again = ItemTimeline()
    for entry in log.entries:
        again.apply(entry, log.blob)
    return again


def _changed(items: dict[str, Item], change: ItemChange) -> dict[str, Item]:
    if change.op == "delete":
        return {name: item for name, item in items.items() if name != change.id}
    if change.op == "put":
        return items | {change.id: msgspec.json.decode(change.fields, type=Item)}
    if change.id not in items:
        return items
    given = msgspec.json.decode(change.fields)["features"]
    merged = items[change.id].features | given
    return items | {change.id: msgspec.structs.replace(items[change.id], features=merged)}


def said_of(catalogue: Catalogue, ids: str = IDS + "z") -> list[object]:
    """All that a catalogue says of items, in a form that compares: what is 0 is no feature."""
    said: list[object] = [len(catalogue), sorted(catalogue.ids), catalogue.limits]
    said += [catalogue.lacking(tuple(ids)).tolist(), (catalogue.rows(list(ids)) >= 0).tolist()]
    said += [[item_id in catalogue for item_id in ids]]

    namespace = catalogue.namespace(list(ids))
    cells = namespace.cells()
    hashes = cells if cells.ndim == 2 else [cells] * len(ids)
    said.append([_pairs(*row) for row in zip(hashes, namespace.values, strict=True)])

    names, codes, values = catalogue.table
    own = catalogue.rows(list(ids)).tolist()
    said.append([_pairs(names[codes[row % len(codes)]], values[row]) for row in own if row >= 0])
    said += [_pairs(one.cells(), one.values) for one in map(catalogue.one, ids)]
    return said


def _pairs(hashes, values) -> list[tuple[int, float]]:
    return [(int(a), float(b)) for a, b in zip(hashes, values, strict=True) if b]
