"""How the files of published layouts are read, where several presets share it."""

import pyarrow as pa

from simulator.imports.raw import ColumnMapping, TableFormat
from simulator.imports.times import UTC_MS

TEXT, NUMBER, LIST, TIME = pa.string(), pa.float64(), pa.list_(pa.string()), UTC_MS
"""The types of columns."""

TABS = TableFormat(kind="delimited", separator="\t", header=True, quote=None)
COMMAS = TableFormat(kind="delimited", separator=",", header=True)
LINES = TableFormat(kind="delimited", separator="\x1f", header=False, names=("line",), quote=None)
"""Whole lines, for layouts that are no delimited text: one column, ``line``."""
RATED_ROWS = {"user": TEXT, "item": TEXT, "rating": NUMBER, "time": TEXT}
RATED = ColumnMapping(user="user", item="item", value="rating", time="time", time_unit="s")


def bare_table(separator: str, *names: str, encoding: str = "utf-8") -> TableFormat:
    """Return the format of a table without a header and without quotes."""
    return TableFormat(
        kind="delimited",
        separator=separator,
        header=False,
        names=names,
        quote=None,
        encoding=encoding,
    )


LATIN_LINES = bare_table("\x1f", "line", encoding="latin-1")
