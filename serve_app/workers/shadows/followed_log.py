"""The log that a shadow follows: that of a policy, or those of its partitions as one.

The partitions' logs are read in the order of time, each entry under its position in all of them
together (``merged_position``). What is read is complete: a partition's server gives an entry its
time, so nothing more comes from before the time that the clocks of all servers have passed.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from bandits.errors import ArchiveError, MissingBlobError, SnapshotError
from bandits.log.older_decisions import Opened
from bandits.log.positions import log_order, merged_position, own_position
from bandits.log.records import LogEntry
from policies.archive.archive import ArchiveReader, archive_folder
from policies.fold.checkpoint import FoldState, Past
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis, now_ms
from serve_app.store.history import BEHIND, History, LogPast
from serve_app.store.keys import Keys, partitions

READ: Final = 250
"""Entries at a time: while Redis sends a thousand large decisions, it answers nobody else."""


class FollowedLog(Protocol):
    """A log as a shadow follows it. ``past``: the same for whoever reads behind it."""

    past: Past

    def entries(self, after: str) -> Iterator[LogEntry]:
        """Yield the entries past a position that there are now, with decisions encoded.

        Args:
            after: the position.
        """
        ...

    def blob(self, name: str) -> bytes:
        """Return the blob that an entry names."""
        ...

    def root(self) -> FoldState | None:
        """Return the state with which the log begins; None: it has never been cut.

        Raises:
            SnapshotError: it has been cut, and there is none.
        """
        ...


class OneLog:
    """The log of a policy that has one."""

    def __init__(self, history: History, checkpoints: Checkpoints) -> None:
        self.past: Past = LogPast(history, checkpoints)
        self.blob = history.blob
        self._history, self._checkpoints = history, checkpoints

    def entries(self, after: str) -> Iterator[LogEntry]:
        """Yield the entries past a position; see ``FollowedLog``."""
        return self._history.encoded(after, batch=READ)

    def root(self) -> FoldState | None:
        """Return the state with which the log begins; see ``FollowedLog``."""
        root = self._checkpoints.root()
        return None if root is None else self._checkpoints.state(root.checkpoint)


class LogOfPartition(Protocol):
    """The log of one partition; see History."""

    def encoded(
        self, after: str, through: str | None = None, *, batch: int = READ
    ) -> Iterable[LogEntry]:
        """Yield its entries; see ``History.encoded``."""
        ...

    def opened(self, after: str, through: str) -> Iterable[Opened]:
        """Yield what a join wants to know of them; see ``History.opened``."""
        ...

    def blob(self, name: str) -> bytes:
        """Return a blob; see ``History.blob``."""
        ...


class MergedLogs:
    """The logs of several partitions as one.

    Args:
        logs: one of each partition, in their order.
        complete_ms: returns the last millisecond of which all entries are in the logs.
        is_cut: returns whether one of the logs has been cut.
    """

    def __init__(
        self,
        logs: Sequence[LogOfPartition],
        complete_ms: Callable[[], int],
        is_cut: Callable[[], bool] = lambda: False,
    ) -> None:
        self.past: Past = _MergedPast(logs)
        self._logs, self._complete_ms, self._is_cut = logs, complete_ms, is_cut

    def entries(self, after: str) -> Iterator[LogEntry]:
        """Yield the entries past a position; see ``FollowedLog``."""
        end = f"{self._complete_ms()}-{2**64 - 1}"
        return _merged(self._logs, after, end, batch=READ)

    def blob(self, name: str) -> bytes:
        """Return the blob that an entry names, in whichever of the logs."""
        *others, last = self._logs
        for log in others:
            try:
                return log.blob(name)
            except (MissingBlobError, ArchiveError):
                continue
        return last.blob(name)

    def root(self) -> FoldState | None:
        """Return None: there is no state of all partitions at once; see ``FollowedLog``."""
        if self._is_cut():
            raise SnapshotError(
                "the logs of the partitions have been cut, and a shadow of several partitions"
                " begins where they began: evaluate it by banditloop replay",
                "partitions",
            )
        return None


class _MergedPast:
    """The logs of several partitions behind a fold of all of them."""

    aside: str | None = None

    def __init__(self, logs: Sequence[LogOfPartition]) -> None:
        self._logs = logs
        self.entries = partial(_merged, logs)
        self.behind = self.taught = partial(_merged, logs, batch=BEHIND)

    def opened(self, after: str, through: str) -> Iterator[Opened]:
        """Yield of each entry what a join wants to know; see ``Past``."""
        count = len(self._logs)

        def own(number: int, log: LogOfPartition) -> Iterator[Opened]:
            begin, end = (own_position(each, number, count) for each in (after, through))
            for position, what in log.opened(begin, end):
                yield merged_position(position, number, count), what

        parts = [own(number, log) for number, log in enumerate(self._logs)]
        return heapq.merge(*parts, key=lambda each: log_order(each[0]))

    def checkpoint(self, position: str) -> FoldState | None:  # noqa: ARG002 - as Past has it
        """Return none: checkpoints are of one partition."""
        return None


def _merged(
    logs: Sequence[LogOfPartition], after: str, through: str, *, batch: int = READ
) -> Iterator[LogEntry]:
    """Yield the entries of all logs, in the order of time, under their positions in all of them."""
    count = len(logs)

    def own(number: int, log: LogOfPartition) -> Iterator[LogEntry]:
        begin, end = (own_position(each, number, count) for each in (after, through))
        for entry in log.encoded(begin, end, batch=batch):
            yield LogEntry(merged_position(entry.id, number, count), entry.record)

    parts = [own(number, log) for number, log in enumerate(logs)]
    return heapq.merge(*parts, key=lambda entry: log_order(entry.id))


def log_of_policy(client: Redis, policy: PolicySpec, settings: Settings) -> FollowedLog:
    """Return the log of a policy, as its shadows follow it.

    Args:
        client: the shadow's own connection.
        policy: the spec of the policy that is served.
        settings: of the service.
    """
    archive, count = settings.archive_root(), policy.partitions
    keys = partitions(policy.name, count)

    def history(own: Keys) -> History:
        folder = archive_folder(policy.name, own.partition, count)
        return History(client, own, ArchiveReader(archive, folder) if archive else None)

    if count == 1:
        return OneLog(history(keys[0]), Checkpoints(client, keys[0]))
    return MergedLogs(
        [history(own) for own in keys],
        lambda: min(now_ms(client, own.log) for own in keys) - 1,
        lambda: any(Checkpoints(client, own).root() is not None for own in keys),
    )
