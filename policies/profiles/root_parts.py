"""One log's part of all profiles as of its root, as a file in its archive.

    <root>/<policy>/_profiles/<digest>.parquet

Whoever makes the part anew begins with it, and needs nothing of what the log said before. A row has
a pseudonym and the bytes of its part.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import ArchiveError
from policies.profiles.part import Part, decode_part
from policies.storage import Storage

FOLDER = "_profiles"
SCHEMA = pa.schema([("user", pa.string()), ("part", pa.binary())])
PER_GROUP = 10_000
"""Rows that are in memory at a time."""


def write_root_parts(files: Storage, parts: Iterable[tuple[str, bytes]]) -> str:
    """Store the parts of a root; return the digest of their file.

    Args:
        files: of the log's archive.
        parts: their bytes by pseudonym.

    Raises:
        OSError: the file system cannot be reached.
    """
    rows = iter(parts)
    with tempfile.TemporaryFile() as spool:
        with pq.ParquetWriter(
            spool, SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True
        ) as writer:
            while chunk := list(islice(rows, PER_GROUP)):
                columns = [
                    pa.array(column, field.type)
                    for column, field in zip(zip(*chunk, strict=True), SCHEMA, strict=True)
                ]
                writer.write_table(pa.table(columns, schema=SCHEMA))

        name = _digest(spool)
        spool.seek(0)
        files.put(_path(name), spool)
        return name


def read_root_parts(files: Storage, name: str) -> Iterator[list[tuple[str, Part]]]:
    """Yield the parts of a root, some at a time.

    Args:
        files: of the log's archive.
        name: the digest of their file.

    Raises:
        ArchiveError: it is gone or damaged.
        OSError: the file system cannot be reached.
    """
    try:
        with files.open(_path(name)) as file:
            if _digest(file) != name:
                raise ArchiveError(
                    f"{files.full(_path(name))}: damaged (its bytes do not match the digest that"
                    " is its name): restore it from a copy",
                    "archive",
                )
            file.seek(0)
            for batch in pq.ParquetFile(file).iter_batches(PER_GROUP):
                users, stored = (column.to_pylist() for column in batch.columns)
                yield list(zip(users, map(decode_part, stored), strict=True))
    except FileNotFoundError as error:
        raise ArchiveError(
            f"{files.full(_path(name))} is gone, with which the profiles of this log begin: restore"
            " it from a copy",
            "archive",
        ) from error


def remove_other_parts(files: Storage, kept: str | None) -> None:
    """Remove the files of all roots but one.

    Args:
        files: of the log's archive.
        kept: the digest of the one that stays; None: none does.

    Raises:
        OSError: the file system cannot be reached.
    """
    for info in files.list(FOLDER):
        name = str(info.base_name)
        if kept is None or name != f"{kept}.parquet":
            files.remove(f"{FOLDER}/{name}")


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.parquet"


def _digest(file: BinaryIO | Any) -> str:
    file.seek(0)
    found, read = hashlib.blake2b(digest_size=16), partial(file.read, 1 << 20)
    for part in iter(read, b""):
        found.update(part)
    return found.hexdigest()
