"""Verifying one policy's whole log, on several cores: each folds from one checkpoint to another.

A segment proves that folding from its first checkpoint gives its snapshots and the bytes of its
last checkpoint. The first segment starts from nothing; so all segments together prove what one fold
of the whole log would.
"""

import contextlib
import gc
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec

from bandits.errors import SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import has_reached, is_after, log_order
from policies.archive.archive import ArchiveReader, archive_folder
from policies.fold.all_partitions import AllPartitionsFold, verify_partitions
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.fold.verify import ServedSnapshot, Verified, verify
from policies.items.past import ItemsPast
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.store.checkpoints import Root, StoredCheckpoint
from serve_app.store.clients import blocking_client
from serve_app.store.history import History
from serve_app.store.items.history import ItemsHistory, items_of_policy
from serve_app.store.keys import partitions
from serve_app.store.merges import partition_count, partitions_root

POLL_S = 0.1
OnLearned = Callable[[int], None]
"""Told, as a verification goes on, how many interactions were learned so far."""
Verdicts = tuple[list[Verified], int]
"""The verified snapshots, and how many interactions were learned."""

_learned: Any = None


class Segment(msgspec.Struct, frozen=True):
    """A stretch of the log, from a checkpoint (None: the start) to another (None: the end).

    ``proven`` are the bytes of the checkpoints that the segments before this one prove, the newest
    first; this one starts from the first of them. They are taken along because a learner that runs
    forgets old checkpoints meanwhile.
    """

    number: int
    start: StoredCheckpoint | None
    end: StoredCheckpoint | None
    proven: list[bytes] = []


class LogAddress(msgspec.Struct, frozen=True):
    """Where a policy's log is, for a process that verifies a segment of it."""

    url: str
    policy: str
    archive: str
    salt: bytes

    def open(self) -> StoredPolicy:
        """Open the log with a connection of this process's own."""
        client = blocking_client(self.url)
        folder = archive_folder(self.policy, 0, partition_count(client, self.policy))
        archive = ArchiveReader(self.archive, folder) if self.archive else None
        return StoredPolicy(client, self.policy, archive)

    def histories(self, count: int) -> list[History]:
        """Open the log of each of ``count`` partitions."""
        client = blocking_client(self.url)
        folders = [archive_folder(self.policy, number, count) for number in range(count)]
        archives = [
            ArchiveReader(self.archive, folder) if self.archive else None for folder in folders
        ]
        return [
            History(client, keys, archive)
            for keys, archive in zip(partitions(self.policy, count), archives, strict=True)
        ]

    def items(self) -> ItemsHistory:
        """Open the log of the policy's items."""
        return items_of_policy(blocking_client(self.url), self.policy, self.archive)


class ProvenPast:
    """The log behind a segment, for rollbacks: it relies on no checkpoint but the proven ones."""

    def __init__(self, stored: StoredPolicy, proven: Sequence[FoldState]) -> None:
        self.entries = self.behind = stored.history.encoded
        self.taught, self.aside = stored.history.taught, stored.history.aside
        self.opened = stored.history.opened
        self._proven = proven

    def checkpoint(self, position: str) -> FoldState | None:
        """Return the newest proven checkpoint at or before a position."""
        return next(
            (state for state in self._proven if has_reached(position, state.position)), None
        )


def verify_policy(
    address: LogAddress,
    served: Sequence[ServedSnapshot],
    *,
    start: StoredCheckpoint | None = None,
    jobs: int = 1,
    progress: OnLearned,
) -> Verdicts:
    """Compare every snapshot past ``start`` with the replay of the log.

    Across builds only one process can be used: a checkpoint's bytes are those of the build that
    made it. The logs of several partitions are folded together, by one process, from their roots or
    the start.

    Args:
        address: where the log is.
        served: the snapshots to compare.
        start: the checkpoint to begin from; None: the root of the log, or its start.
        jobs: how many processes to use.
        progress: told how many interactions were learned so far.

    Returns:
        The verdict on each snapshot, oldest first, and how many interactions were learned.

    Raises:
        SnapshotError: ``start`` is given, and there are several partitions.
    """
    stored = address.open()
    root = stored.checkpoints.root()
    if stored.partitions > 1:
        if start is not None and (root is None or start.position != root.position):
            raise SnapshotError(
                "a policy with several partitions is verified from its root, or the start", "from"
            )
        return _verify_partitions(address, stored.partitions, root, served, progress)

    if start is None and root is not None:
        start = root.checkpoint
    first = [(start, stored.checkpoints.load(start))] if start is not None else []
    checkpoints = [
        checkpoint
        for checkpoint in reversed(stored.checkpoints.list())
        if start is None or _is_after(checkpoint, start)
    ]
    is_one_build = all(snapshot.build == this_build() for snapshot in served)
    if jobs == 1 or not checkpoints or not is_one_build:
        return _verify_segment(address, _segments(first, [])[0], served, progress)

    cuts = []
    for checkpoint in split(checkpoints, 0 if start is None else start.learned, jobs):
        # One that the learner forgets in this moment, or whose bytes are not those that this build
        # makes of the log: one segment less.
        with contextlib.suppress(SnapshotError):
            data = stored.checkpoints.load(checkpoint)
            if decode_state(data).is_pure:
                cuts.append((checkpoint, data))
    return _verify_in_processes(address, _segments(first, cuts), served, jobs, progress)


