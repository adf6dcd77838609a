"""A file's bytes in chunks that end where a row does, decompressed, as UTF-8, here or by URI."""

import codecs
import contextlib
import gzip
import io
import posixpath
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError, DataSetError, ReplayError, plain
from policies.storage import filesystem_of, shown
from simulator.imports.files.quotes import ends_outside
from simulator.logs.files import LogFile, RemoteFile, files_of, open_bytes

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 2 << 20
"""Bytes that are parsed at a time."""
LONGEST_ROW = 64 << 20
SAMPLE = 1 << 18
"""Bytes by which it is found out how a file is read; more where its first rows are longer."""
SAMPLES = (SAMPLE, 1 << 22, LONGEST_ROW)

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
MOST_LOOKED_AT = 1000
"""Files of a folder that are looked at to say how to name them."""
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_WILD = frozenset("*[")
_BOM = b"\xef\xbb\xbf"


def table_files(pattern: str, option: str) -> list[LogFile]:
    """Return the files of a path, a glob or a URI, in the order of their names.

    Args:
        pattern: what was given.
        option: where it was given, for errors.

    Raises:
        DataSetError: there is no such file.
    """
    try:
        files = _by_uri(pattern) if "://" in pattern else files_of(pattern)
    except (ReplayError, ArchiveError) as error:
        raise DataSetError(f"{option} {error.message}", option.strip("-")) from None
    except OSError as error:
        raise DataSetError(
            f"{option} {shown(pattern)} cannot be read: {plain(error)}", option.strip("-")
        ) from None

    for file in files:
        if isinstance(file, Path) and file.is_dir():
            raise DataSetError(f"{option} {file} is a folder: {_files_in(file)}", option.strip("-"))
    return files


def _files_in(folder: Path) -> str:
    """Return what to write where a folder was given."""
    for path in islice(folder.rglob("*"), MOST_LOOKED_AT):
        plain_name = path.name.removesuffix(".gz").removesuffix(".zst")
        ending = next((ending for ending in TABLES if plain_name.endswith(ending)), None)
        if ending is not None and not path.name.startswith((".", "_")):
            between = "*/" * (len(path.relative_to(folder).parts) - 1)
            packed = path.name[len(plain_name) :]
            return f"name its files, as in '{folder}/{between}*{ending}{packed}'"
    return "name a file, or a glob in quotation marks"


def _by_uri(pattern: str) -> list[LogFile]:
    """Return the files of a URI; its last name may have ``*`` and ``[]``, and options follow it."""
    path, mark, options = pattern.partition("?")
    if not _WILD.intersection(path):
        return [RemoteFile(pattern)]

    folder, _, name = path.rpartition("/")
    system, base = filesystem_of(folder + mark + options)
    found = sorted(
        info.base_name
        for info in system.get_file_info(fs.FileSelector(base))
        if info.type == fs.FileType.File and fnmatchcase(info.base_name, name)
    )
    if not found:
        raise DataSetError(f"{shown(pattern)} cannot be read: no file of such a name", "events")
    return [RemoteFile(f"{folder}/{each}{mark}{options}") for each in found]


def name_of(file: LogFile) -> str:
    """Return what errors and reports call a file."""
    return shown(str(file))


def stored_as(file: LogFile) -> str:
    """Return the last part of a file's name, in small letters, without its compression."""
    name = posixpath.basename(name_of(file)).lower()
    return name.removesuffix(".gz").removesuffix(".zst")


@contextmanager
def failures_of(file: LogFile) -> Iterator[None]:
    """Raise what goes wrong with a file's bytes as a DataSetError that names it."""
    name = name_of(file)
    try:
        yield
    except EOFError:
        raise DataSetError(
            f"{name} ends in the middle of its compressed data: it was cut off; fetch it again",
            "events",
        ) from None
    except UnicodeError as error:
        raise DataSetError(
            f"{name} is not text in {getattr(error, 'encoding', 'UTF-8')}"
            f" ({getattr(error, 'reason', 'invalid bytes')}): name its encoding, as in --encoding"
            " latin-1",
            "encoding",
        ) from None

    except ReplayError as error:
        raise DataSetError(error.message.replace(str(file), name), "events") from None
    except (OSError, pa.ArrowException) as error:
        said = plain(error).replace(str(file), name)
        if "truncated" in said.lower() or "zstd" in said.lower() or "gzip" in said.lower():
            said = f"its compressed data is damaged or cut off ({said}); fetch it again"
        raise DataSetError(f"{name} cannot be read: {said}", "events") from None


