"""The archived part of a policy's log, found by the policy's name: its extent, its files."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import chain

import msgspec

from bandits.errors import ArchiveError
from bandits.log.positions import START, log_order, position_ms
from policies.archive.archive import ArchiveReader, archive_folders, archived
from policies.archive.compaction import Compactor, Usage
from policies.archive.shared import SHARED, Shared, archived_space, shared_folder
from policies.storage import shown


class ArchiveEnd(msgspec.Struct, frozen=True):
    """The first or the last archived entry: its time (ISO 8601, UTC) and its id."""

    time: str
    id: str


class ArchivedShared(msgspec.Struct, frozen=True, rename={"size": "bytes"}):
    """How much of a log that a policy shares is archived. ``size``: bytes of the files."""

    ranges: int
    entries: int
    size: int


class ArchiveSummary(
    msgspec.Struct, frozen=True, rename={"first": "from", "last": "to", "size": "bytes"}
):
    """How much of a policy's log is archived, over all its partitions.

    ``size``: bytes of the files; ``record_bytes``: bytes of the same records in the stream.
    ``items``, ``activity``: the logs of its space, which are not counted in the rest.
    """

    policy: str
    ranges: int
    entries: int
    size: int
    record_bytes: int
    first: ArchiveEnd
    last: ArchiveEnd
    items: ArchivedShared
    activity: ArchivedShared


class ArchiveFiles(msgspec.Struct, frozen=True, rename={"size": "bytes"}):
    """Some files of an archive. ``size``: their bytes; None before they are written."""

    files: int
    size: int | None


class ArchiveCompaction(msgspec.Struct, frozen=True):
    """The result of a compaction of a policy's archive: its partitions, and the logs of its space.

    ``before`` and ``after``: the files that are read. ``written``: how many of those after are new.
    ``covered``: older files that lie beside and are not read any more. ``removed``: those of them
    that are gone.
    """

    policy: str
    before: ArchiveFiles
    after: ArchiveFiles
    written: int
    covered: ArchiveFiles
    removed: ArchiveFiles


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
        where = f"in {shown(root)}" if root else "with these settings"
        raise ArchiveError(
            f"no range of {name or 'any policy'} is archived {where}: say where with --archive",
            "archive",
        )
    if name is None:
        raise ArchiveError(
            f"several policies are archived in {shown(root)}: name one with --policy, of {names}",
            "policy",
        )
    if name not in names:
        raise ArchiveError(
            f"no range of {name} is archived in {shown(root)}, but of {names}", "policy"
        )
    return name


def archive_summary(
    root: str, policy: str | None, progress: Callable[[], None] = lambda: None
) -> ArchiveSummary:
    """Summarize the archive of a policy.

    Args:
        root: Folder or URI of the archive; empty where nothing is archived.
        policy: Name of a policy; None for the only one that is archived there.
        progress: Called after each range.

    Raises:
        ArchiveError: Nothing of the policy is archived.
    """
    name = archived_policy_name(root, policy)
    ranges = entries = size = record_bytes = 0
    first: str | None = None
    last = START

    # Partitions are archived independently, so they are not in the order of the log.
    for folder in archive_folders(root, name):
        for stored in ArchiveReader(root, folder).each_range():
            ranges += 1
            entries += stored.range.count
            size += stored.size
            record_bytes += stored.record_bytes
            first = min(first or stored.range.first, stored.range.first, key=log_order)
            last = max(last, stored.range.last, key=log_order)
            progress()

    if first is None:
        raise ArchiveError(
            f"no range of {name} is archived in {shown(root)}: say where with --archive", "archive"
        )
    space = archived_space(root, name)
    return ArchiveSummary(
        policy=name,
        ranges=ranges,
        entries=entries,
        size=size,
        record_bytes=record_bytes,
        first=ArchiveEnd(_time(first), first),
        last=ArchiveEnd(_time(last), last),
        items=_shared(root, space, "items"),
        activity=_shared(root, space, "activity"),
    )


def _shared(root: str, space: str, log: Shared) -> ArchivedShared:
    ranges = list(ArchiveReader(root, shared_folder(space, log)).each_range())
    return ArchivedShared(
        len(ranges),
        sum(stored.range.count for stored in ranges),
        sum(stored.size for stored in ranges),
    )


def compact_archive(
    root: str,
    policy: str | None,
    *,
    remove: bool = False,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _files: None,
) -> ArchiveCompaction:
    """Write the small files of a policy's archive as larger ones, beside them.

    Args:
        root: Folder or URI of the archive; empty where nothing is archived.
        policy: Name of a policy; None for the only one that is archived there.
        remove: Whether the files are then removed whose entries were all found in a larger one.
        dry_run: Whether nothing is written or removed, only counted.
        progress: Called with what is done to files, to how many it was done, and of how many.

    Raises:
        ArchiveError: Nothing of the policy is archived, or a file is damaged or missing.
    """
    name = archived_policy_name(root, policy)
    space = archived_space(root, name)
    folders = [*archive_folders(root, name), *(shared_folder(space, log) for log in SHARED)]
    compactors = [Compactor(root, folder) for folder in folders]
    before, _ = _usage(compactors)

    what, done, groups = ("planning" if dry_run else "compacting"), 0, []
    for compactor in compactors:
        for group in compactor.groups() if dry_run else compactor.compact():
            done += len(group.files)
            groups.append(group.is_due)
            progress(what, done, before.files)

    removed, (_, due) = Usage(), _usage(compactors)
    if remove and not dry_run:
        for found in chain.from_iterable(compactor.remove() for compactor in compactors):
            removed = removed.plus(found)
            progress("comparing and removing", removed.files, due.files)

    after, covered = _usage(compactors)
    return ArchiveCompaction(
        policy=name,
        before=_files(before),
        after=ArchiveFiles(len(groups), None) if dry_run else _files(after),
        written=sum(groups),
        covered=_files(covered),
        removed=_files(removed),
    )


def _usage(compactors: Iterable[Compactor]) -> tuple[Usage, Usage]:
    """Return the files that are read, and those that they cover."""
    read, covered = Usage(), Usage()
    for compactor in compactors:
        of_one = compactor.usage()
        read, covered = read.plus(of_one[0]), covered.plus(of_one[1])
    return read, covered


def _files(usage: Usage) -> ArchiveFiles:
    return ArchiveFiles(usage.files, usage.bytes)


def _time(entry_id: str) -> str:
    moment = datetime.fromtimestamp(position_ms(entry_id) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")