def _verify_in_processes(
    address: LogAddress,
    segments: list[Segment],
    served: Sequence[ServedSnapshot],
    jobs: int,
    progress: OnLearned,
) -> Verdicts:
    """Verify segments side by side, the first in this process."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", len(segments))
    with ProcessPoolExecutor(jobs - 1, context, _begin, (counts,)) as pool:
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(counts, progress, done), daemon=True)
        watch.start()

        others = [
            pool.submit(_verify_counted, address, segment, list(served)) for segment in segments[1:]
        ]
        _begin(counts)
        own = _verify_counted(address, segments[0], served)  # meanwhile the other processes start
        results = [own, *(other.result() for other in others)]

        done.set()
        watch.join()

    verified = [verdict for verdicts, _ in results for verdict in verdicts]
    return verified, sum(learned for _, learned in results)


@contextlib.contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for garbage in cycles seldom: a fold makes none, but each look takes long."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@seldom_collecting()
def _verify_partitions(
    address: LogAddress,
    count: int,
    root: Root | None,
    served: Sequence[ServedSnapshot],
    progress: OnLearned,
) -> Verdicts:
    histories = address.histories(count)
    # Partition 0 first: what its merges name is in the others by then.
    ends = [history.end() for history in histories]
    known = partitions_root(root, histories)
    folds = AllPartitionsFold(
        histories, salt=address.salt, ends=ends, items=address.items(), root=known
    )
    first = sum(fold.learned for fold in folds.folds)
    again = verify_partitions(
        folds, served, build=this_build(), progress=lambda learned: progress(learned - first)
    )
    verified = list(again)
    return verified, sum(fold.learned for fold in folds.folds) - first


def split(
    checkpoints: Sequence[StoredCheckpoint], learned: int, jobs: int
) -> list[StoredCheckpoint]:
    """Return where to cut the log for segments of about the same number of interactions.

    Args:
        checkpoints: where it can be cut, oldest first.
        learned: how many interactions were learned where the first segment begins.
        jobs: how many segments there are to be.
    """
    share = max(1, (checkpoints[-1].learned - learned) // jobs)
    cuts: list[StoredCheckpoint] = []
    for checkpoint in checkpoints:
        if len(cuts) < jobs - 1 and checkpoint.learned - learned >= share * (len(cuts) + 1):
            cuts.append(checkpoint)
    return cuts


def _segments(
    first: list[tuple[StoredCheckpoint, bytes]], cuts: list[tuple[StoredCheckpoint, bytes]]
) -> list[Segment]:
    """Return the segments between cuts, each cut with the bytes of its checkpoint."""
    edges = [*([None] if not first else []), *first, *cuts]
    segments = []
    for number, edge in enumerate(edges):
        proven = [earlier[1] for earlier in edges[: number + 1] if earlier is not None]
        following = edges[number + 1] if number + 1 < len(edges) else None
        start = edge[0] if edge else None
        end = following[0] if following else None
        segments.append(Segment(number, start, end, proven[::-1]))
    return segments


@seldom_collecting()
def _verify_segment(
    address: LogAddress, segment: Segment, served: Sequence[ServedSnapshot], progress: OnLearned
) -> Verdicts:
    stored = address.open()
    proven = [decode_state(data) for data in segment.proven]
    past = ProvenPast(stored, proven)
    last: list[tuple[str, str]] = []

    def note_last(position: str, data: Callable[[], bytes]) -> None:
        if segment.end is not None and position == segment.end.position:
            last.append((position, digest(data())))

    fold = Fold(
        stored.history.blob,
        salt=address.salt,
        past=past,
        items=ItemsPast(address.items()),
        on_checkpoint=note_last,
    )
    if segment.start is not None:
        fold.resume(proven[0], past)
    first = fold.learned

    # The last segment goes on to the end of the log: past what the snapshots have yet.
    through = segment.end.position if segment.end else stored.history.end()
    verified = list(
        verify(
            fold,
            stored.history.encoded(fold.position, through),
            [snapshot for snapshot in served if _is_within(snapshot, segment)],
            build=this_build(),
            progress=lambda _, learned: progress(learned - first),
        )
    )

    # The bytes of its last checkpoint are what the next segment starts from.
    if segment.end is not None:
        same = (segment.end.position, segment.end.digest) in last
        name = f"checkpoint {segment.end.digest}"
        verdict: Any = "identical" if same else "different"
        error = 0.0 if same else float("inf")
        verified.append(Verified(name, segment.end.position, segment.end.learned, verdict, error))
    return verified, fold.learned - first


def _is_within(served: ServedSnapshot, segment: Segment) -> bool:
    at = log_order(served.snapshot.position)
    return (segment.start is None or at > log_order(segment.start.position)) and (
        segment.end is None or at <= log_order(segment.end.position)
    )


def _is_after(checkpoint: StoredCheckpoint, start: StoredCheckpoint) -> bool:
    return is_after(checkpoint.position, start.position)


def _begin(counts: Any) -> None:
    global _learned  # noqa: PLW0603 - shared memory comes to a new process by its initializer alone
    _learned = counts


def _verify_counted(
    address: LogAddress, segment: Segment, served: Sequence[ServedSnapshot]
) -> Verdicts:
    """Verify a segment, and count what it has learned in the memory that all processes share."""

    def count(learned: int) -> None:
        _learned[segment.number] = learned

    return _verify_segment(address, segment, served, count)


def _watch(counts: Any, progress: OnLearned, done: threading.Event) -> None:
    while not done.wait(POLL_S):
        progress(sum(counts))
