"""A policy's log to be read as a whole while it grows: from Redis, or from its archive."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from banditloop_client.schemas import RefreshInfo
from bandits.errors import (
    BanditloopError,
    CodecError,
    DataUnavailableError,
    LogGapError,
    MissingBlobError,
)
from bandits.log.positions import START, is_after, position_at, position_ms
from bandits.log.records import LogEntry
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader
from policies.fold.checkpoint import Refusal
from policies.storage import shown
from serve_app.admin.refreshes import read_refresh
from serve_app.store.archiving.archived import Committed
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History
from serve_app.store.keys import PROCESSES, Keys
from serve_app.store.merges import read_merge
from serve_app.store.progress import Progress
from serve_app.store.snapshots import Head, decode_published
from serve_app.store.stats import Stats

HEAD_ATTEMPTS = 5
"""A snapshot may be replaced while it is looked up; then the one that replaced it is looked up."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Kind = TypeVar("Kind")


class LiveLog:
    """One partition's log in Redis, up to the entry that is its last when this is made.

    Raises:
        DataUnavailableError: The log is empty.
    """

    def __init__(self, client: Redis, keys: Keys, archive: ArchiveReader | None = None) -> None:
        self.name = keys.policy
        self._client = client
        self._keys = keys
        self._history = History(client, keys, archive)
        self._reader = RedisLog(client, keys)
        # Snapshots of all partitions are stored beside partition 0.
        self._first_keys = Keys(keys.policy)
        self._snapshots = RedisLog(client, self._first_keys)

        ends: Any = client.xrevrange(keys.log, count=1)
        if not ends:
            raise DataUnavailableError(f"the log of {keys.policy!r} is empty", "policy")
        self.end = str(ends[0][0].decode())

    def undecodable(self) -> int:
        """Return how many entries that were read could not be decoded."""
        return self._reader.undecodable

    def entries(self, after: str) -> Iterator[LogEntry]:
        """Yield the entries past ``after``, up to and with ``end``.

        Raises:
            LogGapError: The log was trimmed past what had been read, so entries are missing.
        """
        before, begun = Committed.read(self._client, self._keys).trimmed, False
        while entries := self._reader.read(after):
            # Asked after the entries were read, so that it holds for them.
            trimmed = Committed.read(self._client, self._keys).trimmed
            if begun and trimmed != before and is_after(trimmed, after):
                raise self._gap(after)

            for entry in entries:
                if is_after(entry.id, self.end):
                    return
                yield entry
            after, begun = entries[-1].id, True

        if begun and is_after(self.end, after):
            raise self._gap(after)

    def _gap(self, after: str) -> LogGapError:
        return LogGapError(f"the log of {self.name} was trimmed past {after}", "log")

    def blob(self, name: str) -> bytes | None:
        """Return the bytes of a digest, None if they are neither stored nor archived."""
        try:
            return self._history.blob(name)
        except BanditloopError:
            return None

    def snapshot(self, name: str) -> Snapshot | None:
        """Return the snapshot of an id, None if it is no longer stored.

        Raises:
            SnapshotError: Its bytes are not those that its id names.
        """
        try:
            data = self._snapshots.blob(name)
        except MissingBlobError:
            return None
        return decode_published(data, name).snapshot

    def listed_snapshots(self) -> frozenset[str]:
        """Return the ids of the snapshots that should be stored now."""
        raw: Any = self._client.lrange(self._first_keys.snapshots, 0, -1)
        return frozenset(name.decode() for name in raw)

    def now_ms(self) -> int:
        """Return the time of the log's clock."""
        return self._reader.now_ms()

    def is_running(self, *, within_s: float) -> bool:
        """Return whether any process of the service has reported in the last seconds."""
        recently = time.time() - within_s
        return bool(self._client.zcount(PROCESSES, recently, "+inf"))

    def stats(self) -> Stats | None:
        """Return what the learner has counted, None if it has published nothing readable."""
        raw: Any = self._client.get(self._keys.stats)
        return _decoded(raw, Stats)

    def refresh(self) -> RefreshInfo | None:
        """Return the last refresh of the policy's sources, None if there never was one."""
        return read_refresh(self._client, self._first_keys)

    def stall(self) -> str | None:
        """Return where learning stands still and why, in words; None if it goes on."""
        raw: Any = self._client.get(self._keys.progress)
        progress = _decoded(raw, Progress)
        stall = None if progress is None else progress.stall
        return None if stall is None else f"the {stall.kind} at {stall.position}: {stall.reason}"

    def refusals(self) -> tuple[str, ...]:
        """Return which entries were refused last and why, in words."""
        raw: Any = self._client.lrange(self._keys.refusals, 0, -1)
        refusals = [_decoded(data, Refusal) for data in raw]
        return tuple(
            f"the {each.kind} at {each.position}: {each.reason}" for each in refusals if each
        )

    def served_position(self) -> str | None:
        """Return the position that the served snapshot has learned through, None if unreadable."""
        for _ in range(HEAD_ATTEMPTS):
            raw: Any = self._client.get(self._keys.head)
            head = _decoded(raw, Head)
            if head is None:
                return None

            # A snapshot that cannot be read is by now replaced; or damaged, which is a finding of
            # another check.
            try:
                data = self._reader.blob(head.snapshot_id)
                return decode_published(data, head.snapshot_id).position
            except BanditloopError:
                continue
        return None

    def merged_position(self) -> str | None:
        """Return the position of this partition that the newest merge has learned through."""
        merge = read_merge(self._client, self._first_keys)
        part = None if merge is None else merge.inputs[self._keys.partition]
        return None if part is None else part.position


