"""A log's files: here, or wherever pyarrow reaches by a URI (file://, s3://, gs://, abfs://, hdfs://)."""

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

WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file by its URI, opened where it is read.

    It is to a log what a ``Path`` is, which has the same names.
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.uri)

    @property
    def suffix(self) -> str:
        """Of the name, with its dot."""
        return posixpath.splitext(self.name)[1]


LogFile = Path | RemoteFile


def files_of(log: str) -> list[LogFile]:
    """A file, or the files of a glob in the order of their names, by path or URI.

    Of a URI, the last part may be wild.

    Raises:
        ReplayError: no such file.
    """
    if "://" in log:
        return [RemoteFile(uri) for uri in _remote(log)]
    names = sorted(glob(log)) if not Path(log).exists() else [log]  # noqa: PTH207 - an absolute pattern, too
    if not names:
        raise ReplayError(f"{log} cannot be read: no such file, and no file of such a name", "log")
    # a piece may be read where another folder is the current one
    return [Path(name).absolute() for name in names]


def local_path(folder: str) -> str:
    """The path of a folder that has to be here, which a file:// URI may name.

    Raises:
        ReplayError: it is elsewhere.
    """
    if "://" not in folder:
        return folder
    if not folder.startswith("file://"):
        raise ReplayError(f"{folder}: a folder of this format has to be on this machine", "log")
    return _system(folder)[1]


def size_of(file: LogFile) -> int:
    """In bytes, as it is stored.

    Raises:
        ReplayError: it cannot be read.
    """
    try:
        if isinstance(file, Path):
            return file.stat().st_size
        with open_bytes(file) as opened:
            return opened.seek(0, io.SEEK_END)
    except OSError as error:
        raise ReplayError(f"{file} cannot be read: {error.strerror or error}", "log") from error


def open_bytes(file: LogFile) -> BinaryIO:
    """To read at any offset.

    Raises:
        ReplayError: its address.
        OSError: there is none, or it cannot be reached.
    """
    if isinstance(file, Path):
        return file.open("rb")
    system, path = _system(file.uri)
    return cast("BinaryIO", io.BufferedReader(system.open_input_file(path)))


@contextmanager
def open_decompressed(file: LogFile) -> Iterator[BinaryIO]:
    """The same as a context, and decompressed if its name ends in ``.gz`` or ``.zst``."""
    with open_bytes(file) as raw:
        if file.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast("BinaryIO", unpacked)
        elif file.suffix == ".zst":
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                yield cast("BinaryIO", io.BufferedReader(stream))
        else:
            yield raw


def _remote(log: str) -> Sequence[str]:
    folder, _, name = log.rpartition("/")
    if not WILD.intersection(log):
        return [log]
    if WILD.intersection(folder):
        raise ReplayError(
            f"{log}: of a URI only the last part may have {' '.join(sorted(WILD))}", "log"
        )
    system, path = _system(folder)
    try:
        found = system.get_file_info(fs.FileSelector(path))
    except OSError as error:
        raise ReplayError(f"{folder} cannot be read: {error}", "log") from error
    names = sorted(str(info.base_name) for info in found if info.type == fs.FileType.File)
    kept = [f"{folder}/{each}" for each in names if fnmatchcase(each, name)]
    if not kept:
        raise ReplayError(f"{log} cannot be read: no file of such a name", "log")
    return kept


def _system(uri: str) -> tuple[Any, str]:
    try:
        return filesystem_of(uri)
    except ArchiveError as error:
        raise ReplayError(error.message, "log") from None
