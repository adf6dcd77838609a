"""The entries of a row group from layout 2 on, made of its columns and of what these leave."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from bandits.errors import CodecError
from bandits.kernels.compiled import Int64
from bandits.log.codec import decode_valid, read_entry
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import (
    Apprentice,
    Credit,
    DecisionRecord,
    LogEntry,
    RewardRecord,
)
from bandits.values import FeatureMap
from policies.archive.parts.assembled import ASSEMBLED, NAMED, assembled
from policies.archive.parts.encoded import OF_REWARDS, encoded_entries
from policies.archive.parts.objects import (
    byte_parts,
    lists_of,
    maps_of,
    nulled,
    plain_values,
    texts_of,
)
from policies.archive.parts.rest import elements_and_policy, encode_first, is_emptied
from policies.archive.parts.ruled import rules_of

IN_PARTS = frozenset({"decision", "reward"})
"""The kinds of entries that are put together; of all others the record is whole."""
RARE = ("credit", "failed")
"""The parts that few logs have: compiled code has none of them."""
ROWS = 8192
"""Rows that are objects at the same time: half of a row group that is written today."""
FEW = 512
"""Rows that are made at first where somebody looks for one of them."""


class StoredEntries(NamedTuple):
    """Entries side by side as a file has them, in order.

    Attributes:
        ids: their positions.
        data: their bytes.
        checksums: the CRC-32 that each must have; none in a file that does not say.
        are_records: whether they were put together, and once decoded without a fault.
        columns: those that they were put together of; None in a file of whole records.
    """

    ids: list[str]
    data: list[bytes]
    checksums: list[int]
    are_records: list[bool]
    columns: pa.RecordBatch | None = None

    @classmethod
    def whole(cls, batch: pa.RecordBatch) -> "StoredEntries":
        """Return entries of which the file holds whole records.

        Args:
            batch: their positions and records, and, where the file says them, checksums.
        """
        ids, data = plain_values(batch["id"]), plain_values(batch["record"])
        said = "checksum" in batch.schema.names
        return cls(ids, data, plain_values(batch["checksum"]) if said else [], [False] * len(ids))

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

    def encoded(self) -> list[LogEntry]:
        """Return them as a fold takes them, with decisions encoded."""
        if self.columns is None:
            return read_entries(list(zip(self.ids, self.data, strict=True)), lambda *_: None)
        return encoded_entries(self.columns, self.ids, self.data, self.are_records)


def stored_entries(batch: pa.RecordBatch, at_first: int = ROWS) -> Iterator[StoredEntries]:
    """Yield the entries of some rows, in order, not too many at a time.

    Args:
        batch: all columns of the newest layout.
        at_first: how many at first.
    """
    start, count = 0, at_first
    while start < len(batch):
        yield _entries(batch.slice(start, count))
        start, count = start + count, ROWS


def _entries(batch: pa.RecordBatch) -> StoredEntries:
    kinds = batch["kind"]
    if IN_PARTS.isdisjoint(kinds.dictionary.to_pylist()):
        return StoredEntries.whole(batch)

    # What the columns leave of records is the same of most.
    stored = batch["record"].dictionary_encode()
    rest = cast(list[bytes], stored.dictionary.to_pylist())
    codes, kind_of_row = stored.indices.to_numpy(), kinds.indices.to_numpy()
    named = kinds.dictionary.to_pylist()
    data = [rest[code] for code in codes.tolist()]
    is_record = np.zeros(len(data), np.bool_)

    makers: tuple[tuple[str, Any], ...] = (("decision", _decisions), ("reward", _rewards))
    for kind, make in makers:
        if kind not in named:
            continue
        own = kind_of_row == named.index(kind)
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

    ids, checksums = (plain_values(batch[name]) for name in ("id", "checksum"))
    return StoredEntries(ids, data, checksums, is_record.tolist(), batch)


def _rewards(batch: pa.RecordBatch, rows: Int64, heads: Sequence[tuple[int, str]]) -> list[bytes]:
    columns = [plain_values(batch[name].take(rows)) for name in OF_REWARDS]
    return [
        encode_first(RewardRecord(*fields), elements)
        for *fields, (elements, _) in zip(*columns, heads, strict=True)
    ]


def _decisions(batch: pa.RecordBatch, rows: Int64, heads: Sequence[tuple[int, str]]) -> list[bytes]:
    elements, policies = [count for count, _ in heads], [policy for _, policy in heads]

    is_plain = all(batch[name].null_count == len(batch) for name in RARE)
    if is_plain and ASSEMBLED.issuperset(elements):
        rare = (rules_of(batch), _apprentices(batch["apprentice"]))
        of_rows = ([part[row] for row in rows.tolist()] for part in rare)
        return assembled(batch, rows, policies, elements, *of_rows)
    made = zip(_decoded(batch, rows.tolist(), policies), elements, strict=True)
    return [encode_first(record, count) for record, count in made]


def _decoded(
    batch: pa.RecordBatch, rows: Sequence[int], policies: Sequence[str]
) -> Iterator[DecisionRecord]:
    event_ids, specs, snapshots, catalogues, users, artifacts, profiles = (
        plain_values(batch[name]) for name in ("event_id", *NAMED)
    )
    deferred, unserved, holdout = (
        batch[name].to_pylist() for name in ("deferred", "unserved", "holdout")
    )
    contexts = maps_of(batch["context"], _features)
    features = lists_of(batch["features"], _feature_maps)
    action_ids = lists_of(batch["action_ids"], plain_values)
    chosen = lists_of(batch["chosen"], plain_values)
    pmfs = byte_parts(batch["pmf"])
    scores = maps_of(batch["scores"], byte_parts)
    failed = maps_of(batch["failed"], plain_values)
    credited = _credits(batch["credit"])
    rules = rules_of(batch)
    apprentices = _apprentices(batch["apprentice"])

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
            rules[row],
            apprentices[row],
        )


def _feature_maps(column: pa.Array) -> list[FeatureMap | None]:
    return maps_of(column, _features)


def _features(column: pa.Array) -> list[Any]:
    """Return the values of features: of the four kinds each has one."""
    values: list[Any] = [None] * len(column)
    for field in column.type:
        part = column.field(field.name)
        if part.null_count == len(part):
            continue
        own = lists_of(part, texts_of) if field.name == "texts" else plain_values(part)
        if not part.null_count:
            return own
        for place in np.flatnonzero(part.is_valid().to_numpy(zero_copy_only=False)).tolist():
            values[place] = own[place]
    return values


def _credits(column: pa.Array) -> list[Credit | None]:
    if column.null_count == len(column):
        return [None] * len(column)
    sources, pmfs, credited = (
        lists_of(column.field("sources"), texts_of),
        byte_parts(column.field("pmf")),
        lists_of(column.field("credited"), plain_values),
    )
    made: list[Any] = [Credit(*parts) for parts in zip(sources, pmfs, credited, strict=True)]
    return nulled(column, made)


def _apprentices(column: pa.Array) -> list[Apprentice | None]:
    if column.null_count == len(column):
        return [None] * len(column)
    parts = (
        texts_of(column.field("served")),
        byte_parts(column.field("pmf")),
        lists_of(column.field("chosen"), plain_values),
    )
    made: list[Any] = [Apprentice(*each) for each in zip(*parts, strict=True)]
    return nulled(column, made)
