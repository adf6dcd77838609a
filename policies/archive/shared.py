"""What several policies share in an archive: the folders of a space's logs, and which space it is.

    <root>/<space>/_items/...        the log of items
    <root>/<space>/_activity/...     the log of activity

A space that no policy is named after has a folder with these alone.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from pyarrow import fs

from bandits.errors import ArchiveError, CodecError
from bandits.log.records import RootRecord
from policies.archive.archive import ArchiveReader, archive_folders
from policies.fold.checkpoint import decode_state
from policies.profiles.spaces import space_of_spec

Shared = Literal["items", "activity"]
SHARED: tuple[Shared, ...] = get_args(Shared)
"""The logs of a space."""


def shared_folder(space: str, log: Shared) -> str:
    """Return the archive's folder of one of a space's logs.

    Readers of a policy's log as partitioned data pass over names that start with _.

    Args:
        space: the space's name.
        log: which of its logs.
    """
    return f"{space}/_{log}"


def archived_space(root: "str | Path | fs.FileSystem", folder: str) -> str:
    """Return the space of an archived policy, as its log says: the first spec there is in it.

    A policy stays in its space, so any spec of its log says the same, also that of a root.

    Args:
        root: see Storage.
        folder: the policy's, or that of one of its partitions.

    Raises:
        ArchiveError: a file is damaged or missing.
    """
    policy = folder.partition("/")[0]
    reader = ArchiveReader(root, archive_folders(root, policy)[0])
    for name in _spec_digests(reader):
        try:
            return space_of_spec(reader.blob(name), policy)
        except ArchiveError:  # whoever folds the log says what it lacks
            continue
    return policy


def _spec_digests(reader: ArchiveReader) -> Iterator[str]:
    """Yield the digests of the specs of a log: of its entries, and of the roots it begins at."""
    for group in reader.columns(["id", "spec"], kinds=["spec"]):
        yield from group.batch["spec"].to_pylist()

    # What is before a root may be gone.
    for entry in reader.entries(kinds=["root"]):
        if isinstance(entry.record, RootRecord):
            with contextlib.suppress(ArchiveError, CodecError):
                state = decode_state(reader.blob(entry.record.digest))
                if state.spec is not None:
                    yield state.spec


def archived_items(root: "str | Path | fs.FileSystem", folder: str) -> ArchiveReader:
    """Return the archive of the items that a policy shares with its space.

    Args:
        root: see Storage.
        folder: the policy's, or that of one of its partitions.

    Raises:
        ArchiveError: a file of the policy's own log is damaged or missing.
    """
    return ArchiveReader(root, shared_folder(archived_space(root, folder), "items"))
