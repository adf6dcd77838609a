"""The whole loop in one process: decide, log, reward, join, learn, publish.

No server, no clock but the rounds'.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from bandits.types import Snapshot
from policies.admission import check_learner
from policies.catalogue import Catalogue
from policies.fold.fold import Fold
from policies.pool import Pool, explicit_pool
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources.base import CandidateSource
from policies.spec import PolicySpec

SALT = b"simulation"


class World(Protocol):
    """Where requests come from and what choices earn.

    Randomness only from the generators it is given.
    """

    def request(self, rng: np.random.Generator) -> RankRequest:
        """The next request, without an event_id."""
        ...

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        """What choosing ``action_id`` earns."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Virtual time: a round takes ``round_ms``.

    A reward other than 0 comes ``delay_ms`` later on average.
    """

    round_ms: int = 10
    delay_ms: float = 1000.0
    lost: float = 0.0


@dataclass(slots=True, eq=False)
class Run:
    """What a run earned, round by round, and its log."""

    rewards: NDArray[np.float64]
    fold: Fold
    log: list[LogEntry] = field(default_factory=list)


def run_loop(
    world: World,
    spec: PolicySpec,
    *,
    rounds: int,
    seed: int,
    sources: Sequence[CandidateSource] = (),
    pools: Mapping[str, Pool] | None = None,
    catalogue: Catalogue | None = None,
    timing: Timing | None = None,
    publish_every: int = 50,
    salt: bytes = SALT,
    progress: Callable[[int], None] | None = None,
    on_snapshot: Callable[[str, Snapshot], None] | None = None,
    settle: bool = False,
) -> Run:
    """Let a policy choose ``rounds`` times in ``world`` and learn from what comes back.

    ``pools``: candidates by user, for users whose sources have been asked already. ``settle``: let
    the rewards that are under way after the last round come, and every window close, so that the
    log holds all there is to know.
    """
    check_learner(spec)
    timing = timing or Timing()
    rng = np.random.default_rng(seed)
    catalogue = catalogue or Catalogue()
    blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
    fold, ranker = Fold(blobs.__getitem__, salt=salt), Ranker(spec, sources, salt=salt)
    run = Run(np.zeros(rounds), fold)
    pending: list[tuple[int, int, RewardRecord]] = []
    known = dict(pools or {})

    def append(time_ms: int, record: LogRecord) -> None:
        previous = run.log[-1].id.split("-") if run.log else ("0", "0")
        sequence = int(previous[1]) + 1 if int(previous[0]) == time_ms else 0
        run.log.append(LogEntry(f"{time_ms}-{sequence}", record))
        fold.apply(run.log[-1:])

    append(1, BuildRecord({"fold": str(FOLD)}))
    append(1, SpecRecord(spec.digest, ""))
    append(1, CatalogueRecord(catalogue.digest))
    with asyncio.Runner() as runner:
        for number in range(rounds):
            now = (number + 1) * timing.round_ms
            while pending and pending[0][0] <= now:
                append(pending[0][0], heapq.heappop(pending)[2])
            if number % publish_every == 0:
                snapshot = fold.snapshot()
                ranker.serve(f"r{number}", snapshot, fold.catalogue)
                if on_snapshot is not None:
                    on_snapshot(f"r{number}", snapshot)
            request = world.request(rng)
            request = msgspec.structs.replace(request, event_id=f"{seed}.{number}")
            decision = ranker.decide(request, _pool(runner, ranker, request, known))
            append(now, decision)
            run.rewards[number] = reward = world.reward(
                request, decision.action_ids[decision.chosen[0]], rng
            )
            if reward != 0.0 and rng.random() >= timing.lost:
                due = now + 1 + int(rng.exponential(timing.delay_ms))
                heapq.heappush(
                    pending, (due, number, RewardRecord(decision.event_id, reward, f"{number}"))
                )
            if progress is not None and number % 500 == 0:
                progress(number)
    if settle:
        while pending:
            append(pending[0][0], heapq.heappop(pending)[2])
        append(run.log[-1].time_ms + fold.join.rule.window_ms, TickRecord())
    return run


def _pool(
    runner: asyncio.Runner, ranker: Ranker, request: RankRequest, pools: dict[str, Pool]
) -> Pool:
    """A user's candidates do not change within a run, so the sources are asked once per user.

    A request that brings its actions waits for nobody: an event loop's turn would be a quarter of
    its round.
    """
    if request.actions is not None:
        return explicit_pool(request.actions, frozenset(request.exclude))
    if request.user_id is None:
        return runner.run(ranker.pool(request))
    if request.user_id not in pools:
        pools[request.user_id] = runner.run(ranker.pool(request))
    return pools[request.user_id]
