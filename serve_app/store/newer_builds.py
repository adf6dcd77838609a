"""The guard that keeps a build away from a log that a newer one has written.

A leader writes in Redis, in the step that appends its BuildRecord, by which version the log is
folded from there on, and a service looks before it starts; a fold that meets a newer version in the
log stops as well (see FOLD). Builds of fold 1 do not look; but they refuse a policy whose newest
merge has another number of inputs than its spec has partitions. So NO_MERGE, which has none, stands
where they look for a merge.
"""

from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import NewerBuildError
from bandits.log.records import MergeRecord
from bandits.log.versions import FOLD, fold_version
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys
from serve_app.store.lease import Command

FORMAT = 1
"""The version of a data directory's layout.

A later build that lays it out anew writes a higher number into the file ``format`` in it.
"""
NO_MERGE = msgspec.msgpack.encode(MergeRecord(0, [], "", ""))


def check_format(data_dir: Path) -> None:
    """Demand that this build knows how a data directory is laid out.

    Raises:
        NewerBuildError: which names the folder.
    """
    try:
        written = (data_dir / "format").read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return

    if written != str(FORMAT):
        raise NewerBuildError(
            f"a newer build of banditloop has written {data_dir} (its format is {written[:20]!r},"
            f" this build's {FORMAT}): use that build, or a later one, or another --data-dir",
            "data_dir",
        )


def mark_fold(client: Redis, keys: Keys) -> list[Command]:
    """Return what a leader writes with its BuildRecord.

    Args:
        client: a connection, from which a merge of an older build is read.
        keys: those of the partition it leads.
    """
    marked: list[Command] = [("SET", keys.fold, FOLD), ("HSET", keys.merge, "record", NO_MERGE)]
    before: Any = client.hget(keys.merge, "record")

    # A merge of a build of fold 1 stays the newest; nobody else writes it while this one leads.
    if before not in (None, NO_MERGE):
        marked.insert(0, ("HSETNX", keys.merge, "newest", before))
    return marked


def check_fold(client: Redis, keys: Keys) -> None:
    """Demand that this build knows how to fold a log.

    Args:
        client: a connection.
        keys: those of the partition whose log it is.

    Raises:
        NewerBuildError: which names the policy.
    """
    raw: Any = client.get(keys.fold)
    if raw is None:
        return
    try:
        fold_version({"fold": raw.decode(errors="replace")})
    except NewerBuildError as error:
        raise NewerBuildError(f"the log of {keys.policy}: {error.message}", error.target) from error
