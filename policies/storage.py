"""Whole files, local or on any file system that pyarrow knows: they appear at once, and stay."""

import contextlib
import os
import posixpath
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError

TEMPORARY = "_tmp"
"""Readers of partitioned data (pyarrow, Spark, DuckDB's glob) pass over names that start with _."""
TEMPORARY_KEPT_S = 3600
PART = 1 << 20
"""Bytes that a local disk holds before it gets more: a sync waits for all that is ahead of it."""
OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""File systems on which a file is visible only once it is complete, and a move copies it."""

LISTED_S = (0.0, 0.1, 0.2)
LISTED_LATE_S = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits before a listing that lacks a file is made again: on a disk, and in an object store."""


class Storage:
    """The files under ``<root>/<folder>``.

    ``root`` is a local path, a URI such as ``s3://bucket/prefix``, or a file system. Methods raise
    OSError when the file system cannot be reached.
    """

    def __init__(self, root: "str | Path | fs.FileSystem", folder: str) -> None:
        self._fs, base = (root, "") if isinstance(root, fs.FileSystem) else filesystem_of(str(root))
        self._base = posixpath.join(base, folder)

    @property
    def lists_late(self) -> bool:
        """Whether a listing may lack what was stored before, as those of object stores may."""
        return self._fs.type_name in OBJECT_STORES

    def waits(self) -> Iterator[float]:
        """Return the seconds to wait before each look at what a listing lacks."""
        return iter(LISTED_LATE_S if self.lists_late else LISTED_S)

    def full(self, path: str) -> str:
        """Return the path within the file system: no part of a URI that could be secret."""
        return posixpath.join(self._base, path)

    def list(self, folder: str = "") -> "list[fs.FileInfo]":
        """Return what is in a folder, by name; nothing if there is no such folder."""
        infos = self._fs.get_file_info(
            fs.FileSelector(self.full(folder).rstrip("/"), allow_not_found=True)
        )
        return sorted(infos, key=lambda info: str(info.base_name))

    def info(self, path: str) -> "fs.FileInfo":
        """Return what is known of a name: its type, size and time, also where there is no file."""
        return self._fs.get_file_info(self.full(path))

    def exists(self, path: str) -> bool:
        """Return whether there is a file of this name."""
        return bool(self.info(path).type == fs.FileType.File)

    def open(self, path: str) -> Any:
        """Open a file to read at any offset; use it as a context.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._fs.open_input_file(self.full(path))

    def put(self, path: str, source: BinaryIO) -> None:
        """Store what ``source`` holds; a file of that name is replaced.

        Nobody ever sees a part of it.

        Args:
            path: where, below the folder.
            source: what is read to its end.
        """
        final = self.full(path)
        if self._fs.type_name in OBJECT_STORES:
            self._copy(source, final)
            return

        temporary = self.full(f"{TEMPORARY}/{uuid.uuid4().hex}")
        for file in (temporary, final):
            self._fs.create_dir(posixpath.dirname(file))
        self._copy(source, temporary)
        self._fs.move(temporary, final)
        self._sync_folders(final)

    def move(self, path: str, to: str) -> None:
        """Give a file another name; a file of that name is replaced, and there always is one.

        Args:
            path: below the folder.
            to: its new name, below the folder, in a folder that exists.
        """
        self._fs.move(self.full(path), self.full(to))
        self._sync_folders(self.full(to))

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is as well."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self.full(path))

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

    def _sync_folders(self, path: str) -> None:
        # A folder that is new is an entry of the one above it.
        folder = posixpath.dirname(path)
        while len(folder) >= len(self._base):
            self._sync(folder)
            folder = posixpath.dirname(folder)

    def _sync(self, path: str) -> None:
        """Sync a local file or folder to disk, so that the log may be trimmed behind it."""
        if isinstance(self._fs, fs.LocalFileSystem):
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


def filesystem_of(root: str) -> "tuple[fs.FileSystem, str]":
    """Return the file system of a path or URI, and the path in it.

    Raises:
        ArchiveError: pyarrow knows no such address.
    """
    scheme, separator, _ = root.partition("://")
    if not separator:
        return fs.LocalFileSystem(), str(Path(root).resolve())

    try:
        system, base = fs.FileSystem.from_uri(root)
    # pyarrow's message may repeat the credentials of the URI.
    except (pa.ArrowException, ValueError) as error:
        raise ArchiveError(
            f"pyarrow cannot open a {scheme}:// address like this ({type(error).__name__}): give a"
            " local path, or file://, s3://, gs:// or abfs:// as pyarrow.fs.FileSystem.from_uri"
            " takes it",
            "archive",
        ) from None
    return system, str(base)
