"""Whole files, local or on any file system that pyarrow knows: they appear at once, and stay.

pyarrow itself asks an object store again while it throttles or drops connections: every 0.2 s for
some 6 s, and for 100 s where it does not answer at all. A store that has answered before is given
more time than that; then an OSError names the file. It has a number, as those of a disk have, so
that nobody takes it for a damaged file.
"""

import contextlib
import errno
import os
import posixpath
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError

Answer = TypeVar("Answer")

TEMPORARY = "_tmp"
"""Readers of partitioned data (pyarrow, Spark, DuckDB's glob) pass over names that start with _."""
TEMPORARY_KEPT_S = 3600
PART = 1 << 20
"""Bytes that a local disk holds before it gets more: a sync waits for all that is ahead of it."""
OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""File systems on which a file is visible only once it is complete, and a move copies it."""

ASKED_AGAIN_S = (1.0, 5.0, 15.0)
"""Waits before an object store that has stopped answering is asked again."""
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
        self._has_answered = False

    @property
    def is_remote(self) -> bool:
        """Whether it is an object store: each read is a request, and listings may be late."""
        return _is_object_store(self._fs)

    @property
    def local(self) -> str | None:
        """The folder, where it is on this machine's disk."""
        return self._base if isinstance(self._fs, fs.LocalFileSystem) else None

    def waits(self) -> Iterator[float]:
        """Return the seconds to wait before each look at what a listing lacks."""
        return iter(LISTED_LATE_S if self.is_remote else LISTED_S)

    def full(self, path: str) -> str:
        """Return the path within the file system: no part of a URI that could be secret."""
        return posixpath.join(self._base, path)

    def list(self, folder: str = "") -> "list[fs.FileInfo]":
        """Return what is in a folder, by name; nothing if there is no such folder."""
        path = self.full(folder).rstrip("/")
        selector = fs.FileSelector(path, allow_not_found=True)
        infos = self._asked(path, lambda: self._fs.get_file_info(selector))
        return sorted(infos, key=lambda info: str(info.base_name))

    def info(self, path: str) -> "fs.FileInfo":
        """Return what is known of a name: its type, size and time, also where there is no file."""
        return self._asked(self.full(path), lambda: self._fs.get_file_info(self.full(path)))

    def exists(self, path: str) -> bool:
        """Return whether there is a file of this name."""
        return bool(self.info(path).type == fs.FileType.File)

    def open(self, path: str) -> Any:
        """Open a file to read at any offset; use it as a context.

        Raises:
            FileNotFoundError: there is none.
        """
        full = self.full(path)
        if not self.is_remote:
            return self._fs.open_input_file(full)
        file = self._asked(full, lambda: self._fs.open_input_file(full))
        return _RemoteFile(file, lambda read: self._asked(full, read, of_file=True))

    def put(self, path: str, source: BinaryIO) -> None:
        """Store what ``source`` holds; a file of that name is replaced.

        Nobody ever sees a part of it.

        Args:
            path: where, below the folder.
            source: what is read to its end.
        """
        final = self.full(path)
        if self.is_remote:
            start = source.tell()

            def upload() -> None:
                source.seek(start)
                self._copy(source, final)

            # A file that an error interrupts is closed, and pyarrow stores it as far as it went: no
            # Ctrl-C reaches this thread.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._asked, final, upload).result()
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
        full, final = self.full(path), self.full(to)
        self._asked(full, lambda: self._fs.move(full, final), of_file=True)
        self._sync_folders(final)

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is as well."""
        with contextlib.suppress(FileNotFoundError):
            self._asked(self.full(path), lambda: self._fs.delete_file(self.full(path)))

    def clean(self) -> None:
        """Remove what writers that died an hour ago or earlier left behind."""
        for info in self.list(TEMPORARY):
            if info.mtime is not None and time.time() - info.mtime.timestamp() > TEMPORARY_KEPT_S:
                self._fs.delete_file(info.path)

    def _asked(self, path: str, request: Callable[[], Answer], *, of_file: bool = False) -> Answer:
        """Return the answer to a request, which is made again if an object store fails to answer.

        Args:
            path: what it is about, within the file system.
            request: makes it.
            of_file: whether it is of a file that has to be there.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the file system does not answer.
        """
        waits = iter(ASKED_AGAIN_S if self._has_answered else ())
        while True:
            try:
                answer = request()
            except FileNotFoundError:
                raise
            except OSError as error:
                if not self.is_remote:
                    raise

                # Not every store, and not every request, says of a missing file that it is missing.
                if of_file and self._is_missing(path):
                    raise FileNotFoundError(errno.ENOENT, "no such file", path) from error
                wait_s = next(waits, None)
                if wait_s is None:
                    raise OSError(
                        errno.EIO,
                        f"the object store fails or refuses ({str(error)[:300]}): if it throttles,"
                        " run fewer jobs at a time and try again; else see that it can be reached",
                        path,
                    ) from error
                time.sleep(wait_s)
            else:
                self._has_answered = True
                return answer

    def _is_missing(self, path: str) -> bool:
        try:
            return bool(self._fs.get_file_info(path).type == fs.FileType.NotFound)
        except OSError:
            return False

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


def _is_object_store(system: "fs.FileSystem") -> bool:
    """Return whether files are in an object store; where others lie over them, what is below."""
    lower = getattr(getattr(system, "handler", None), "lower", None)
    return system.type_name in OBJECT_STORES if lower is None else _is_object_store(lower)


class _RemoteFile:
    """A file in an object store, as pyarrow reads files: a request for each part.

    ``asked`` makes a request, and makes it again where it has to.
    """

    closed = False

    def __init__(self, file: Any, asked: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._file = file
        self._asked = asked
        self._size = int(file.size())
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.closed = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if count < 0 else min(count, left)
        data = self._asked(lambda: bytes(self._file.read_at(count, self._position)))
        self._position += len(data)
        return data


def shown(root: "str | fs.FileSystem") -> str:
    """Return a path or URI without what may be secret: whose it is, and its options."""
    if not isinstance(root, str):
        return "the log"
    scheme, separator, rest = root.partition("://")
    if not separator:
        return root
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def split_name(root: str) -> tuple[str, str]:
    """Return the path or URI of the folder above, and the name below it.

    Args:
        root: a path, or a URI, whose options stay with the folder: ``s3://bucket/a/b?region=x`` is
            ``s3://bucket/a?region=x`` and ``b``.
    """
    path, separator, options = root.partition("?") if "://" in root else (root, "", "")
    folder, _, name = path.rstrip("/").rpartition("/")
    return (folder or ".") + separator + options, name


def join_name(root: str, name: str) -> str:
    """Return the path or URI of a name below a folder: what ``split_name`` takes apart.

    Args:
        root: a path, or a URI, whose options stay behind the name.
        name: the name.
    """
    path, separator, options = root.partition("?") if "://" in root else (root, "", "")
    return f"{path.rstrip('/')}/{name}{separator}{options}"


def filesystem_of(root: str) -> "tuple[fs.FileSystem, str]":
    """Return the file system of a path or URI, and the path in it.

    Raises:
        ArchiveError: pyarrow knows no such address.
    """
    scheme, separator, _ = root.partition("://")
    if not separator:
        return fs.LocalFileSystem(), str(Path(root).resolve())

    # One request stores a file of up to 5 MB, instead of three.
    if scheme == "s3" and "allow_delayed_open=" not in root:
        root += ("&" if "?" in root else "?") + "allow_delayed_open=true"
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
