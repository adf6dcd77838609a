"""The entries of a row group from layout 2 on, made of its columns and of what these leave."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import CodecError
from bandits.kernels.compiled import Int64
from bandits.log.codec import decode_valid, read_entry
from bandits.log.records import Credit, DecisionRecord, LogEntry, RewardRecord
from bandits.values import FeatureMap
from policies.archive.parts.assembled import ASSEMBLED, NAMED, assembled
from policies.archive.parts.rest import elements_and_policy, encode_first, is_emptied
from policies.archive.parts.shapes import bounds_of, elements_of

ROWS = 2048
"""Rows that are objects at the same time: those of a row group may be many."""


class StoredEntries(NamedTuple):
    """Entries side by side as a file has them, in order.

    Attributes:
        ids: their positions.
        data: their bytes.
        checksums: the CRC-32 that each must have; none in a file that does not say.
        are_records: whether they were put together, and once decoded without a fault.
    """

    ids: list[str]
    data: list[bytes]
    checksums: list[int]
    are_records: list[bool]

    @classmethod
    def whole(cls, batch: pa.RecordBatch) -> "StoredEntries":
        """Return entries of layout 1, which holds whole records."""
        ids, data = batch["id"].to_pylist(), batch["record"].to_pylist()
        return cls(ids, data, [], [False] * len(ids))

    def changed(self) -> str | None:
        """Return the first entry whose bytes are not those that were archived."""
        if not self.checksums or list(map(zlib.crc32, self.data)) == self.checksums:
            return None
        found = zip(self.ids, self.data, self.checksums, strict=True)
        return next(entry_id for entry_id, data, said in found if zlib.crc32(data) != said)

    def decoded(self, on_undecodable: Callable[[str, CodecError], None]) -> Iterator[LogEntry]:
        """Yield them decoded.

        Args:
            on_undecodable: told of one that cannot be decoded, with the reason.
        """
        for entry_id, data, is_record in zip(self.ids, self.data, self.are_records, strict=True):
            if is_record:
                yield LogEntry(entry_id, decode_valid(data))
            else:
                yield read_entry(entry_id, data, on_undecodable)


def stored_entries(batch: pa.RecordBatch) -> Iterator[StoredEntries]:
    """Yield the entries of some rows, in order, not too many at a time.

    Args:
        batch: all columns of the newest layout.
    """
    for start in range(0, len(batch), ROWS):
        yield _entries(batch.slice(start, ROWS))


def _entries(batch: pa.RecordBatch) -> StoredEntries:
    # What the columns leave of records is the same of most.
    stored, kinds = batch["record"].dictionary_encode(), batch["kind"]
    rest = cast(list[bytes], stored.dictionary.to_pylist())
    codes, kind_of_row = stored.indices.to_numpy(), kinds.indices.to_numpy()
    data = [rest[code] for code in codes.tolist()]
    is_record = np.zeros(len(data), np.bool_)

    makers: tuple[tuple[str, Any], ...] = (("decision", _decisions), ("reward", _rewards))
    for kind, make in makers:
        own = kind_of_row == pc.index(kinds.dictionary, kind).as_py()
        emptied = np.array([is_emptied(kind, each) for each in rest], np.bool_)
        rows = np.flatnonzero(own & emptied[codes])
        if not rows.size:
            continue

        # Lists of other kinds are empty; only those of whole records are in the way.
        alone = rows.size < np.count_nonzero(own)
        part, places = (batch.take(rows), np.arange(rows.size)) if alone else (batch, rows)
        heads = {code: elements_and_policy(rest[code]) for code in np.unique(codes[rows]).tolist()}
        made = make(part, places, [heads[code] for code in codes[rows].tolist()])
        for row, record in zip(rows.tolist(), made, strict=True):
            data[row] = record
        is_record[rows] = True

    ids, checksums = (batch[name].to_pylist() for name in ("id", "checksum"))
    return StoredEntries(ids, data, checksums, is_record.tolist())


def _rewards(batch: pa.RecordBatch, rows: Int64, heads: Sequence[tuple[int, str]]) -> list[bytes]:
    names = ("event_id", "reward", "reward_id", "slot", "action_id", "signal")
    columns = [_values_of(batch[name].take(rows)) for name in names]
    return [
        encode_first(RewardRecord(*fields), elements)
        for *fields, (elements, _) in zip(*columns, heads, strict=True)
    ]


def _decisions(batch: pa.RecordBatch, rows: Int64, heads: Sequence[tuple[int, str]]) -> list[bytes]:
    elements, policies = [count for count, _ in heads], [policy for _, policy in heads]

    # Compiled code has none of the parts that few logs have.
    is_plain = all(batch[name].null_count == len(batch) for name in ("credit", "failed"))
    if is_plain and ASSEMBLED.issuperset(elements):
        return assembled(batch, rows, policies, elements)
    made = zip(_decoded(batch, rows.tolist(), policies), elements, strict=True)
    return [encode_first(record, count) for record, count in made]


def _decoded(
    batch: pa.RecordBatch, rows: Sequence[int], policies: Sequence[str]
) -> Iterator[DecisionRecord]:
    event_ids, specs, snapshots, catalogues, users, artifacts, profiles = (
        _values_of(batch[name]) for name in ("event_id", *NAMED)
    )
    deferred, unserved, holdout = (
        batch[name].to_pylist() for name in ("deferred", "unserved", "holdout")
    )
    contexts = _maps(batch["context"], _features)
    features = _lists(batch["features"], _feature_maps)
    action_ids = _lists(batch["action_ids"], _values_of)
    chosen = _lists(batch["chosen"], _values_of)
    pmfs = _parts(batch["pmf"])
    scores = _maps(batch["scores"], _parts)
    failed = _maps(batch["failed"], _values_of)
    credited = _credits(batch["credit"])

    for row, policy in zip(rows, policies, strict=True):
        yield DecisionRecord(
            event_ids[row],
            policy,
            specs[row],
            snapshots[row],
            catalogues[row],
            contexts[row],
            action_ids[row],
            features[row],
            scores[row],
            pmfs[row],
            chosen[row],
            users[row],
            deferred[row],
            # Of an unserved decision the column does not say: it was to be held out.
            unserved[row] if holdout[row] is None else holdout[row],
            credited[row],
            unserved[row],
            failed[row],
            artifacts[row],
            profiles[row],
        )


def texts_of(column: pa.Array) -> list[Any]:
    """Return a column of coded texts as one text per row, None where it is null."""
    words, codes = column.dictionary.to_pylist(), column.indices
    if codes.null_count:
        codes = codes.fill_null(len(words))
        words.append(None)
    return [words[code] for code in codes.to_numpy().tolist()]


def _values_of(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        return texts_of(column)
    if column.null_count or not pa.types.is_primitive(column.type):
        return cast(list[Any], column.to_pylist())
    return cast(list[Any], column.to_numpy(zero_copy_only=False).tolist())


def _lists(column: pa.Array, make: Any) -> list[Any]:
    """Return a list column as one list per row, None where it is null."""
    if column.null_count == len(column):
        return [None] * len(column)
    flat = make(elements_of(column, column.values))
    spans = pairwise(bounds_of(column).tolist())
    return _nulled(column, [flat[first:last] for first, last in spans])


def _nulled(column: pa.Array, values: list[Any]) -> list[Any]:
    if column.null_count:
        for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            values[row] = None
    return values


def _parts(column: pa.Array) -> list[bytes]:
    """Return a column of lists of numbers as their little-endian bytes, one part per row."""
    flat = elements_of(column, column.values).to_numpy()
    data, width = flat.tobytes(), flat.itemsize
    spans = pairwise((width * bounds_of(column)).tolist())
    return [data[first:last] for first, last in spans]


def _maps(column: pa.Array, make: Any) -> list[Any]:
    """Return a column of maps as one dict per row, None where it is null."""
    if column.null_count == len(column):
        return [None] * len(column)
    keys = texts_of(elements_of(column, column.keys))
    items = make(elements_of(column, column.items))
    maps: list[Any] = [
        dict(zip(keys[first:last], items[first:last], strict=True)) if last > first else {}
        for first, last in pairwise(bounds_of(column).tolist())
    ]
    return _nulled(column, maps)


def _feature_maps(column: pa.Array) -> list[FeatureMap | None]:
    return _maps(column, _features)


def _features(column: pa.Array) -> list[Any]:
    """Return the values of features: of the four kinds each has one."""
    values: list[Any] = [None] * len(column)
    for field in column.type:
        part = column.field(field.name)
        if part.null_count == len(part):
            continue
        own = _lists(part, texts_of) if field.name == "texts" else _values_of(part)
        if not part.null_count:
            return own
        for place in np.flatnonzero(part.is_valid().to_numpy(zero_copy_only=False)).tolist():
            values[place] = own[place]
    return values


def _credits(column: pa.Array) -> list[Credit | None]:
    if column.null_count == len(column):
        return [None] * len(column)
    sources, pmfs, credited = (
        _lists(column.field("sources"), texts_of),
        _parts(column.field("pmf")),
        _lists(column.field("credited"), _values_of),
    )
    made: list[Any] = [Credit(*parts) for parts in zip(sources, pmfs, credited, strict=True)]
    return _nulled(column, made)
