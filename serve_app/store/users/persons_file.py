"""The file of a copy of persons: Parquet, a row for each key of the store.

    key         fixed[16], what finds it
    pseudonym   fixed[16], that of the person; of an alias, the one that its own id had
    since_ms    int64; null of an alias
    earlier     list of fixed[16], the pseudonyms that were merged into it
    ids         list of fixed[16], the keys of its aliases
    of          fixed[16], the key that an alias leads to; null of a person
    filed       list of fixed[16], the keyed pseudonyms of ids that were merged; null: none; copies
                of earlier builds lack it

It says nothing of anybody who is not known by their id to whoever reads it, and has the salt.
"""

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import UsersBackupError

FORMAT = 1
ABOUT = "banditloop"
NEWEST = "filed"
"""The column that copies of earlier builds lack."""

_ID = pa.binary(16)
SCHEMA = pa.schema(
    [
        pa.field("key", _ID, nullable=False),
        pa.field("pseudonym", _ID, nullable=False),
        ("since_ms", pa.int64()),
        ("earlier", pa.list_(_ID)),
        ("ids", pa.list_(_ID)),
        ("of", _ID),
        ("filed", pa.list_(_ID)),
    ]
)


class AboutPersons(msgspec.Struct, frozen=True):
    """What a file says of itself: ``salt`` tells the salt of its keys from another."""

    format: int
    space: str
    salt: str
    rows: int
    made_ms: int


class PersonRow(NamedTuple):
    """One row: see the head of this file."""

    key: bytes
    pseudonym: bytes
    since_ms: int | None
    earlier: list[bytes] | None
    ids: list[bytes] | None
    of: bytes | None
    filed: list[bytes] | None


def write_persons(
    file: BinaryIO, parts: Iterable[Sequence[PersonRow]], *, space: str, salt: str, made_ms: int
) -> int:
    """Write a file; return how many rows it has.

    Args:
        file: what is written to.
        parts: the rows, some at a time.
        space: whose persons they are.
        salt: the id of the salt that their keys were made with.
        made_ms: when the copy began, in milliseconds since 1970.
    """
    count = 0
    with pq.ParquetWriter(
        file, SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True
    ) as writer:
        for rows in parts:
            if rows:
                columns = [
                    pa.array(column, field.type)
                    for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
                ]
                writer.write_table(pa.table(columns, schema=SCHEMA))
                count += len(rows)
        about = AboutPersons(FORMAT, space, salt, count, made_ms)
        writer.add_key_value_metadata({ABOUT: msgspec.json.encode(about)})
    return count


def count_persons(file: Any, name: str) -> int:
    """Return how many rows a file has.

    Args:
        file: an open file.
        name: what errors call it.

    Raises:
        UsersBackupError: it is damaged.
    """
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, ValueError) as error:
        raise UsersBackupError(f"{name} cannot be read ({error}): take another", "file") from error


def read_persons(file: Any, name: str) -> tuple[AboutPersons, list[PersonRow]]:
    """Return what a file says of itself, and its rows.

    Args:
        file: an open file.
        name: what errors call it.

    Raises:
        UsersBackupError: it is damaged, is none, or is of a later build.
    """
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        said = (parquet.schema_arrow.metadata or {}).get(ABOUT.encode()) or (
            parquet.metadata.metadata or {}
        ).get(ABOUT.encode())

        if said is None:
            raise UsersBackupError(f"{name} is no backup of users", "file")
        about = msgspec.json.decode(said, type=AboutPersons)
        if about.format > FORMAT:
            raise UsersBackupError(
                f"{name} has format {about.format}, this build reads {FORMAT}: use a later one",
                "file",
            )

        table = parquet.read(SCHEMA.names)
        if NEWEST not in table.column_names:
            table = table.append_column(NEWEST, pa.nulls(len(table), pa.list_(_ID)))
        columns = [table[field].to_pylist() for field in SCHEMA.names]
    except (pa.ArrowException, msgspec.MsgspecError, ValueError, OSError) as error:
        raise UsersBackupError(f"{name} cannot be read ({error}): take another", "file") from error
    rows = [PersonRow(*row) for row in zip(*columns, strict=True)]
    if len(rows) != about.rows:
        raise UsersBackupError(
            f"{name} has {len(rows):,} rows instead of {about.rows:,}: take another", "file"
        )
    return about, rows
