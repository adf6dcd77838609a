"""A preset: a table of facts about a published layout, and where its files are found."""

import difflib
import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from bandits.errors import ArchiveError, DataSetError, plain
from policies.data.manifest import WeightOptions
from policies.storage import filesystem_of, shown
from simulator.imports.columns import listed, recognise_columns
from simulator.imports.files.chunks import table_files
from simulator.imports.presets.reading import check_values, read_texts, whole_table
from simulator.imports.raw import (
    ColumnMapping,
    EventTable,
    RawRows,
    RawTables,
    TableFormat,
    Unreadable,
)
from simulator.logs.files import WILDCARDS, LogFile, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa

Reshape = Callable[[Iterator[RawRows]], Iterator[RawRows]]
"""Makes the rows of a table of the rows of its files."""

COMPRESSED = (".gz", ".zst")
CHECKED_FILES = 8
"""Files of one table whose first rows are looked at before any is read."""


def _ignore(file: str, row: int, said: str) -> None:
    """Pass over a row of items or users that cannot be read."""


@dataclass(frozen=True, slots=True)
class PresetTable:
    """One table of a layout.

    Attributes:
        patterns: The names that its files may have; a compressed file has an ending more.
        form: How its files are read.
        mapping: Which column is what, of a table of events; None: recognised by usual names. Rows
            of items and of users have a column ``id``, and features as they are to be.
        reshape: What makes its rows of the files' rows; None: they are as they are.
        besides: Names that are not its files', although a pattern fits.
    """

    patterns: tuple[str, ...]
    form: TableFormat
    mapping: ColumnMapping | None = None
    reshape: Reshape | None = None
    besides: tuple[str, ...] = ()

    def files(self, there: Iterable[LogFile]) -> list[LogFile]:
        """Return those of the files that are this table's."""
        return [
            file
            for file in there
            if _has_name(file, self.patterns) and not _has_name(file, self.besides)
        ]

    def rows(self, files: Sequence[LogFile], unreadable: Unreadable = _ignore) -> Iterator[RawRows]:
        """Yield the table's rows: those of its files, in turn.

        Args:
            files: Those to read.
            unreadable: Told of each row that cannot be read.
        """
        rows = (part for file in files for part in read_texts(file, self.form, unreadable))
        return rows if self.reshape is None else self.reshape(rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of one way in which a data set is published."""

    events: tuple[PresetTable, ...]
    items: PresetTable | None = None
    users: PresetTable | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A published data set: what it is, and its layouts; the first one that is there is taken.

    Attributes:
        name: As ``--preset`` takes it.
        title: Its own name.
        address: The page or reader that documents the layout.
        layouts: The tables.
        aliases: Other names, of data sets in the same layout.
        weights: What an event of each type is worth, unless told otherwise.
        rating_scale: The lowest and highest value, if values are ratings.
        remarks: What a user should know of how it is read.
        one_of: Whether event files of different names are different data sets.
    """

    name: str
    title: str
    address: str
    layouts: tuple[Layout, ...]
    aliases: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    rating_scale: tuple[float, float] | None = None
    remarks: str = ""
    one_of: bool = False

    def find(self, paths: Sequence[str]) -> RawTables:
        """Return the tables that are in the folders, or are the files, ``paths``.

        The items and users are read; of the events, the first rows of each file are looked at.

        Raises:
            DataSetError: No file of events is there, or a file is not in the layout.
        """
        there = [file for path in paths for file in _files_in(path)]
        for layout in self.layouts:
            found = [(table, files) for table in layout.events if (files := table.files(there))]
            if found:
                self._check_one([file for _, files in found for file in files], paths)
                return RawTables(
                    events=[
                        event for table, files in found for event in self._events(table, files)
                    ],
                    items=self._whole(layout.items, there),
                    users=self._whole(layout.users, there),
                    weights=WeightOptions(types=dict(self.weights), rating_scale=self.rating_scale),
                    notes=[self.remarks] if self.remarks else [],
                )

        wanted = [name for layout in self.layouts for t in layout.events for name in t.patterns]
        raise DataSetError(
            f"preset {self.name}: there is no {listed(wanted, 'or')} in"
            f" {listed(map(shown, paths), 'or')}; {self.address} describes the files",
            "preset",
        )

    def _check_one(self, files: Sequence[LogFile], paths: Sequence[str]) -> None:
        names = sorted({_plain_file(file) for file in files})
        if self.one_of and len(names) > 1:
            raise DataSetError(
                f"{listed(names, 'and')} in {listed(map(shown, paths), 'and')} give the same ids to"
                " different items: name the folder of one",
                "preset",
            )

    def _events(self, table: PresetTable, files: Sequence[LogFile]) -> list[EventTable]:
        """Return a table's files as an import takes them, once their first rows are looked at."""
        events = []
        for number, file in enumerate(files):
            mapping = table.mapping
            if mapping is None or number < CHECKED_FILES:
                first = next(table.rows([file]), None)
                if first is None:
                    raise DataSetError(f"{file} is empty", "preset")
                mapping = mapping or _recognised(first)
                self._check_first(first, mapping)

            # A plain table is read by the import itself.
            rows = None if table.reshape is None else partial(table.rows, [file])
            events.append(EventTable(file, mapping, table.form, rows))
        return events

    def _check_first(self, part: RawRows, mapping: ColumnMapping) -> None:
        """Raise DataSetError if the first rows of a file are not in the layout."""
        start = f"{part.file} is not in the layout of preset {self.name}:"
        names = part.batch.schema.names
        for column in mapping.columns.values():
            if column not in names:
                raise DataSetError(
                    f"{start} there is no column {column!r}; the columns are"
                    f" {listed(names, 'and')}",
                    "preset",
                )
        check_values(part, mapping, start)

    def _whole(self, table: PresetTable | None, there: Sequence[LogFile]) -> "pa.Table | None":
        """Return the table of items or users, None if there is no file of it."""
        files = [] if table is None else table.files(there)
        if table is None or not files:
            return None
        try:
            return whole_table(table.rows(files))
        except KeyError as error:
            # Arrow says which field it is; in a dict of columns it is the key itself.
            name = next(iter(re.findall(r'"(.+?)"', str(error.args[0]))), error.args[0])
            raise DataSetError(
                f"{files[0]} is not in the layout of preset {self.name}: there is no column"
                f" {name!r}",
                "preset",
            ) from None


def find_preset(name: str, presets: Mapping[str, Preset]) -> Preset:
    """Return a preset.

    Args:
        name: Its name, or another one that it goes by.
        presets: All there are, by name.

    Raises:
        DataSetError: There is none of this name; the error lists those there are.
    """
    names = {other: preset for preset in presets.values() for other in preset.aliases}
    names.update(presets)
    if name.lower() in names:
        return names[name.lower()]
    near = difflib.get_close_matches(name.lower(), list(names), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataSetError(
        f"there is no preset {name!r}; there are {listed(presets, 'and')}{hint}", "preset"
    )


def _recognised(part: RawRows) -> ColumnMapping:
    found = recognise_columns(part.batch.schema.names, part.file)
    return ColumnMapping(**found)


def _files_in(path: str) -> list[LogFile]:
    """Return a file, those of a glob, or those in a folder and the folders in it, by name."""
    try:
        if "://" in path and not WILDCARDS.intersection(path):
            return _remote_files_in(path)
        local = Path(path)
        if "://" in path or not local.exists():
            return table_files(path, "--events")
        inside = [local] if local.is_file() else sorted(local.rglob("*"))
        return [file.absolute() for file in inside if file.is_file()]
    except (OSError, ArchiveError) as error:
        raise DataSetError(f"{shown(path)} cannot be read: {plain(error)}", "preset") from None


def _remote_files_in(uri: str) -> list[LogFile]:
    system, base = filesystem_of(uri)
    if system.get_file_info(base).type == fs.FileType.File:
        return [RemoteFile(uri)]
    found = system.get_file_info(fs.FileSelector(base, recursive=True))
    names = sorted(file.path for file in found if file.type == fs.FileType.File)
    return [RemoteFile(uri.rstrip("/") + name[len(base.rstrip("/")) :]) for name in names]


def _has_name(file: LogFile, patterns: tuple[str, ...]) -> bool:
    name = _plain_file(file)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _plain_file(file: LogFile) -> str:
    """Return a file's name without the ending of its compression."""
    name = posixpath.basename(file.name)
    return next((name[: -len(end)] for end in COMPRESSED if name.endswith(end)), name)
