"""The archived part of a policy's log, found by the policy's name."""

from datetime import UTC, datetime

import msgspec

from bandits.errors import ArchiveError
from bandits.log.positions import log_order, position_ms
from policies.archive.archive import ArchiveReader, archive_folders, archived


class ArchiveEnd(msgspec.Struct, frozen=True):
    """The first or the last archived entry: its time (ISO 8601, UTC) and its id."""

    time: str
    id: str


class ArchiveSummary(
    msgspec.Struct, frozen=True, rename={"first": "from", "last": "to", "size": "bytes"}
):
    """How much of a policy's log is archived, over all its partitions.

    ``size``: bytes of the files; ``record_bytes``: bytes of the same records in the stream.
    """

    policy: str
    ranges: int
    entries: int
    size: int
    record_bytes: int
    first: ArchiveEnd
    last: ArchiveEnd


def archived_policy_name(root: str, name: str | None) -> str:
    """Return ``name``, or without one the name of the only policy that is archived in ``root``.

    Args:
        root: Folder or URI of the archive; empty where nothing is archived.
        name: Name of a policy, or None.

    Raises:
        ArchiveError: No such policy is archived, or several are and none is named.
    """
    names = archived(root) if root else []
    if name is None and len(names) == 1:
        return names[0]

    if not names:
        where = f"in {root}" if root else "with these settings"
        raise ArchiveError(
            f"no range of {name or 'any policy'} is archived {where}: say where with --archive",
            "archive",
        )
    if name is None:
        raise ArchiveError(
            f"several policies are archived in {root}: name one with --policy, of {names}", "policy"
        )
    if name not in names:
        raise ArchiveError(f"no range of {name} is archived in {root}, but of {names}", "policy")
    return name


def archive_summary(root: str, policy: str | None) -> ArchiveSummary:
    """Summarize the archive of a policy.

    Args:
        root: Folder or URI of the archive; empty where nothing is archived.
        policy: Name of a policy; None for the only one that is archived there.

    Raises:
        ArchiveError: Nothing of the policy is archived.
    """
    name = archived_policy_name(root, policy)
    ranges = [
        stored
        for folder in archive_folders(root, name)
        for stored in ArchiveReader(root, folder).ranges()
    ]
    if not ranges:
        raise ArchiveError(
            f"no range of {name} is archived in {root}: say where with --archive", "archive"
        )

    # Partitions are archived independently, so no list of ranges is in the order of the log.
    first = min((stored.range.first for stored in ranges), key=log_order)
    last = max((stored.range.last for stored in ranges), key=log_order)
    return ArchiveSummary(
        policy=name,
        ranges=len(ranges),
        entries=sum(stored.range.count for stored in ranges),
        size=sum(stored.size for stored in ranges),
        record_bytes=sum(stored.record_bytes for stored in ranges),
        first=ArchiveEnd(_time(first), first),
        last=ArchiveEnd(_time(last), last),
    )


def _time(entry_id: str) -> str:
    moment = datetime.fromtimestamp(position_ms(entry_id) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")
