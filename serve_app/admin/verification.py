"""A verification of one policy's whole log, on several cores: each folds from one checkpoint to another.

A part proves that folding from its first checkpoint gives its snapshots and the bytes of its last
checkpoint. The first part starts from nothing; so all parts together prove what one fold of the
whole log would.
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
from policies.fold.all_partitions import Together, verify_together
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.fold.verify import ServedSnapshot, Verified, verify
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.store.checkpoints import StoredCheckpoint
from serve_app.store.clients import blocking_client
from serve_app.store.history import History
from serve_app.store.keys import partitions

POLL_S = 0.1
Progress = Callable[[int], None]

_learned: Any = None


class Segment(msgspec.Struct, frozen=True):
    """From one checkpoint (None: the start of the log) to another (None: the last snapshot).

    ``proven``: the bytes of the checkpoints that the parts before this one prove, the newest first;
    this part starts from the first of them. They are taken along because a learner that runs
    forgets old checkpoints meanwhile.
    """

    number: int
    start: StoredCheckpoint | None
    end: StoredCheckpoint | None
    proven: list[bytes] = []


class Work(msgspec.Struct, frozen=True):
    """Where the log is, for a process that verifies a part of it."""

    url: str
    policy: str
    archive: str
    salt: bytes

    def open(self) -> StoredPolicy:
        """A connection of this process's own."""
        client = blocking_client(self.url)
        return StoredPolicy(
            client, self.policy, ArchiveReader(self.archive, self.policy) if self.archive else None
        )

    def histories(self, count: int) -> list[History]:
        """The log of each of ``count`` partitions."""
        client = blocking_client(self.url)
        folders = [archive_folder(self.policy, number, count) for number in range(count)]
        archives = [
            ArchiveReader(self.archive, folder) if self.archive else None for folder in folders
        ]
        return [
            History(client, *each)
            for each in zip(partitions(self.policy, count), archives, strict=True)
        ]


class ProvenPast:
    """The log behind a part, for rollbacks: it relies on no checkpoint but the proven ones."""

    def __init__(self, stored: StoredPolicy, proven: Sequence[FoldState]) -> None:
        self.entries = stored.history.entries
        self._proven = proven

    def checkpoint(self, position: str) -> FoldState | None:
        """The newest proven checkpoint at or before a position."""
        return next((each for each in self._proven if has_reached(position, each.position)), None)


def verify_policy(
    work: Work,
    served: Sequence[ServedSnapshot],
    *,
    start: StoredCheckpoint | None = None,
    jobs: int = 1,
    progress: Progress,
) -> tuple[list[Verified], int]:
    """Every snapshot past ``start`` compared with the replay, oldest first.

    And how many interactions were learned.

    ``jobs``: processes. Across builds only one can be used: a checkpoint's bytes are those of the
    build that made it. Of several partitions all logs are folded together, by one process, from the
    start.

    Raises:
        SnapshotError: ``start`` is given, and there are several partitions.
    """
    stored = work.open()
    if stored.partitions > 1:
        if start is not None:
            raise SnapshotError(
                "a policy with several partitions is verified from the start", "from"
            )
        return _verify_together(work, stored.partitions, served, progress)
    first = [(start, stored.checkpoints.load(start))] if start is not None else []
    known = [
        each for each in reversed(stored.checkpoints.list()) if start is None or _after(each, start)
    ]
    if jobs == 1 or not known or any(each.build != this_build() for each in served):
        return _verify_part(work, _parts(first, [])[0], served, progress)
    cuts = []
    for each in split(known, 0 if start is None else start.learned, jobs):
        with contextlib.suppress(SnapshotError):  # forgotten in this moment: one part less
            cuts.append((each, stored.checkpoints.load(each)))
    parts = _parts(first, cuts)
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", len(parts))
    with ProcessPoolExecutor(jobs - 1, context, _begin, (counts,)) as pool:
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(counts, progress, done), daemon=True)
        watch.start()
        others = [pool.submit(_in_process, work, part, list(served)) for part in parts[1:]]
        _begin(counts)
        own = _in_process(work, parts[0], served)  # meanwhile the other processes start
        results = [own, *(each.result() for each in others)]
        done.set()
        watch.join()
    return [each for found, _ in results for each in found], sum(learned for _, learned in results)


