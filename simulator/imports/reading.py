"""How each file of events is read: which column is what, and the unit of its times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import DataSetError
from simulator.imports.columns import GivenColumn, listed, recognise_columns, yaml_name
from simulator.imports.files.chunks import name_of, table_files
from simulator.imports.files.parsing import OpenTable
from simulator.imports.files.tables import open_table, rows_of_table
from simulator.imports.files.whole_ids import WHOLE_ID, look_whole
from simulator.imports.raw import ColumnMapping, EventTable, RawRows, TableFormat, Unreadable
from simulator.imports.times import (
    UNITS,
    TimeReading,
    looks_like_times,
    recognise_times,
    time_reading,
)

CODED = pa.dictionary(pa.int32(), pa.string())
MOSTLY_LISTS = 0.9
"""Share of texts that are lists from which all are taken for such."""


@dataclass(slots=True)
class EventReading:
    """A file of events with everything that is known of how to read it."""

    given: EventTable
    times: TimeReading | None = None
    table: OpenTable | None = None
    types: dict[str, "pa.DataType"] = field(default_factory=dict)

    def rows(self, unreadable: Unreadable) -> Iterator[RawRows]:
        """Yield the file's rows, in order; tell of those that cannot be read."""
        if self.given.rows is not None:
            return self.given.rows(unreadable)
        assert self.table is not None  # noqa: S101 - settled
        columns = list(dict.fromkeys(self.given.mapping.columns.values()))
        return rows_of_table(self.table, columns, self.types, unreadable)


def recognised_readings(
    paths: Sequence[str], form: TableFormat, columns: Mapping[str, GivenColumn]
) -> list[EventReading]:
    """Return how files of events are read: by what is given, and by the names of their columns.

    Args:
        paths: paths, globs or URIs.
        form: what is known of the files.
        columns: those that are known; ``time_unit`` and ``event_type`` among them.

    Raises:
        DataSetError: a file cannot be read, or a column is not found or could be several.
    """
    given = dict(columns)
    unit, event_type = given.pop("time_unit", None), given.pop("event_type", None)
    readings = []
    for path in paths:
        for file in table_files(path, "--events"):
            table = open_table(file, form)
            try:
                found = recognise_columns(list(table.names), name_of(file), given=given)
            except DataSetError as error:
                raise _with_objects(_with_first_row(error, table), table) from None
            if "time" not in found and "time" not in given:
                _ask_for_times(table, found)
            mapping = ColumnMapping(
                **found,
                time_unit=None if unit is None else str(unit),
                event_type=None if event_type is None else str(event_type),
            )
            readings.append(event_reading(EventTable(file, mapping, table.form), table))
    return readings


def _with_first_row(error: DataSetError, table: OpenTable) -> DataSetError:
    """Return the error, with what is in the columns where their names say nothing."""
    if table.form.header is not False or table.form.names is None:
        return error
    cells = ", ".join(
        f"{name} {str(table.sample[name][0].as_py())[:40]!r}" for name in table.names[:12]
    )
    return DataSetError(f"{error.message}; the first row has {cells}", error.target)


def _with_objects(error: DataSetError, table: OpenTable) -> DataSetError:
    """Return the error, with a column of lists of objects, which may be the rows that are meant."""
    nested = next((name for name in table.names if _holds_objects(table.sample[name])), None)
    if nested is None:
        return error
    named = table.form.kind == "json" and nested.isidentifier()
    how = f": jq -c 'del(.{nested}) + .{nested}[]' FILE" if named else ""
    return DataSetError(
        f"{error.message}; column {nested!r} holds lists of objects: if these are the events, write"
        f" a row for each{how}",
        error.target,
    )


def _holds_objects(sample: "pa.ChunkedArray") -> bool:
    if pa.types.is_list(sample.type) or pa.types.is_large_list(sample.type):
        return bool(pa.types.is_struct(sample.type.value_type))
    texts = sample.to_pylist() if pa.types.is_string(sample.type) else []
    return any(isinstance(text, str) and text.startswith("[{") for text in texts)


def with_blanks(reading: EventReading) -> list[str]:
    """Return what is to be said of ids that have blanks around them, as far as a sample tells."""
    said = []
    table, mapping = reading.table, reading.given.mapping
    for what, column in (("user", mapping.user), ("item", mapping.item)):
        sample = None if table is None else table.sample[column].combine_chunks()
        if sample is None or not pa.types.is_string(sample.type):
            continue
        odd = pc.not_equal(pc.utf8_trim_whitespace(sample), sample)
        if count := odd.true_count:
            share = count / len(sample)
            said.append(
                f"{share:.0%} of the first {len(sample):,} ids in column {column!r} begin or end"
                f" with a blank, such as {sample.filter(odd)[0].as_py()[:40]!r}: they are other ids"
                f" than those without, and whoever names {what}s has to write them so"
            )
    return said