class ArchivedLog:
    """One partition's log in an archive. ``archive``: its reader.

    Raises:
        DataUnavailableError: Nothing of the log is archived.
    """

    def __init__(self, root: str, folder: str) -> None:
        self.name = folder
        self.archive = ArchiveReader(root, folder)
        self._undecodable = 0
        self.end = self.archive.end
        if self.end == START:
            raise DataUnavailableError(
                f"{shown(root)} holds no log of a policy {folder!r}", "archive"
            )

    def undecodable(self) -> int:
        """Return how many entries that were read could not be decoded."""
        return self._undecodable

    def entries(self, after: str) -> Iterator[LogEntry]:
        """Yield the entries past ``after``, up to and with ``end``."""
        return self.archive.entries(after, self.end, on_undecodable=self._count)

    def _count(self, _entry_id: str, _error: CodecError) -> None:
        self._undecodable += 1

    def blob(self, name: str) -> bytes | None:
        """Return the bytes of a digest, None if they are not archived."""
        try:
            return self.archive.blob(name)
        except BanditloopError:
            return None


def position_since(since: str | None, end: str) -> str:
    """Return the position to read after.

    Args:
        since: An entry id, a time (ISO 8601, UTC by default), or a span before the end, such as
            ``24h``; None for the log's start.
        end: The id of the log's last entry.

    Raises:
        DataUnavailableError: ``since`` is none of these.
    """
    if since is None:
        return START
    if re.fullmatch(r"\d+-\d+", since):
        return since

    if (span := span_s(since)) is not None:
        return position_at(position_ms(end) - 1000 * span)

    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise DataUnavailableError(
            f"--since {since!r} is no entry id, span (90s, 30m, 24h, 7d) or time", "since"
        ) from error

    # A time without a zone is UTC, as the times that doctor and snapshots print.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return position_at(round(1000 * moment.timestamp()))


def span_s(text: str) -> int | None:
    """Return a span of time, such as 90s, 30m, 24h or 7d, in seconds; None: it is none."""
    span = re.fullmatch(r"(\d+)([smhd])", text)
    return None if span is None else int(span[1]) * UNITS_S[span[2]]


def _decoded(data: bytes | None, kind: type[Kind]) -> Kind | None:
    """Return the value, None where it is unreadable or absent: neither says anything."""
    try:
        return None if data is None else msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None
