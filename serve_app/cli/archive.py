"""``banditloop archive``: what of a policy's log is archived."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bandits.errors import ArchiveError
from bandits.log.positions import log_order, position_ms
from policies.archive.archive import ArchiveReader, archive_folders, archived
from serve_app.settings import Settings


def archived_policy(root: str, name: str | None) -> str:
    """The policy of this name, or the only one whose log is archived there.

    Raises:
        ArchiveError: there is none, or there are several and none was named.
    """
    known = archived(root) if root else []
    if name is None and len(known) == 1:
        return known[0]
    if not known:
        where = f"in {root}" if root else "with these settings"
        raise ArchiveError(
            f"no range of {name or 'any policy'} is archived {where}: say where with --archive",
            "archive",
        )
    if name is None:
        raise ArchiveError(
            f"several policies are archived in {root}: name one with --policy, of {known}", "policy"
        )
    if name not in known:
        raise ArchiveError(f"no range of {name} is archived in {root}, but of {known}", "policy")
    return name


def contents(policy: str | None, settings: Settings) -> Mapping[str, Any]:
    """What the archive of a policy holds.

    Raises:
        ArchiveError: nothing of it.
    """
    root = settings.archive_root()
    name = archived_policy(root, policy)
    ranges = [
        each
        for folder in archive_folders(root, name)
        for each in ArchiveReader(root, folder).ranges()
    ]
    if not ranges:
        raise ArchiveError(
            f"no range of {name} is archived in {root}: say where with --archive", "archive"
        )
    first = min((each.range.first for each in ranges), key=log_order)
    last = max((each.range.last for each in ranges), key=log_order)
    return {
        "policy": name,
        "ranges": len(ranges),
        "entries": sum(each.range.count for each in ranges),
        "bytes": sum(each.size for each in ranges),
        "record_bytes": sum(each.record_bytes for each in ranges),
        "from": {"time": _time(first), "id": first},
        "to": {"time": _time(last), "id": last},
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for a person."""
    size, entries = found["bytes"], found["entries"]
    yield f"policy   {found['policy']}"
    yield f"ranges   {found['ranges']}"
    yield f"entries  {entries}"
    stored = found["record_bytes"] / entries
    yield f"bytes    {size} ({size / entries:.0f} per entry; its record in the stream {stored:.0f})"
    for end in ("from", "to"):
        yield f"{end:<8} {found[end]['time']}  {found[end]['id']}"


def _time(entry_id: str) -> str:
    return datetime.fromtimestamp(position_ms(entry_id) / 1000, UTC).isoformat(
        timespec="milliseconds"
    )