def _ask_for_times(table: OpenTable, found: Mapping[str, str]) -> None:
    """Refuse to leave times out because nobody calls them so."""
    likely = [
        name
        for name in table.names
        if name not in found.values()
        and looks_like_times(table.sample[name].combine_chunks(), name)
    ]
    if likely:
        raise DataSetError(
            f"{name_of(table.file)}: no column has a usual name for the time, and"
            f" {listed(likely, 'and')} {'hold' if len(likely) > 1 else 'holds'} times; say which:"
            f" --columns '{{time: {yaml_name(likely[0])}}}', or '{{time: null}}' if none is when it"
            " happened",
            "columns.time",
        )


def event_reading(given: EventTable, table: OpenTable | None = None) -> EventReading:
    """Return how a file is read: the unit of its times, and which columns are numbers.

    Args:
        given: the file, and which column is what.
        table: it, if it is open already.

    Raises:
        DataSetError: it cannot be read, has no such column, or its times cannot be read.
    """
    mapping = given.mapping
    reading = EventReading(given)
    if given.rows is not None:
        if mapping.time is not None:
            unit = mapping.time_unit
            reading.times = time_reading(unit) if unit else _recognised_times(given)
        return reading

    reading.table = table = table or open_table(given.file, given.form)
    name = name_of(given.file)
    for column in mapping.columns.values():
        if column not in table.names:
            raise DataSetError(
                f"{name} has no column {column!r}; the columns are {', '.join(table.names)}",
                "columns",
            )
    for column in (mapping.user, mapping.item):
        _refuse_lists(table.sample[column].combine_chunks(), column, name)
    if mapping.time is not None:
        sample = table.sample[mapping.time].combine_chunks()
        reading.times = (
            time_reading(mapping.time_unit)
            if mapping.time_unit is not None
            else recognise_times(sample, mapping.time, name)
        )
        if reading.times.unit in UNITS and _reads_as(sample, pa.int64()):
            reading.types[mapping.time] = pa.int64()
    reading.types |= _types_of(table, mapping)
    return reading


def _refuse_lists(sample: "pa.Array", column: str, file: str) -> None:
    """Raise DataSetError if the texts of an id's column are lists: baskets, of several items each.

    Args:
        sample: of the column.
        column: its name.
        file: the file.
    """
    if not pa.types.is_string(sample.type):
        return
    texts = [text for text in sample.to_pylist() if text]
    lists = [text for text in texts if text.startswith("[") and text.endswith("]")]
    several = next((text for text in lists if "," in text), None)
    if several is not None and len(lists) >= MOSTLY_LISTS * len(texts):
        raise DataSetError(
            f"{file}: column {column!r} holds lists ({several[:60]!r}), and an event is of one user"
            " and one item: write a row for each of a list's entries, or name another column",
            "columns",
        )


def _types_of(table: OpenTable, mapping: ColumnMapping) -> dict[str, "pa.DataType"]:
    """Return the types of columns that are no plain texts, as far as a sample tells."""
    types = {}
    if mapping.value is not None:
        sample = table.sample[mapping.value].combine_chunks()
        if _reads_as(sample, pa.float64()):
            types[mapping.value] = pa.float64()
    if table.form.kind == "delimited":
        for column in (mapping.user, mapping.item):
            if look_whole(table.sample[column].combine_chunks()):
                types[column] = WHOLE_ID
        # There are few, each many times.
        if mapping.type is not None and mapping.type not in (mapping.user, mapping.item):
            types.setdefault(mapping.type, CODED)
    return types


def _recognised_times(given: EventTable) -> TimeReading | None:
    """Return how the times of a file are read that a preset reads itself."""
    column = given.mapping.time
    first = next(given.rows(lambda *_: None), None) if given.rows is not None else None
    if first is None or column is None:
        return None
    return recognise_times(
        first.batch.column(column).slice(0, 1000), column, first.file, first_row=first.first_row
    )


def _reads_as(sample: "pa.Array", kind: "pa.DataType") -> bool:
    if not pa.types.is_string(sample.type):
        return True
    try:
        sample.filter(pa.compute.not_equal(sample, "")).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
