"""A log's files: here, or by a URI wherever pyarrow reaches.

That is file://, s3://, gs://, abfs:// and hdfs://.
"""

import gzip
import io
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError, ReplayError
from policies.storage import filesystem_of

WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file by its URI, opened where it is read.

    It has the names of ``Path``, and is to a remote log what that is to a local one.
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last segment of the URI."""
        return posixpath.basename(self.uri)

    @property
    def suffix(self) -> str:
        """The end of the name, with its dot."""
        return posixpath.splitext(self.name)[1]


LogFile = Path | RemoteFile


def files_of(log: str) -> list[LogFile]:
    """Return a log's files by path or URI: one, or those of a glob in the order of their names.

    Only the last segment of a URI may contain a wildcard.

    Raises:
        ReplayError: There is no such file.
    """
    if "://" in log:
        return [RemoteFile(uri) for uri in _remote_files(log)]

    # A file whose own name has wildcards in it is that file.
    exists = Path(log).exists()
    names = [log] if exists else sorted(glob(log))  # noqa: PTH207 - an absolute pattern, too
    if not names:
        raise ReplayError(f"{log} cannot be read: no such file, and no file of such a name", "log")

    # A piece may be read where another folder is the current one.
    return [Path(name).absolute() for name in names]


def local_path(folder: str) -> str:
    """Return the path of a folder that has to be on this machine; it may be a file:// URI.

    Raises:
        ReplayError: It is elsewhere.
    """
    if "://" not in folder:
        return folder
    if not folder.startswith("file://"):
        raise ReplayError(f"{folder}: a folder of this format has to be on this machine", "log")
    return _system(folder)[1]


def size_of(file: LogFile) -> int:
    """Return a file's size in bytes, as it is stored.

    Raises:
        ReplayError: It cannot be read.
    """
    try:
        if isinstance(file, Path):
            return file.stat().st_size
        with open_bytes(file) as opened:
            return opened.seek(0, io.SEEK_END)
    except OSError as error:
        raise ReplayError(f"{file} cannot be read: {error.strerror or error}", "log") from error


def open_bytes(file: LogFile) -> BinaryIO:
    """Open a file to read at any offset.

    Raises:
        ReplayError: Its address is wrong.
        OSError: There is no such file, or it cannot be reached.
    """
    if isinstance(file, Path):
        return file.open("rb")
    system, path = _system(file.uri)
    return cast("BinaryIO", io.BufferedReader(system.open_input_file(path)))


@contextmanager
def open_decompressed(file: LogFile) -> Iterator[BinaryIO]:
    """Open a file to read, decompressed if its name ends in ``.gz`` or ``.zst``."""
    with open_bytes(file) as raw:
        if file.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast("BinaryIO", unpacked)
        elif file.suffix == ".zst":
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                yield cast("BinaryIO", io.BufferedReader(stream))
        else:
            yield raw


def _remote_files(log: str) -> Sequence[str]:
    """Return the URIs that a URI with wildcards in its last segment stands for."""
    folder, _, pattern = log.rpartition("/")
    if not WILDCARDS.intersection(log):
        return [log]
    if WILDCARDS.intersection(folder):
        raise ReplayError(
            f"{log}: only the last path segment of a URI may contain a wildcard,"
            f" {' '.join(sorted(WILDCARDS))}",
            "log",
        )

    system, path = _system(folder)
    try:
        entries = system.get_file_info(fs.FileSelector(path))
    except OSError as error:
        raise ReplayError(f"{folder} cannot be read: {error}", "log") from error

    names = sorted(str(entry.base_name) for entry in entries if entry.type == fs.FileType.File)
    kept = [f"{folder}/{name}" for name in names if fnmatchcase(name, pattern)]
    if not kept:
        raise ReplayError(f"{log} cannot be read: no file of such a name", "log")
    return kept


def _system(uri: str) -> tuple[Any, str]:
    try:
        return filesystem_of(uri)
    except ArchiveError as error:
        raise ReplayError(error.message, "log") from None
