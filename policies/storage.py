"""Whole files on a local path or any file system pyarrow knows: they appear at once, and are never changed."""

import os
import posixpath
import time
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError

TEMPORARY = "_tmp"
"""Readers of partitioned data (pyarrow, DuckDB by its glob, Spark) pass over names that start with an underscore."""
TEMPORARY_KEPT_S = 3600
PART = 1 << 20
"""Bytes that a local disk is to hold before it gets more: whoever has it sync anything waits for all that is ahead."""
SINGLE_PUT = frozenset({"s3", "gcs", "abfs"})
"""Where a file is visible only once it is complete, and moving one would copy it."""


class Storage:
    """The files under ``<root>/<folder>``.

    ``root``: a local path, a URI such as ``s3://bucket/prefix``, a file system.

    An unreachable file system raises OSError.
    """

    def __init__(self, root: "str | Path | fs.FileSystem", folder: str) -> None:
        self._fs, base = (root, "") if isinstance(root, fs.FileSystem) else filesystem_of(str(root))
        self._base = posixpath.join(base, folder)

    def full(self, path: str) -> str:
        """The path within the file system; no part of a URI that could be secret."""
        return posixpath.join(self._base, path)

    def list(self, folder: str = "") -> "list[fs.FileInfo]":
        """What is in a folder, in the order of the names; nothing if there is no such folder."""
        found = self._fs.get_file_info(
            fs.FileSelector(self.full(folder).rstrip("/"), allow_not_found=True)
        )
        return sorted(found, key=lambda info: str(info.base_name))

    def exists(self, path: str) -> bool:
        """Whether there is a file of this name."""
        return bool(self._fs.get_file_info(self.full(path)).type == fs.FileType.File)

    def open(self, path: str) -> Any:
        """A file to read at any offset; use it as a context.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._fs.open_input_file(self.full(path))

    def put(self, path: str, source: BinaryIO) -> None:
        """Store what ``source`` holds.

        Nobody ever sees a part of it; a file of that name is replaced.
        """
        final = self.full(path)
        if self._fs.type_name in SINGLE_PUT:
            self._copy(source, final)
            return
        temporary = self.full(f"{TEMPORARY}/{uuid.uuid4().hex}")
        for each in (temporary, final):
            self._fs.create_dir(posixpath.dirname(each))
        self._copy(source, temporary)
        self._fs.move(temporary, final)
        folder = posixpath.dirname(final)
        while len(folder) >= len(self._base):  # folders that are new are entries of theirs
            self._sync(folder)
            folder = posixpath.dirname(folder)

    def clean(self) -> None:
        """Remove what writers that died an hour ago or earlier left behind."""
        for info in self.list(TEMPORARY):
            if info.mtime is not None and time.time() - info.mtime.timestamp() > TEMPORARY_KEPT_S:
                self._fs.delete_file(info.path)

    def _copy(self, source: BinaryIO, path: str) -> None:
        with self._fs.open_output_stream(path) as sink:
            while part := source.read(PART):
                sink.write(part)
                if isinstance(self._fs, fs.LocalFileSystem):
                    sink.flush()
                    self._sync(path)
        self._sync(path)

    def _sync(self, path: str) -> None:
        """Have the disk hold a local file or folder before the log is trimmed on its account."""
        if isinstance(self._fs, fs.LocalFileSystem):
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


def filesystem_of(root: str) -> "tuple[fs.FileSystem, str]":
    """The file system of a path or URI, and the path in it.

    Raises:
        ArchiveError: pyarrow knows no such address.
    """
    scheme, separator, _ = root.partition("://")
    if not separator:
        return fs.LocalFileSystem(), str(Path(root).resolve())
    try:
        system, base = fs.FileSystem.from_uri(root)
    # its message may repeat the credentials of the URI
    except (pa.ArrowException, ValueError) as error:
        raise ArchiveError(
            f"pyarrow cannot open a {scheme}:// address like this ({type(error).__name__}): give"
            " a local path, or file://,"
            " s3://, gs:// or abfs:// as pyarrow.fs.FileSystem.from_uri takes it",
            "archive",
        ) from None
    return system, str(base)
