"""Between files and a data set: raw batches, how to read a table, which column is what.

A preset, or the recognition of columns, says a ``TableFormat`` and a ``ColumnMapping``. Whatever
reads a layout that no ``TableFormat`` describes yields ``RawRows`` itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from policies.data.manifest import WeightOptions
from simulator.logs.files import LogFile


class TableFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the tables of a file are read.

    ``kind``: None goes by the file's name, and by its first bytes where that says nothing. The
    others are of delimited text: ``separator``, one character or ``::``, None where it is to be
    found out; ``header``, whether the first line names the columns, None likewise; ``names``, those
    of the columns where there is no header (``column_1`` … by default), or instead of it;
    ``encoding``, as Python names it. ``quote`` None: quotes are ordinary characters.
    """

    kind: Literal["delimited", "json", "parquet"] | None = None
    separator: str | None = None
    header: bool | None = None
    names: tuple[str, ...] | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"


class ColumnMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which column of a table of events is what; None: there is none.

    ``event_type``: the type of every event, where no column says it. ``time_unit``: as in
    ``simulator.imports.times.TimeReading``; None: it is recognised by the values.
    """

    user: str
    item: str
    time: str | None = None
    type: str | None = None
    value: str | None = None
    time_unit: str | None = None
    event_type: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        fields = ("user", "item", "time", "type", "value")
        return {name: column for name in fields if (column := getattr(self, name)) is not None}


class RawRows(msgspec.Struct, frozen=True, eq=False):
    """Some rows of a file with their columns as they are: texts, numbers, timestamps.

    ``file``: as errors name it, without credentials. ``first_row``: the number of the first row in
    its file, counted from 1, a header not among them. ``numbers``: int64, the number of each row,
    where rows of the file are left out or make several; None: one after the other.
    """

    file: str
    first_row: int
    batch: pa.RecordBatch
    numbers: NDArray[np.int64] | None = None

    def number(self, index: int) -> int:
        """Return the number, in the file, of a row of the batch."""
        return self.first_row + index if self.numbers is None else int(self.numbers[index])


Unreadable = Callable[[str, int, str], None]
"""Told of a row that cannot be read: its file, its number, and what it says."""


@dataclass(frozen=True, slots=True)
class EventTable:
    """A file of events: how it is read, and which column is what.

    ``rows`` reads it where no ``TableFormat`` describes its layout: it yields the file's rows in
    their order, with the columns that ``mapping`` names, and tells of those that are unreadable.
    """

    file: LogFile
    mapping: ColumnMapping
    form: TableFormat = field(default_factory=TableFormat)
    rows: Callable[[Unreadable], Iterator[RawRows]] | None = None


@dataclass(frozen=True, slots=True)
class RawTables:
    """The tables that a data set is made of, as a preset finds them.

    ``items`` and ``users`` have a column ``id`` of texts, and any others. ``weights`` are the
    preset's: what its types are worth, and the scale if its values are ratings; the import's
    options come before them. ``notes``: what a person should know.
    """

    events: list[EventTable]
    items: "pa.Table | None" = None
    users: "pa.Table | None" = None
    weights: WeightOptions = field(default_factory=WeightOptions)
    notes: list[str] = field(default_factory=list)
