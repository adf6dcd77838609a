"""An import from its first file to the data set: ``import_data``."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import DataSetError
from policies.data.data_set import DataSet
from policies.data.items import column_kind
from policies.data.manifest import FORMAT, ITEMS, USERS, Manifest, WeightOptions
from policies.data.writer import (
    kinds_of,
    new_data_set,
    with_items_of,
    write_manifest,
    write_table,
)
from simulator.imports.cleaning import (
    BAD_TIME,
    BAD_VALUE,
    EARLY,
    FUTURE,
    NOT_FINITE,
    OFF_SCALE,
    UNLISTED,
    Cleaning,
)
from simulator.imports.columns import GivenColumn, GivenColumns, listed
from simulator.imports.events import DAY_MS, EventColumns
from simulator.imports.files.chunks import failures_of, name_of, table_files
from simulator.imports.item_columns import ReadItems
from simulator.imports.item_tables import OPTIONS, read_items
from simulator.imports.raw import RawTables, TableFormat
from simulator.imports.reading import (
    EventReading,
    event_reading,
    recognised_readings,
    with_blanks,
)
from simulator.imports.spill import SpilledEvents
from simulator.imports.writing import EventWriting
from simulator.logs.files import LogFile, size_of

PART_BYTES = 12 << 20
"""Bytes of files for which there is a part of the events: some million rows of them."""
COMPRESSED = 6
"""How many times larger a compressed file may be than it is stored."""
MOST_PART_BITS = 8
MANY_ODD = 0.02
"""Share of rows with times that cannot be from which the report asks for their unit."""
FEW_LISTED = 0.5
"""Share of the items in events that a table of items lists, below which ids may differ."""
PLAIN = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")

ImportProgress = Callable[[str, int], None]
"""Told (``reading`` or ``writing``, rows since it was last told)."""


def import_data(
    folder: Path | str,
    events: Sequence[str] | str,
    *,
    items: Sequence[str] | str = (),
    users: Sequence[str] | str = (),
    columns: Mapping[str, GivenColumn] | None = None,
    item_columns: GivenColumns | None = None,
    user_columns: GivenColumns | None = None,
    preset: str | None = None,
    form: TableFormat | None = None,
    cleaning: Cleaning | None = None,
    weights: WeightOptions | None = None,
    name: str | None = None,
    progress: ImportProgress | None = None,
) -> DataSet:
    """Make a data set of tables as they are: CSV, TSV, JSON Lines or Parquet, here or by URI.

    Args:
        folder: where it is written; a data set that is there is replaced when all went well.
        events: paths, globs or URIs of the files of what users did.
        items: the same of the items, and their features.
        users: the same of the users.
        columns: which column of events is the ``user``, ``item``, ``time``, ``type`` and ``value``,
            where the names do not tell; and the ``time_unit``.
        item_columns: which column of items is the ``item``, ``available_from`` and
            ``available_until``; the ``text``, or a list of them; and the ``time_unit``.
        user_columns: which column of users is the ``user``.
        preset: the name of a published layout; see ``simulator.imports.presets``.
        form: how the files are read, where they do not tell.
        cleaning: what is left out.
        weights: how strongly an event speaks for its item.
        name: what the data set is called; its folder's name by default.
        progress: told of rows read and written.

    Raises:
        DataSetError: a file cannot be read, a column is not found, or no event is left.
    """
    folder, form, cleaning = Path(folder), form or TableFormat(), cleaning or Cleaning()
    say = progress or (lambda *_: None)
    event_paths = [events] if isinstance(events, str) else list(events)
    if not event_paths:
        raise DataSetError("name a file of events: --events FILE", "events")

    if preset is None:
        readings = recognised_readings(event_paths, form, columns or {})
        raw = RawTables([reading.given for reading in readings])
    else:
        raw = _of_preset(preset, event_paths, columns)
        readings = [event_reading(table) for table in raw.events]
    weights = _checked(_either(weights, raw.weights))

    tables = [
        _listed([given] if isinstance(given, str) else given, form, what, raw_table, known)
        for what, given, raw_table, known in (
            ("items", items, raw.items, item_columns),
            ("users", users, raw.users, user_columns),
        )
    ]
    item_table, user_table = tables

    state = EventColumns(
        cleaning=cleaning,
        latest_ms=int(time.time() * 1000 + cleaning.future_days * DAY_MS),
        rating_scale=weights.rating_scale,
        listed_items=None if item_table is None else item_table.table["id"].combine_chunks(),
    )
    with new_data_set(folder) as scratch:
        with SpilledEvents(_part_bits(readings), scratch) as spilled:
            for reading in readings:
                _read(reading, state, spilled, say)
            written = EventWriting(state, spilled, scratch, lambda rows: say("writing", rows)).run()

        if not written.counts.events:
            raise DataSetError(_nothing_left(state), "events")
        _check_types(weights, written.counts.types)

        in_events = state.items.texts(written.items)
        listed = with_items_of(None if item_table is None else item_table.table, in_events)
        stored = {**written.stored, ITEMS: write_table(listed, scratch / ITEMS)}
        if user_table is not None:
            stored[USERS] = write_table(user_table.table, scratch / USERS)

        manifest = Manifest(
            format=FORMAT,
            name=name or _name_of(folder.absolute()),
            files={},
            counts=msgspec.structs.replace(
                written.counts,
                listed_items=listed.num_rows,
                listed_users=0 if user_table is None else user_table.table.num_rows,
            ),
            weights=weights,
            origin=[name_of(reading.given.file) for reading in readings],
            preset=preset,
            columns=_spoken(readings[0]),
            cleaning=msgspec.to_builtins(cleaning),
            rows_read=state.rows_read,
            dropped=state.left_out.report(),
            left_out={
                reason: count
                for read in tables
                if read is not None
                for reason, count in read.left_out.items()
            },
            notes=[
                *raw.notes,
                *_notes(readings, state, tables, weights),
                *_unlisted(item_table, in_events),
            ],
            item_columns=_kinds(listed, item_table),
            user_columns={} if user_table is None else kinds_of(user_table.table, "users"),
        )
        write_manifest(scratch, manifest, stored)
    return DataSet.open(folder)


def _kinds(listed_items: "pa.Table", given: ReadItems | None) -> dict[str, str]:
    """Return the kind of each column of items; those are text of which somebody said so."""
    texts = set[str]() if given is None else given.texts
    return {
        name: "text" if name in texts else kind
        for name, kind in kinds_of(listed_items, "items").items()
    }


def _of_preset(
    preset: str, paths: Sequence[str], columns: Mapping[str, GivenColumn] | None
) -> RawTables:
    from simulator.imports.presets import preset_tables  # noqa: PLC0415 - only for a preset

    if columns:
        raise DataSetError("a preset knows its columns: leave --columns out", "columns")
    return preset_tables(preset, paths)


def _read(
    reading: EventReading, state: EventColumns, spilled: SpilledEvents, say: ImportProgress
) -> None:
    mapping = reading.given.mapping
    unit = None if reading.times is None else reading.times.unit
    before = state.rows_read
    for rows in reading.rows(state.unreadable):
        spilled.add(*state.read(rows, mapping, unit, spilled.parts))
        say("reading", state.rows_read - before)
        before = state.rows_read


def _part_bits(readings: Sequence[EventReading]) -> int:
    """Return the logarithm of how many parts the events are in: by the sizes of the files."""
    size = 0
    for reading in readings:
        file: LogFile = reading.given.file
        is_plain = name_of(file).lower().endswith(PLAIN)
        with failures_of(file):
            size += size_of(file) * (1 if is_plain else COMPRESSED)
    return min(MOST_PART_BITS, (size // PART_BYTES).bit_length())


def _listed(
    patterns: Sequence[str],
    form: TableFormat,
    what: str,
    of_preset: "pa.Table | None",
    columns: GivenColumns | None,
) -> ReadItems | None:
    if not patterns:
        if columns:
            raise DataSetError(f"{OPTIONS[what]} goes with --{what}", what)
        return None if of_preset is None else ReadItems(_kept_columns(of_preset))
    files = [file for pattern in patterns for file in table_files(pattern, f"--{what}")]
    own = TableFormat(separator=form.separator, quote=form.quote, encoding=form.encoding)
    return read_items(files, own, what, columns)


def _kept_columns(table: "pa.Table") -> "pa.Table":
    return table.select(
        [name for name in table.column_names if name == "id" or column_kind(table[name], name)]
    )


def _either(given: WeightOptions | None, of_preset: WeightOptions) -> WeightOptions:
    if given is None:
        return of_preset
    return WeightOptions(
        given.types or of_preset.types,
        given.half_life_s if given.half_life_s is not None else of_preset.half_life_s,
        given.rating_scale or of_preset.rating_scale,
    )


def _checked(weights: WeightOptions) -> WeightOptions:
    for name, weight in weights.types.items():
        if not 0 <= weight < np.inf:
            raise DataSetError(f"the weight of {name!r} is at least 0, not {weight}", "weights")
    if weights.half_life_s is not None and not 0 < weights.half_life_s < np.inf:
        raise DataSetError(f"a half-life is positive, not {weights.half_life_s} s", "half_life")
    if weights.rating_scale is not None:
        lowest, highest = weights.rating_scale
        if not -np.inf < lowest < highest < np.inf:
            raise DataSetError(
                f"a rating scale goes from its lowest to its highest rating, as 1:5, not"
                f" {lowest:g}:{highest:g}",
                "rating_scale",
            )
    return weights


def _check_types(weights: WeightOptions, types: Mapping[str, int]) -> None:
    unknown = [name for name in weights.types if name not in types]
    if unknown:
        raise DataSetError(
            f"--weights names {unknown[0]!r}, but no event is of that type; there are"
            f" {', '.join(types)}",
            "weights",
        )
    if not any(weights.types.get(name, 1.0) for name in types):
        raise DataSetError(
            f"every type of event ({', '.join(types)}) has weight 0: nothing would be learned from",
            "weights",
        )


def _name_of(folder: Path) -> str:
    """Return the name of a data set in a folder; ``shop/data`` is the shop's."""
    return folder.parent.name if folder.name == "data" and folder.parent.name else folder.name


