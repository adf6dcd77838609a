"""A policy's whole log as an archive to read: what is archived, and what only the stream has."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pyarrow.fs import FileSystem

from bandits.log.positions import START, is_after
from policies.archive.archive import ArchiveReader, ArchiveWriter, archive_folder
from policies.archive.listing import NAME
from policies.archive.overlay import overlaid
from policies.archive.range_file import Range, hour_of
from policies.archive.shared import shared_folder
from serve_app.store.archiving.archived import ArchivedStream
from serve_app.store.clients import Redis
from serve_app.store.keys import ItemsKeys, LogKeys, partitions
from serve_app.store.merges import partition_count
from serve_app.store.spaces import space_name

MAX_ENTRIES = 20_000
"""Entries of the stream that are held at once."""


@contextlib.contextmanager
def whole_log(
    client: Redis, policy: str, root: str, progress: Callable[[int], None] = lambda _entries: None
) -> Iterator["str | FileSystem"]:
    """Give a policy's log up to now as an archive; what is not archived lies in a folder till then.

    Args:
        client: of the service's Redis.
        policy: its name.
        root: folder or URI of the archive; empty where nothing is archived.
        progress: told how many entries of the stream were read, of each log by itself.
    """
    space, count = space_name(client, policy), partition_count(client, policy)
    logs: dict[str, LogKeys] = {shared_folder(space, "items"): ItemsKeys(space)}
    for keys in partitions(policy, count):
        logs[archive_folder(policy, keys.partition, count)] = keys

    with tempfile.TemporaryDirectory(prefix="banditloop-log-") as folder:
        ends = {}
        for name, of_log in logs.items():
            ends[name] = ArchiveReader(root, name).end if root else START
            _write_rest(
                ArchivedStream(client, of_log), ArchiveWriter(folder, name), ends[name], progress
            )
        yield overlaid(folder, root, partial(_is_newer, ends)) if root else folder


def _write_rest(
    stream: ArchivedStream, writer: ArchiveWriter, end: str, progress: Callable[[int], None]
) -> None:
    """Write the entries of a stream past a position as ranges, as the archiver would."""
    previous, held, count = end, list[tuple[str, bytes]](), 0

    def flush() -> None:
        nonlocal previous, held, count
        if held:
            last = held[-1][0]
            writer.write(Range(previous, held[0][0], last, len(held)), held, stream.blob)
            previous, held, count = last, [], count + len(held)
            progress(count)

    for entry in stream.raw(f"({end}", "+"):
        if held and (len(held) >= MAX_ENTRIES or hour_of(entry[0]) != hour_of(held[0][0])):
            flush()
        held.append(entry)
    flush()


def _is_newer(ends: Mapping[str, str], path: str) -> bool:
    """Return whether a file was archived after the log was looked at: its entries are in ours."""
    folder, _, rest = path.partition("/date=")
    match = NAME.fullmatch(rest.rpartition("/")[2])
    return match is not None and folder in ends and is_after(match[2], ends[folder])
