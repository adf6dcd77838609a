"""The rows of an open range file: they are read one row group at a time, and errors name it."""

import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import ArchiveError
from bandits.log.positions import START, log_order
from bandits.log.records import kind_of
from policies.archive.arrays import INT64_MAX
from policies.archive.chain import OpenFile, RangeChain
from policies.archive.columns import COLUMNS, UNDECODABLE, decoded
from policies.archive.layouts import FORMAT, NEVER_SAID, SCHEMAS
from policies.archive.parts.rebuild import (
    FEW,
    IN_PARTS,
    ROWS,
    StoredEntries,
    stored_entries,
)
from policies.archive.parts.shapes import PLACED, misshapen, shape_of
from policies.archive.parts.shredded import rows_of

_ASIDE = frozenset({"ms", "seq", "propensity", "action", "challenger"})
"""Columns that say nothing that a record's bytes are made of."""
_MADE_OF = [field for field in SCHEMAS[FORMAT] if field.name not in _ASIDE]


class RowGroup(NamedTuple):
    """Columns of some rows of a row group, and where they come from.

    Attributes:
        batch: the rows, in the order of the log.
        file: the file's path.
        number: which of the file's row groups it is, from 0.
        last: position of the last entry that was looked at for them.
    """

    batch: pa.RecordBatch
    file: str
    number: int
    last: str

    def damaged(self, detail: str) -> ArchiveError:
        """Return the error that the file is damaged here.

        Args:
            detail: what is wrong.
        """
        return ArchiveError(
            f"{self.file}, row group {self.number}: damaged ({detail}): restore it from a copy",
            "archive",
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which rows of a row group are asked for.

    ``last``: position of the last that was looked at. ``outgrown``: whether some did not decode
    when the file was written, and do now. ``known``: what was read of the row group to find out.
    """

    number: int
    first: int
    count: int
    mask: pa.Array | None
    last: str
    outgrown: bool
    known: pa.RecordBatch

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return these rows."""
        batch = batch.slice(self.first, self.count)
        return batch if self.mask is None else batch.filter(self.mask)


class RangeRows:
    """The rows of one file that lie past a position, up to another."""

    def __init__(
        self, chain: RangeChain, file: OpenFile, after: str | None, through: str | None
    ) -> None:
        """Look at a file.

        Args:
            chain: what opened it.
            file: the open file.
            after: entries past this one; None for all.
            through: up to this one; None for all.
        """
        self._chain = chain
        self._file = file
        self.layout = file.header.format
        self._after = log_order(after or START)
        self._through = None if through is None else log_order(through)
        schema = file.parquet.metadata.schema
        self._places = {schema.column(i).path: i for i in range(len(schema))}

    def columns(
        self, names: Sequence[str], kinds: Collection[str] | None = None
    ) -> Iterator[RowGroup]:
        """Yield columns by row group.

        Args:
            names: of COLUMNS; those that the layout lacks are derived.
            kinds: only entries of these kinds; None for all.
        """
        schema = pa.schema([COLUMNS.field(name) for name in names])
        held = [name for name in names if name not in NEVER_SAID[self.layout]]
        needed = [*held, *sorted(shape_of(held).difference(held))]
        lacks = not set(held) <= set(SCHEMAS[self.layout].names)

        # Where all kinds are asked for, hardly a row group is read for nothing.
        at_once = [] if lacks or kinds is not None else needed
        for wanted in self._wanted(kinds, at_once):
            if lacks or wanted.outgrown:
                rows = rows_of(*_joined(self._entries(wanted)))
                batch = rows.columns(names)
            else:
                read = wanted.known if at_once else self._read(wanted.number, needed)
                stored = wanted.of(read)
                arrays = [
                    stored[each.name] if each.name in held else pa.nulls(len(stored), each.type)
                    for each in schema
                ]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield RowGroup(batch, self._chain.full(self._file.listed), wanted.number, wanted.last)

    def entries(self, kinds: Collection[str] | None = None) -> Iterator[StoredEntries]:
        """Yield the entries, some at a time.

        Args:
            kinds: only entries of these kinds; None for all.

        Raises:
            ArchiveError: a column contradicts the record that it is of.
        """
        for wanted in self._wanted(kinds):
            yield from self._entries(wanted, kinds)

    def stored(self, number: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of a whole row group as they are stored.

        Args:
            number: which, from 0.
            names: of the file's layout.
        """
        needed = shape_of(names).difference(names)
        return self._read(number, [*names, *sorted(needed)]).select(list(names))

    def all_entries(self, number: int) -> list[StoredEntries]:
        """Return the entries of a whole row group, contradictory or not."""
        return list(self._made(number, lambda batch: batch))

    def count(self, number: int) -> int:
        """Return how many rows a row group has, from 0."""
        return int(self._file.parquet.metadata.row_group(number).num_rows)

    def picked(
        self, number: int, names: Sequence[str], places: NDArray[np.intp]
    ) -> tuple[pa.RecordBatch, list[StoredEntries]]:
        """Return columns of some rows as they are stored, and their entries, contradictory or not.

        Args:
            number: which row group, from 0.
            names: of the file's layout.
            places: int[m], which of its rows.
        """
        batch = self._read(number, SCHEMAS[self.layout].names)
        batch = batch.take(pa.array(places))
        return batch.select(list(names)), list(self._made_of(number, batch, ROWS))

    def _entries(
        self, wanted: _Wanted, kinds: Collection[str] | None = None
    ) -> Iterator[StoredEntries]:
        # Whoever begins within a row group mostly looks for what is near.
        at_first = FEW if wanted.first else ROWS
        for entries in self._made(wanted.number, wanted.of, at_first, kinds):
            if (changed := entries.changed()) is not None:
                raise self._damaged(
                    f"the columns of entry {changed} are not those of its record", wanted.number
                )
            yield entries

    def _made(
        self,
        number: int,
        part: Callable[[pa.RecordBatch], pa.RecordBatch],
        at_first: int = ROWS,
        kinds: Collection[str] | None = None,
    ) -> Iterator[StoredEntries]:
        """Yield entries of a part of a row group, some at a time."""
        never = NEVER_SAID[self.layout]
        if self.layout == 1:
            yield from self._made_of(number, part(self._read(number, ["id", "record"])), at_first)
        elif kinds is not None and IN_PARTS.isdisjoint(kinds):
            yield StoredEntries.whole(part(self._read(number, ["id", "record", "checksum"])))
        else:
            names = [each.name for each in _MADE_OF if each.name not in never]
            yield from self._made_of(number, part(self._read(number, names)), at_first)

    def _made_of(
        self, number: int, batch: pa.RecordBatch, at_first: int
    ) -> Iterator[StoredEntries]:
        """Yield the entries of rows that were read, some at a time."""
        if self.layout == 1:
            yield StoredEntries.whole(batch)
            return

        never = NEVER_SAID[self.layout]
        for field in _MADE_OF:
            # No record of an older layout has what only newer columns hold.
            if field.name in never:
                batch = batch.append_column(field, pa.nulls(len(batch), field.type))
        with self._chain.reading(self._file.listed, number):
            yield from stored_entries(batch, at_first)

    def _wanted(
        self, kinds: Collection[str] | None, names: Sequence[str] = ()
    ) -> Iterator[_Wanted]:
        """Yield which rows are asked for, of the row groups that have any.

        What decides about that is read first, and the columns of ``names`` with it.
        """
        stored = self._file.range
        is_within = log_order(stored.previous) >= self._after and (
            self._through is None or log_order(stored.last) <= self._through
        )
        for number in range(self._file.parquet.num_row_groups):
            if not self._may_hold(number, kinds):
                continue

            # The kinds matter where some are asked for, and where some entries may be of none.
            by_kind = kinds is not None or self._may_hold(number, [UNDECODABLE])
            # Where all of it is asked for, and its end is known, nobody looks at the positions.
            said = self._file.groups
            last = said.ends[number] if said is not None and is_within else None
            first_names = ["id", "kind"] if by_kind else ["id"] if last is None or not names else []
            known = self._read(number, list(dict.fromkeys([*first_names, *names])))
            first, end = 0, len(known)
            if not is_within:
                rows, order = range(end), partial(_order_of, known["id"])
                first = bisect.bisect_right(rows, self._after, key=order)
                if self._through is not None:
                    end = bisect.bisect_right(rows, self._through, key=order)
                if end <= first:
                    continue

            mask, outgrown = None, False
            if by_kind:
                named = known["kind"].cast(pa.string())
                now = self._kinds_now(number, named)
                outgrown = now is not named
                if kinds is not None:
                    asked = pa.array(list(kinds), pa.string())
                    mask = pc.is_in(now.slice(first, end - first), asked)
                    if not mask.true_count:
                        continue
            last = last or known["id"][end - 1].as_py()
            yield _Wanted(number, first, end - first, mask, last, outgrown, known)

    def _may_hold(self, number: int, kinds: Collection[str] | None) -> bool:
        """Return whether a row group's statistics allow rows that are asked for."""
        group = self._file.parquet.metadata.row_group(number)
        ms, kind = (group.column(self._places[name]).statistics for name in ("ms", "kind"))
        if ms is not None and ms.has_min_max:
            after, through = self._after[0], self._through
            if ms.max < min(after, INT64_MAX) or (through is not None and ms.min > through[0]):
                return False

        # What did not decode may be of any kind now.
        if kinds is None or kind is None or not kind.has_min_max:
            return True
        return any(kind.min <= each <= kind.max for each in (*kinds, UNDECODABLE))

    def _kinds_now(self, number: int, kinds: pa.Array) -> pa.Array:
        """Return the kinds of a row group's entries, also of those that only this build knows."""
        unknown = pc.equal(kinds, UNDECODABLE)
        if not unknown.true_count:
            return kinds
        names, rows = kinds.to_pylist(), pc.indices_nonzero(unknown).to_pylist()
        data = self._read(number, ["record"])["record"]
        for row in rows:
            record = decoded(data[row].as_py())
            names[row] = UNDECODABLE if record is None else kind_of(record)
        return pa.array(names, pa.string()) if names != kinds.to_pylist() else kinds

    def _read(self, number: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return all rows of some columns."""
        beside = shape_of(names) and PLACED in SCHEMAS[self.layout].names and PLACED not in names
        read = [*names, PLACED] if beside else list(names)
        with self._chain.reading(self._file.listed, number):
            batch = self._held(number, read)
            wrong = misshapen(batch)
        if wrong is not None:
            raise self._damaged(wrong, number)
        return batch.select(list(names)) if beside else batch

    def _held(self, number: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of a row group; those that hold nothing in any row are not read."""
        said = self._file.groups
        absent = frozenset[str]() if said is None else said.absent
        held = [name for name in names if name not in absent]
        parquet = self._file.parquet
        table = parquet.read_row_group(number, columns=held, use_threads=False)
        if len(held) < len(names):
            count = parquet.metadata.row_group(number).num_rows
            table = pa.table(
                {
                    name: table[name] if name in held else pa.nulls(count, COLUMNS.field(name).type)
                    for name in names
                }
            )
        (batch,) = table.select(names).combine_chunks().to_batches()
        return batch

    def _damaged(self, detail: str, number: int) -> ArchiveError:
        return self._chain.damaged(self._file.listed, detail, number)


def _order_of(ids: pa.Array, row: int) -> tuple[int, int]:
    return log_order(ids[row].as_py())


def _joined(parts: Iterable[StoredEntries]) -> tuple[list[str], list[bytes]]:
    """Return the positions and the bytes of all entries."""
    ids: list[str] = []
    data: list[bytes] = []
    for part in parts:
        ids += part.ids
        data += part.data
    return ids, data
