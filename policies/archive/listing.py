"""Which files of an archive are read, and in which order: what its folders and file names say.

    date=YYYY-MM-DD/hour=HH/<first id>_<last id>.parquet
    date=YYYY-MM-DD/hour=HH/_compacted/<first id>_<last id>.parquet

Where small files were compacted (policies/archive/compaction.py), a range lies within the range of
a larger file. Only the larger one is read, so no entry is read twice.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyarrow import fs

from bandits.errors import ArchiveError
from bandits.log.positions import START, is_after, log_order
from policies.archive.range_file import folder_of, hour_of
from policies.storage import Storage

COMPACTED = "_compacted"
"""Other readers of an hour's folder (pyarrow, Spark, DuckDB's glob) count no entry twice: they pass
over names that start with _."""
NAME = re.compile(r"(\d+-\d+)_(\d+-\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A range file as its folder lists it.

    ``path`` is below the policy's folder; ``size`` in bytes; ``written_ns``: when, since the epoch.
    """

    path: str
    first: str
    last: str
    size: int
    written_ns: int

    @property
    def is_compacted(self) -> bool:
        """Whether it still lies beside the files that it was made of."""
        return self.path != self.final_path

    @property
    def final_path(self) -> str:
        """Its place once it is the only one."""
        return self.path.replace(f"/{COMPACTED}/", "/")


class Listing:
    """The files of one log's archive, as far as folders show them.

    ``reaches`` is the furthest that any listing so far went: one that ends earlier is stale, or
    files were deleted.
    """

    def __init__(self, files: Storage) -> None:
        self._files = files
        self.reaches = START

    @property
    def end(self) -> str:
        """Id of the last archived entry, "0-0" if there is none; the newest file's name has it."""
        for date in reversed(self._folders("", "date=")):
            for hour in reversed(self._folders(date, "hour=")):
                files = self.of_hour(f"{date}/{hour}")
                if files:
                    return max((file.last for file in files), key=log_order)
        return START

    def after(self, position: str | None) -> Iterator[ListedFile]:
        """Yield the files to read past a position, in order; None: all of them.

        Folders are listed hour by hour, as the files are asked for.
        """
        start = "" if position is None else folder_of(hour_of(position))
        for hour in self.hours(start):
            for file, _ in covering(self.of_hour(hour)):
                if position is None or is_after(file.last, position):
                    yield file

    def backwards(self, position: str | None) -> Iterator[ListedFile]:
        """Yield the files that hold anything before a position, the newest first; None: all."""
        hours = list(self.hours())
        for hour in reversed(hours):
            if position is not None and hour > folder_of(hour_of(position)):
                continue
            for file, _ in reversed(list(covering(self.of_hour(hour)))):
                if position is None or is_after(position, file.first):
                    yield file

    def hours(self, start: str = "") -> Iterator[str]:
        """Yield the folders of the hours that have any, from ``start`` on."""
        for date in self._folders("", "date="):
            if date < start.partition("/")[0]:
                continue
            for hour in self._folders(date, "hour="):
                if f"{date}/{hour}" >= start:
                    yield f"{date}/{hour}"

    def of_hour(self, folder: str) -> list[ListedFile]:
        """Return all files of an hour, in order; of those that start alike the longest first."""
        files = []
        for path in (folder, f"{folder}/{COMPACTED}"):
            infos = self._files.list(path)
            for info in infos:
                match = NAME.fullmatch(info.base_name)
                if match:
                    found = f"{path}/{info.base_name}"
                    if info.type != fs.FileType.File:
                        raise ArchiveError(
                            f"{self._files.full(found)} is a folder, where a file of the archive"
                            " is to be: put the file back, or take the folder away if the file"
                            " beside it holds the same entries",
                            "archive",
                        )
                    files.append(
                        ListedFile(found, match[1], match[2], int(info.size), info.mtime_ns or 0)
                    )
            if all(info.base_name != COMPACTED for info in infos):
                break

        files.sort(key=_reading_order)
        if files:
            self.reaches = max(self.reaches, *(file.last for file in files), key=log_order)
        return files

    def is_gone(self, file: ListedFile) -> bool:
        """Return whether a file was removed or replaced since it was listed."""
        info = self._files.info(file.path)
        return info.type != fs.FileType.File or (int(info.size), info.mtime_ns or 0) != (
            file.size,
            file.written_ns,
        )

    def _folders(self, folder: str, prefix: str) -> list[str]:
        names = [
            str(info.base_name)
            for info in self._files.list(folder)
            if info.type == fs.FileType.Directory
        ]
        return [name for name in names if name.startswith(prefix)]


def _reading_order(file: ListedFile) -> tuple[tuple[int, int], int, int, bool]:
    # A file of an older layout may have been written anew: of two alike, that one comes first.
    ms, sequence = log_order(file.last)
    return log_order(file.first), -ms, -sequence, not file.is_compacted


def covering(files: Iterable[ListedFile]) -> Iterator[tuple[ListedFile, list[ListedFile]]]:
    """Yield each file that is read, with the files whose ranges lie within its own.

    Args:
        files: those of an hour, as ``of_hour`` orders them.
    """
    read: ListedFile | None = None
    covered: list[ListedFile] = []
    for file in files:
        if read is None:
            read = file
        elif not is_after(file.last, read.last):
            covered.append(file)
        elif file.is_compacted and not is_after(file.first, read.last):
            # Compacted from another part of the hour: what it was made of is still there.
            continue
        else:
            yield read, covered
            read, covered = file, []
    if read is not None:
        yield read, covered