def _nothing_left(state: EventColumns) -> str:
    files = state.files[0] if state.files else "the files"
    if not state.rows_read:
        return f"{files} has no rows"
    said = state.left_out.in_words()
    most = state.left_out.most
    hint = next((f"; {hint}" for reasons, hint in _HINTS.items() if most in reasons), "")
    return f"nothing is left of the {state.rows_read:,} rows of events: {said}{hint}"


_HINTS = {
    (BAD_VALUE, NOT_FINITE): "--columns '{value: null}' reads no values",
    (BAD_TIME, EARLY, FUTURE): (
        "--columns '{time_unit: ms}' says how times are written, '{time: null}' reads none"
    ),
    (OFF_SCALE,): "--rating-scale says from where to where ratings go",
    (UNLISTED,): "are the ids of --items written like those of --events?",
}
"""What to write where one reason took the most rows, and nothing is left."""


def _spoken(reading: EventReading) -> dict[str, str]:
    """Return which column was taken for what, and how times were read."""
    spoken = dict(reading.given.mapping.columns)
    if reading.times is not None:
        spoken["time_unit"] = reading.times.sentence
    return spoken


def _unlisted(table: ReadItems | None, in_events: "pa.Array") -> list[str]:
    """Return what is to be said where events name items that the table of items lacks.

    Args:
        table: the items, None for none.
        in_events: the ids of the items in events.
    """
    if table is None:
        return []
    ids = table.table["id"]
    known = pc.is_in(in_events, value_set=ids)
    unknown = in_events.filter(pc.invert(known))
    if not len(unknown):
        return []
    said = (
        f"the table of items lacks {len(unknown):,} of the {len(in_events):,} items that events"
        f" name, such as {unknown[0].as_py()!r}: nothing is known of them"
    )
    unused = ids.filter(pc.invert(pc.is_in(ids, value_set=in_events)))
    if len(unknown) <= (1 - FEW_LISTED) * len(in_events) or not len(unused):
        return [said]
    return [f"{said}; the table says {unused[0].as_py()!r}: are they written alike?"]


