"""One user's entry in a file of profiles: of the groups, which are in order, one may have it."""

from typing import TYPE_CHECKING, Any, NamedTuple

from bandits.errors import ArtifactError, plain
from policies.artifacts.profile_file import (
    LATEST,
    MALFORMED,
    OTHERS,
    TARGET,
    about_profiles,
    opened_profiles,
)
from policies.pseudonyms import salt_id

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow.parquet as pq


class FiledInterest(NamedTuple):
    """Something that a file of profiles says of a user; oldest first.

    ``weight``: how strongly the item speaks; 0 of what was done with it besides.
    """

    item: str
    type: str | None
    time: "datetime | None"
    weight: float


def filed_profile(where: str, user: str, *, salt: bytes) -> list[FiledInterest] | None:
    """Return what a file of profiles says of a user; None if it has no such user.

    Args:
        where: a path or URI; of a file that is not there, or of another salt, nobody is in it.
        user: the keyed pseudonym.
        salt: its key.

    Raises:
        ArtifactError: the file is damaged, or cannot be read.
    """
    with opened_profiles(where) as file:
        if file is None:
            return None
        try:
            if about_profiles(file).salt != salt_id(salt):
                return None
            return _found(file, user)
        except MALFORMED as error:
            raise ArtifactError(f"profiles: {where} is damaged ({plain(error)})", TARGET) from error


def _found(file: "pq.ParquetFile", user: str) -> list[FiledInterest] | None:
    import pyarrow.compute as pc  # noqa: PLC0415 - it takes 30 MB

    for group in range(file.num_row_groups):
        at: int = pc.index(file.read_row_group(group, columns=["user"])["user"], user).as_py()
        if at >= 0:
            row: dict[str, Any] = file.read_row_group(group).slice(at, 1).to_pylist()[0]
            columns = (row[name] for name in (*LATEST, "weights"))
            found = [FiledInterest(*each) for each in zip(*columns, strict=True)]
            others = zip(*(row.get(name, ()) for name in OTHERS), strict=True)
            return found + [FiledInterest(item, kind, time, 0.0) for item, kind, time in others]
    return None
