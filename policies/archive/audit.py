"""Archived columns, compared with those that follow from the records they stand beside."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bandits.errors import ArchiveError
from policies.archive.archive import ArchiveReader
from policies.archive.columns import COLUMNS, UNDECODABLE, columns_of, decoded
from policies.archive.layouts import NEVER_SAID, SCHEMAS
from policies.archive.parts.objects import texts_of
from policies.archive.parts.rebuild import StoredEntries
from policies.archive.parts.shapes import bounds_of, elements_of
from policies.archive.row_groups import RangeRows, RowGroup

ALWAYS = 4
"""Row groups of which rows are looked at; of those after them it is the 8th, the 16th and so on."""
ROWS = 16
"""Rows of each that are looked at."""


class RowSample:
    """A sample of what is read, compared with the records that it stands beside."""

    def __init__(self) -> None:
        self._read = 0

    def check(self, rows: RangeRows, group: RowGroup) -> None:
        """Look at some rows of a row group, if it is of the sample.

        Args:
            rows: those of its file.
            group: what was read of it.

        Raises:
            ArchiveError: a column contradicts a record.
        """
        self._read += 1
        if self._read > ALWAYS and self._read & (self._read - 1):
            return
        names = _names(rows)
        count = rows.count(group.number)
        places = np.unique(np.linspace(0, count - 1, min(count, ROWS)).astype(np.intp))
        stored, parts = rows.picked(group.number, names, places)
        for fault in _faults(names, stored, parts):
            what = "columns are" if fault.column == "record" else f"column {fault.column!r} is"
            raise group.damaged(f"the {what} not what the record of entry {fault.entry} says")


class ColumnFault(NamedTuple):
    """A column that contradicts a record.

    ``column``: ``record`` where the bytes that come out of all columns are not those that went in.
    """

    entry: str
    column: str


class GroupAudit(NamedTuple):
    """The findings of the audit of one row group.

    Attributes:
        file: the file's path.
        number: which of its row groups, from 0.
        entries: how many it holds.
        faults: by column the first entry that it contradicts.
        error: why it could not be read; empty where it could.
    """

    file: str
    number: int
    entries: int
    faults: Sequence[ColumnFault] = ()
    error: str = ""


def audit_columns(
    reader: ArchiveReader, limit: int, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[GroupAudit]:
    """Yield the audits of a sample of row groups, spread over the files.

    Args:
        reader: the archive.
        limit: the most row groups to look at.
        progress: told how many files of the sample are done, and how many there are.
    """
    files = list(reader.chain.listing.after(None))
    places = np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))
    for done, place in enumerate(places.tolist()):
        with reader.chain.open(files[place]) as file:
            rows = RangeRows(reader.chain, file, None, None)
            count = file.parquet.num_row_groups
            numbers = np.linspace(0, count - 1, min(count, max(1, limit // len(places))))
            for number in np.unique(numbers.astype(int)).tolist():
                yield _audit(rows, number, reader.chain.full(file.listed))
        progress(done + 1, len(places))


def _audit(rows: RangeRows, number: int, path: str) -> GroupAudit:
    try:
        names = _names(rows)
        stored, parts = rows.stored(number, names), rows.all_entries(number)
    except ArchiveError as error:
        return GroupAudit(path, number, 0, error=error.message)
    return GroupAudit(path, number, len(stored), _faults(names, stored, parts))


def _names(rows: RangeRows) -> list[str]:
    """Return the columns of a file that follow from its records."""
    return [
        field.name
        for field in SCHEMAS[rows.layout]
        if field.name in COLUMNS.names and field.name not in NEVER_SAID[rows.layout]
    ]


def _faults(
    names: Sequence[str], stored: pa.RecordBatch, parts: Sequence[StoredEntries]
) -> list[ColumnFault]:
    """Return by column the first entry that it contradicts.

    Args:
        names: the columns.
        stored: as they are stored.
        parts: the entries.
    """
    changed = [entry_id for part in parts if (entry_id := part.changed()) is not None]
    faults = [ColumnFault(entry_id, "record") for entry_id in changed[:1]]
    ids = [entry_id for part in parts for entry_id in part.ids]
    data = [each for part in parts for each in part.data]
    kinds = texts_of(stored["kind"])
    # What did not decode when the file was written has no columns, also where it decodes by now.
    records = [
        None if kind == UNDECODABLE else decoded(each)
        for kind, each in zip(kinds, data, strict=True)
    ]
    derived = columns_of(ids, records, names)
    for name in names:
        pair = stored[name], derived[name]
        if not _same(*pair):
            rows_of = (row for row in range(len(ids)) if not _same(*_row(row, *pair)))
            faults.append(ColumnFault(ids[next(rows_of)], name))
    return faults


def _row(row: int, *columns: pa.Array) -> Iterator[pa.Array]:
    return (column.slice(row, 1) for column in columns)


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Return whether two columns say the same, numbers bit for bit."""
    if len(one) != len(other) or not one.is_valid().equals(other.is_valid()):
        return False

    kind = one.type
    if pa.types.is_struct(kind):
        return all(_same(one.field(field.name), other.field(field.name)) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        parts = ("values",) if pa.types.is_list(kind) else ("keys", "items")
        return np.array_equal(bounds_of(one), bounds_of(other)) and all(
            _same(elements_of(one, getattr(one, part)), elements_of(other, getattr(other, part)))
            for part in parts
        )
    return bool(_plain(one) == _plain(other))


def _plain(column: pa.Array) -> object:
    """Return a column without lists as something that compares."""
    if pa.types.is_dictionary(column.type):
        return texts_of(column)
    if pa.types.is_floating(column.type):
        return column.fill_null(0).to_numpy().tobytes()
    return column.to_pylist()