def _notes(
    readings: Sequence[EventReading],
    state: EventColumns,
    tables: Sequence[ReadItems | None],
    weights: WeightOptions,
) -> list[str]:
    """Return what a person should know of an import."""
    notes = []
    first = _spoken(readings[0])
    notes += [
        f"{name_of(reading.given.file)}: {', '.join(f'{k} is {v}' for k, v in spoken.items())}"
        for reading in readings[1:]
        if (spoken := _spoken(reading)) != first
    ]

    notes += with_blanks(readings[0])

    if "value" in first and weights.rating_scale is None:
        notes.append(
            f"values ({first['value']}) are kept, but do not change what an event is worth; if they"
            " are ratings, say so: --rating-scale 1:5"
        )

    if (table := readings[0].table) is not None:
        taken = readings[0].given.mapping.columns.values()
        if unused := [name for name in table.names if name and name not in taken]:
            notes.append(
                f"columns of events that are not used: {listed(unused, 'and')}; what describes an"
                " item or a user is a column of --items or --users"
            )

    odd = [
        left
        for reason, left in state.left_out.report().items()
        if reason in {EARLY, FUTURE} and left.rows > MANY_ODD * state.rows_read
    ]
    notes += [
        f"{left.rows / state.rows_read:.0%} of the rows are left out for a time that cannot be,"
        f" such as row {left.row:,} of {left.file} ({left.example}): are theirs in another unit"
        " than the others'?"
        for left in odd
    ]

    if state.whole_days and "time" in first:
        notes.append("times are whole days, so nobody has too many events a minute")

    for read in tables:
        if read is not None:
            notes += read.notes
    return notes
