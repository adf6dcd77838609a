"""Removing users from a file of profiles: it is written again without them, group after group."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bandits.errors import ArchiveError, ArtifactError, plain
from policies.artifacts.profile_file import (
    ABOUT,
    LAYOUT,
    MALFORMED,
    TARGET,
    about_profiles,
    opened_profiles,
)
from policies.pseudonyms import salt_id

if TYPE_CHECKING:
    import pyarrow.parquet as pq


def remove_profiles(where: str, users: Collection[str], *, salt: bytes) -> set[str]:
    """Remove users from a file of profiles; return those that it had.

    Whoever reads meanwhile sees the old file or the new one. A file that is not there, or that was
    written under another salt, has none of them.

    Args:
        where: a path or URI.
        users: keyed pseudonyms.
        salt: their key.

    Raises:
        ArtifactError: the file is damaged, or cannot be read or written.
    """
    with opened_profiles(where) as file:
        if file is None:
            return set()

        try:
            if about_profiles(file).salt != salt_id(salt):
                return set()
            found = {user for _, _, named in _rows_of(file, users) for user in named}
            if not found:
                return set()
            with _written_anew(where) as target:
                _copy(file, target, users)

        except MALFORMED as error:
            raise ArtifactError(
                f"profiles: users cannot be removed from {where}: {plain(error)}", TARGET
            ) from error
        except ArchiveError as error:
            raise ArtifactError(
                f"profiles: {where} cannot be written: {error.message}", TARGET
            ) from error
    return found


def _rows_of(
    file: "pq.ParquetFile", users: Collection[str]
) -> "Iterator[tuple[int, list[int], list[str]]]":
    """Yield each group that has some of the users, with where, and whom."""
    import numpy as np  # noqa: PLC0415 - with pyarrow
    import pyarrow as pa  # noqa: PLC0415 - it takes 30 MB
    import pyarrow.compute as pc  # noqa: PLC0415

    for group in range(file.num_row_groups):
        named = file.read_row_group(group, columns=["user"])["user"].combine_chunks()
        rows = np.flatnonzero(pc.is_in(named, pa.array(list(users), pa.string())).to_numpy(False))
        if rows.size:
            yield group, rows.tolist(), named.take(rows).to_pylist()


def _copy(file: "pq.ParquetFile", target: BinaryIO, users: Collection[str]) -> None:
    """Write all groups without the users."""
    import numpy as np  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    left_out = {group: rows for group, rows, _ in _rows_of(file, users)}
    with pq.ParquetWriter(target, file.schema_arrow, **LAYOUT) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            kept = np.delete(np.arange(table.num_rows), left_out.get(group, []))
            if kept.size:
                writer.write_table(table.take(kept) if group in left_out else table)
        writer.add_key_value_metadata({ABOUT: file.metadata.metadata[ABOUT]})


@contextlib.contextmanager
def _written_anew(where: str) -> Iterator[BinaryIO]:
    """Open what takes the place of a file once it is written whole."""
    from policies.storage import Storage, split_name  # noqa: PLC0415 - which imports pyarrow

    if "://" in where:
        folder, name = split_name(where)
        with tempfile.TemporaryFile() as scratch:
            yield scratch
            scratch.seek(0)
            Storage(folder, "").put(name, scratch)
        return

    path = Path(where)
    before = _state_of(path)
    scratch_path = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with scratch_path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch_path.chmod(path.stat().st_mode & 0o777)
        if _state_of(path) != before:
            raise OSError("it was written by somebody else meanwhile: try again")
        scratch_path.replace(path)
    finally:
        scratch_path.unlink(missing_ok=True)


def _state_of(path: Path) -> tuple[Any, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
