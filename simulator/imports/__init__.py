"""From a stranger's tables to a data set: read, recognised, cleaned, written."""

from simulator.imports.cleaning import Cleaning
from simulator.imports.importing import import_data
from simulator.imports.raw import ColumnMapping, EventTable, RawRows, RawTables, TableFormat

__all__ = [
    "Cleaning",
    "ColumnMapping",
    "EventTable",
    "RawRows",
    "RawTables",
    "TableFormat",
    "import_data",
]
