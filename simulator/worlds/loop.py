"""The whole loop in one process: decide, log, reward, join, learn, publish.

No server, no clock but the rounds'.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    PriorRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from bandits.types import Snapshot
from policies.artifacts.prior import PriorRows
from policies.artifacts.profiles import Profiles
from policies.candidate_pool import Pool, explicit_pool
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.profiles.known_user import KnownUser
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources.base import CandidateSource
from policies.spec import PRIOR_STRENGTH, PolicySpec
from policies.spec.checks import check_learner

SALT = b"simulation"


class World(Protocol):
    """Where requests come from and what choices earn.

    A world takes its randomness only from the generators it is given.
    """

    def request(self, rng: np.random.Generator) -> RankRequest:
        """Return the next request, without an event_id."""
        ...

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        """Return what a choice earns.

        Args:
            request: What was asked, as ``request`` returned it; it may have an event_id since.
            action_id: The action that was chosen.
            rng: What the world draws from.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Virtual time.

    Attributes:
        round_ms: How long a round takes.
        delay_ms: How much later a reward other than 0 comes, on average.
        lost: The share of such rewards that never comes.
    """

    round_ms: int = 10
    delay_ms: float = 1000.0
    lost: float = 0.0


@dataclass(slots=True, eq=False)
class Run:
    """The rewards of a run, round by round, and its log."""

    rewards: NDArray[np.float64]
    fold: Fold
    log: list[LogEntry] = field(default_factory=list)


def run_loop(  # noqa: C901 - the whole loop on one screen
    world: World,
    spec: PolicySpec,
    *,
    rounds: int,
    seed: int,
    sources: Sequence[CandidateSource] = (),
    pools: Mapping[str, Pool] | None = None,
    catalogue: Catalogue | None = None,
    prior: PriorRows | None = None,
    profiles: Profiles | None = None,
    known: Callable[[RankRequest], KnownUser | None] | None = None,
    timing: Timing | None = None,
    publish_every: int = 50,
    salt: bytes = SALT,
    progress: Callable[[int], None] | None = None,
    on_snapshot: Callable[[str, Snapshot], None] | None = None,
    settle: bool = False,
) -> Run:
    """Let a policy choose in ``world`` and learn from what comes back.

    Args:
        world: Where requests come from and what choices earn.
        spec: The policy.
        rounds: How many times it chooses.
        seed: Seed of the world's randomness and of delays and losses.
        sources: Candidate sources of the policy.
        pools: Candidates by user, for users whose sources have been asked already.
        catalogue: The policy's catalogue; None: an empty one.
        prior: What the policy's model is taught before its first decision, as strongly as the spec
            says.
        profiles: What sources know of users, by their pseudonyms under ``salt``.
        known: Gives what is known of who asks, for a policy with live profiles.
        timing: How long rounds and rewards take.
        publish_every: Rounds from one snapshot to the next.
        salt: What the policy's own chance derives from.
        progress: Told the number of rounds, every 500 rounds.
        on_snapshot: Told the name of every snapshot and the snapshot.
        settle: Whether to let the rewards that are under way after the last round come, and every
            window close, so that the log holds all there is to know.

    Raises:
        SpecError: The policy cannot learn here.
    """
    check_learner(spec)
    timing = timing or Timing()
    rng = np.random.default_rng(seed)
    catalogue = catalogue or Catalogue()
    blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
    fold = Fold(blobs.__getitem__, salt=salt)
    ranker = Ranker(spec, sources, salt=salt, profiles=profiles)
    ranker.offer(catalogue)
    run = Run(np.zeros(rounds), fold)
    due_rewards: list[tuple[int, int, RewardRecord]] = []
    asked_pools = dict(pools or {})

    def append(time_ms: int, record: LogRecord) -> None:
        previous = run.log[-1].id.split("-") if run.log else ("0", "0")
        sequence = int(previous[1]) + 1 if int(previous[0]) == time_ms else 0
        run.log.append(LogEntry(f"{time_ms}-{sequence}", record))
        fold.apply(run.log[-1:])

    blobs |= {} if prior is None else {prior.digest: prior.encoded}
    for first in _beginning(spec, catalogue, prior):
        append(1, first)

    with asyncio.Runner() as runner:
        # The runner's own run() would make the repr of each pool: a millisecond.
        loop = runner.get_loop()
        for number in range(rounds):
            now = (number + 1) * timing.round_ms
            while due_rewards and due_rewards[0][0] <= now:
                append(due_rewards[0][0], heapq.heappop(due_rewards)[2])

            if number % publish_every == 0:
                snapshot = fold.snapshot()
                ranker.serve(f"r{number}", snapshot)
                if on_snapshot is not None:
                    on_snapshot(f"r{number}", snapshot)

            request = world.request(rng)
            request = msgspec.structs.replace(request, event_id=f"{seed}.{number}")
            if known is None:
                decision = ranker.decide(request, _pool(loop, ranker, request, asked_pools))
            else:
                decision = loop.run_until_complete(ranker.rank(request, known(request)))
            append(now, decision)

            # A reward of 0 is not sent: the window closes without one.
            chosen = decision.action_ids[decision.chosen[0]]
            run.rewards[number] = reward = world.reward(request, chosen, rng)
            if reward != 0.0 and rng.random() >= timing.lost:
                due = now + 1 + int(rng.exponential(timing.delay_ms))
                record = RewardRecord(decision.event_id, reward, f"{number}")
                heapq.heappush(due_rewards, (due, number, record))

            if progress is not None and number % 500 == 0:
                progress(number)

    if settle:
        while due_rewards:
            append(due_rewards[0][0], heapq.heappop(due_rewards)[2])
        append(run.log[-1].time_ms + fold.join.rule.window_ms, TickRecord())
    return run


def _beginning(
    spec: PolicySpec, catalogue: Catalogue, prior: PriorRows | None
) -> Iterator[LogRecord]:
    """Yield what a log begins with: the build, the policy, the catalogue and the prior."""
    yield BuildRecord({"fold": str(FOLD)})
    yield SpecRecord(spec.digest, "")
    yield CatalogueRecord(catalogue.digest)

    strength = PRIOR_STRENGTH if spec.prior_strength is None else spec.prior_strength
    if prior is not None and strength:
        yield PriorRecord(prior.digest, strength)


def _pool(
    loop: asyncio.AbstractEventLoop, ranker: Ranker, request: RankRequest, pools: dict[str, Pool]
) -> Pool:
    """Return the candidates of a request.

    A user's candidates do not change within a run, so the sources are asked once per user, unless
    requests say what else they are to look at. A request that brings its actions waits for nobody:
    an event loop's turn would be a quarter of its round.
    """
    if request.actions is not None:
        return explicit_pool(request.actions, frozenset(request.exclude))
    if request.user_id is None or request.history or request.exclude:
        return loop.run_until_complete(ranker.pool(request))
    if request.user_id not in pools:
        pools[request.user_id] = loop.run_until_complete(ranker.pool(request))
    return pools[request.user_id]