@contextlib.contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for garbage in cycles seldom: a fold makes none, but its open decisions are looked through each time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@seldom_collecting()
def _verify_together(
    work: Work, count: int, served: Sequence[ServedSnapshot], progress: Progress
) -> tuple[list[Verified], int]:
    histories = work.histories(count)
    # partition 0 first: what its merges name is in the others by then
    ends = [history.end() for history in histories]
    together = Together(histories, salt=work.salt, ends=ends)
    found = list(verify_together(together, served, build=this_build(), progress=progress))
    return found, sum(fold.learned for fold in together.folds)


def split(known: Sequence[StoredCheckpoint], learned: int, jobs: int) -> list[StoredCheckpoint]:
    """Where to cut for parts of about the same number of interactions.

    ``known`` is oldest first.
    """
    share = max(1, (known[-1].learned - learned) // jobs)
    cuts: list[StoredCheckpoint] = []
    for each in known:
        if len(cuts) < jobs - 1 and each.learned - learned >= share * (len(cuts) + 1):
            cuts.append(each)
    return cuts


def _parts(
    first: list[tuple[StoredCheckpoint, bytes]], cuts: list[tuple[StoredCheckpoint, bytes]]
) -> list[Segment]:
    edges = [*([None] if not first else []), *first, *cuts]
    parts = []
    for number, edge in enumerate(edges):
        proven = [data for each in edges[: number + 1] if each is not None for data in each[1:]]
        following = edges[number + 1] if number + 1 < len(edges) else None
        parts.append(
            Segment(
                number, edge[0] if edge else None, following[0] if following else None, proven[::-1]
            )
        )
    return parts


@seldom_collecting()
def _verify_part(
    work: Work, part: Segment, served: Sequence[ServedSnapshot], progress: Callable[[int], None]
) -> tuple[list[Verified], int]:
    stored = work.open()
    proven = [decode_state(data) for data in part.proven]
    replay = ProvenPast(stored, proven)
    last: list[tuple[str, str]] = []

    def note(position: str, data: Callable[[], bytes]) -> None:
        if part.end is not None and position == part.end.position:
            last.append((position, digest(data())))

    fold = Fold(stored.history.blob, salt=work.salt, past=replay, on_checkpoint=note)
    if part.start is not None:
        fold.resume(proven[0], replay)
    first = fold.learned
    own = [each for each in served if _within(each, part)]
    # also what no snapshot has yet
    through = part.end.position if part.end else stored.history.end()
    entries = stored.history.entries(fold.position, through)
    found = list(
        verify(
            fold,
            entries,
            own,
            build=this_build(),
            progress=lambda _, learned: progress(learned - first),
        )
    )
    if part.end is not None:
        same = (part.end.position, part.end.digest) in last
        name = f"checkpoint {part.end.digest}"
        verdict: Any = "identical" if same else "different"
        found.append(
            Verified(
                name, part.end.position, part.end.learned, verdict, 0.0 if same else float("inf")
            )
        )
    return found, fold.learned - first


def _within(served: ServedSnapshot, part: Segment) -> bool:
    at = log_order(served.snapshot.position)
    return (part.start is None or at > log_order(part.start.position)) and (
        part.end is None or at <= log_order(part.end.position)
    )


def _after(stored: StoredCheckpoint, start: StoredCheckpoint) -> bool:
    return is_after(stored.position, start.position)


def _begin(counts: Any) -> None:
    global _learned  # noqa: PLW0603 - shared memory comes to a new process by its initializer alone
    _learned = counts


def _in_process(
    work: Work, part: Segment, served: Sequence[ServedSnapshot]
) -> tuple[list[Verified], int]:
    def count(learned: int) -> None:
        _learned[part.number] = learned

    return _verify_part(work, part, served, count)


def _watch(counts: Any, progress: Progress, done: threading.Event) -> None:
    while not done.wait(POLL_S):
        progress(sum(counts))
