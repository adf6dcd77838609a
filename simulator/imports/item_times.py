"""From when and until when items may be offered: read, or an error that names the row."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import DataSetError
from policies.data.items import FROM, UNTIL
from simulator.imports.columns import GivenColumn
from simulator.imports.item_columns import NUMBER
from simulator.imports.times import UNITS, read_times, recognise_times, time_reading

BLANK = ("", "nan", "null", "none", "nat", "na", "n/a", "\\n")
NO_DATE = re.compile(r"0000-00-00([T ]00:00:00)?")
"""What databases write where there is no time."""
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, which a calendar has."""
EPOCH_MS = 315_532_800_000
"""1980, before which numbers are times of another unit."""
_ENDS = {FROM: "a beginning", UNTIL: "an end"}


def times_read(
    table: "pa.Table", column: str, role: str, file: str, unit: GivenColumn, option: str
) -> "pa.Table":
    """Return a table with a column of times as such; without it where it says nothing.

    Args:
        table: a file's rows.
        column: the one of times.
        role: what it is called then.
        file: its name, for errors.
        unit: how its times are written, if that was given.
        option: the option that gives it, for errors.

    Raises:
        DataSetError: a time cannot be read: what it limits would be offered for ever.
    """
    values = table[column].combine_chunks()
    try:
        texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    except pa.ArrowException:
        raise DataSetError(
            f"{file}: column {column!r} is {values.type}, and no times: write them as ISO 8601",
            f"columns.{role}",
        ) from None
    blank = pc.or_(
        pc.is_in(pc.utf8_lower(texts), value_set=pa.array(BLANK)),
        pc.match_substring_regex(texts, f"^{NO_DATE.pattern}$"),
    )
    texts = pc.if_else(blank, pa.scalar(None, pa.string()), texts)
    said = np.asarray(pc.is_valid(texts))

    # Most items may be offered at all times, and maybe all of them.
    if not said.any():
        return table.drop_columns([column])
    if unit is not None:
        reading = time_reading(str(unit))
    else:
        first = int(np.argmax(said))
        try:
            reading = recognise_times(texts.slice(first, 1000), column, file, first_row=first + 1)
        except DataSetError as error:
            # What it says to write is of events.
            own = error.message.replace("{time: null}", f"{{{role}: null}}")
            raise DataSetError(own.replace("--columns", option), error.target) from None

    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = texts
    times = read_times(values, reading.unit)
    ms = np.asarray(pc.fill_null(times.cast(pa.int64()), LAST_MS + 1))
    odd = said & ((ms < FIRST_MS) | (ms > LAST_MS))
    if unit is None and reading.unit in UNITS and _are_numbers(texts):
        odd |= said & (ms < EPOCH_MS) & ((ms != 0) | (role == UNTIL))
    if odd.any():
        at = int(np.argmax(odd))
        more = f", nor is that of {odd.sum() - 1:,} more" if odd.sum() > 1 else ""
        raise DataSetError(
            f"{file}: row {at + 1:,} has {texts[at].as_py()[:60]!r} in column {column!r}, which is"
            f" no time as the others are ({reading.sentence}){more}: write it as they are, or leave"
            f" the cell empty where there is not {_ENDS[role]}; {option} '{{{role}: null}}' reads"
            " none",
            f"columns.{role}",
        )
    return table.set_column(table.column_names.index(column), role, times)


def _are_numbers(texts: "pa.Array") -> bool:
    return bool(pc.all(pc.match_substring_regex(texts.drop_null(), NUMBER)).as_py())