@contextmanager
def open_text(file: LogFile, encoding: str = "utf-8") -> Iterator[BinaryIO]:
    """Open a file to read as UTF-8 text, decompressed; its first bytes say how it is compressed.

    Args:
        file: the file.
        encoding: that of its text.
    """
    with failures_of(file), open_bytes(file) as raw:
        start = raw.read(4)
        raw.seek(0)
        with contextlib.ExitStack() as stack:
            unpacked: Any = raw
            if start.startswith(GZIP):
                unpacked = stack.enter_context(gzip.GzipFile(fileobj=raw))
            elif start == ZSTD:
                stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
                unpacked = io.BufferedReader(cast("Any", stack.enter_context(stream)))
            if codecs.lookup(encoding).name != "utf-8":
                unpacked = io.BufferedReader(_Recoded(unpacked, encoding))
            yield cast("BinaryIO", unpacked)


class _Recoded(io.RawIOBase):
    """A file of text in another encoding, read as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, room: "WriteableBuffer", /) -> int:
        """Write text into a buffer; return how many bytes, none at the end."""
        while not self._held:
            data = self._file.read(CHUNK)
            self._held = memoryview(self._decoder.decode(data, final=not data).encode())
            if not data:
                break

        with memoryview(room) as into:
            count = min(len(into), len(self._held))
            into[:count], self._held = self._held[:count], self._held[count:]
        return count


def row_chunks(
    file: BinaryIO,
    *,
    quote: bytes = b"",
    delimiter: bytes = b",",
    size: int = CHUNK,
    spare: "deque[bytearray] | None" = None,
) -> Iterator[bytearray]:
    """Yield a file's bytes in parts, each of which ends with a row.

    Args:
        file: its text, as UTF-8.
        quote: the character that may enclose line breaks; empty: none does.
        delimiter: the one that separates cells, where there is a quote.
        size: about how many bytes a part has.
        spare: earlier parts that nobody needs any more; later ones are read into their memory.
    """
    held, is_first = bytearray(), True
    while True:
        chunk = _read_into(spare.pop() if spare else bytearray(), held, file, size)
        if is_first and chunk.startswith(_BOM):
            del chunk[: len(_BOM)]
        is_first = False
        if len(chunk) == len(held):
            break

        end = _end_of_rows(chunk, quote if quote and quote in chunk else b"", delimiter)
        held = chunk[end:]
        del chunk[end:]
        if chunk:
            yield chunk
    if held:
        yield held


def _read_into(chunk: bytearray, held: bytearray, file: BinaryIO, size: int) -> bytearray:
    """Return a buffer with what is held, and so many bytes of a file after it, or what is left.

    Args:
        chunk: the buffer, of any length.
        held: what it begins with.
        file: what is read.
        size: how many bytes of it.
    """
    wanted = len(held) + size
    try:
        chunk.extend(bytes(max(1, wanted - len(chunk))))
    except BufferError:  # a thread of the parser has not let go of it yet
        chunk = bytearray(wanted)
    chunk[: len(held)] = held

    with memoryview(chunk) as whole, whole[len(held) : wanted] as room:
        count = cast("Any", file).readinto(room)
    del chunk[len(held) + count :]
    return chunk


def _end_of_rows(data: bytearray, quote: bytes, delimiter: bytes) -> int:
    """Return where the last whole row ends; 0 where none does."""
    newline, end = b"\n", data.rfind(b"\n") + 1
    if not end:
        # Old Macs end lines so.
        newline, end = b"\r", data.rfind(b"\r", 0, len(data) - 1) + 1
    if not quote or not end or quote not in data:
        return end

    at = ends_outside(data[:end], delimiter, quote, newline)
    return at if at or len(data) < LONGEST_ROW else end


def sample_of(file: LogFile, encoding: str = "utf-8", size: int = SAMPLE) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether these are all of it.

    They are decompressed, as UTF-8, without a byte order mark.

    Args:
        file: the file.
        encoding: that of its text.
        size: the most bytes.
    """
    with open_text(file, encoding) as text:
        read = text.read(size)
    return read.removeprefix(_BOM), len(read) < size
