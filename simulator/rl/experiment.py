"""When does looking further than one reward pay? RL, the best myopic bandit and the truth, side by side.

A policy of sessions (PPO) and a bandit are trained on the same number of decisions from the same
features; then both, and a policy that is told every P(click) and shows the highest, play the same
sessions: the same users, the same chance. A cell is one world, one seed and one policy, and knows
nothing of the others.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError
from bandits.exploration import EpsilonGreedy, Exploration, Greedy, LinTs
from bandits.ridge.config import RidgeConfig
from bandits.statistics.intervals import z_of
from bandits.types import Float64, Policy
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec
from simulator.rl.env import session_world
from simulator.sessions.optimum import myopic_return, optimal_return, value_of
from simulator.sessions.play import SALT, KnowsClicks, play, train_bandit
from simulator.sessions.satiation import Levels, SatiationWorld
from simulator.sessions.world import USE, SessionWorld, featurise_session

FLOOR = 0.01
"""Exploration of everything that is played for the comparison."""
TEMPERATURE = 0.1
"""Of the trained network's softmax when it is played, chosen in a world of another seed (100)."""
TEST_SEED = 1_000_000
RL, BANDIT, MYOPIC = "rl", "bandit", "knows clicks"
_CONTEXT_CROSSED = [("context", "features"), ("context", "scores")]
_ALL_CROSSED = [*_CONTEXT_CROSSED, ("features", "scores")]
_VW = "--cb_explore_adf --cb_type mtr -q cf -q cs -q fs"
GRID: Mapping[str, tuple[RidgeConfig | VwConfig, Exploration]] = {
    "ridge, epsilon 0.1": (RidgeConfig(action_bias=False), EpsilonGreedy(0.1)),
    "ridge, epsilon 0.02": (RidgeConfig(action_bias=False), EpsilonGreedy(0.02)),
    "ridge, crossed, epsilon 0.1": (
        RidgeConfig(action_bias=False, interactions=_CONTEXT_CROSSED),
        EpsilonGreedy(0.1),
    ),
    "ridge, all crossed, epsilon 0.1": (
        RidgeConfig(action_bias=False, interactions=_ALL_CROSSED),
        EpsilonGreedy(0.1),
    ),
    "ridge, all crossed, LinTS 0.3": (
        RidgeConfig(action_bias=False, interactions=_ALL_CROSSED),
        LinTs(0.3, draws=50),
    ),
    "ridge, item biases, epsilon 0.1": (RidgeConfig(interactions=_ALL_CROSSED), EpsilonGreedy(0.1)),
    "VW, all crossed, epsilon 0.1": (VwConfig(_VW), EpsilonGreedy(0.1)),
    "VW, constant rate, epsilon 0.1": (VwConfig(f"{_VW} --power_t 0 -l 0.05"), EpsilonGreedy(0.1)),
}
"""Bandits that were tried, in a world of another seed than those of the comparison: ``tune_bandits`` says what they earn."""
TUNED = {
    "satiation": "ridge, epsilon 0.1",
    "steady": "ridge, epsilon 0.1",
    "small": "ridge, epsilon 0.1",
    "movielens": "ridge, epsilon 0.1",
}
"""The one RL is compared with in each world. Why this one: docs/benchmarks/sessions.md."""


def bandit_named(name: str) -> PolicySpec:
    """One of GRID."""
    learner, exploration = GRID[name]
    return PolicySpec(
        "bandit", use=list(USE), learner=learner, exploration=exploration, floor=FLOOR
    )


def tune_bandits(
    world: str, steps: int, sessions: int, seeds: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """What each bandit of the grid earns after ``steps`` decisions: the mean over the worlds of these seeds."""
    worlds = [session_world(world, seed) for seed in seeds]
    for name in GRID:
        spec = bandit_named(name)
        policies = [
            load_policy(without_exploration(spec), train_bandit(each, spec, steps, 1))
            for each in worlds
        ]
        played = [play(*pair, sessions, TEST_SEED) for pair in zip(worlds, policies, strict=True)]
        yield name, float(np.mean([each.returns.mean() for each in played]))


class SessionCell(msgspec.Struct, frozen=True):
    """``policy``: rl, bandit or knows clicks.

    ``steps``: decisions to train on; ``sessions``: played afterwards.
    """

    world: str
    seed: int
    policy: str
    steps: int
    sessions: int
    gamma: float = 0.97


class SessionCellResult(msgspec.Struct, frozen=True):
    """``mean``: return of a session, ``length``: its decisions.

    ``exact``: in the small world, the expected return of this policy and of the best there are,
    without chance. ``curve``: decisions and mean return, of RL's training. ``seconds`` of processor
    time: of training, and playing.
    """

    cell: SessionCell
    mean: float
    length: float
    exact: dict[str, float]
    curve: list[tuple[int, float]]
    trained_s: float
    played_s: float


class ReturnRatio(msgspec.Struct, frozen=True):
    """RL's mean return over another's, and an interval at 95% over the seeds, which are what is drawn."""

    world: str
    gamma: float
    against: str
    value: float
    low: float
    high: float
    seeds: int


def run_session_cell(cell: SessionCell) -> SessionCellResult:
    """Train, then play.

    Raises:
        InvalidFieldError: there is no such world or policy.
    """
    world, began = session_world(cell.world, cell.seed), time.process_time()
    curve: list[tuple[int, float]] = []
    policy: Policy | KnowsClicks
    if cell.policy == RL:
        policy, curve = _trained_rl(cell)
    elif cell.policy == BANDIT:
        policy = _trained_bandit(cell, world)
    elif cell.policy == MYOPIC and isinstance(world, SatiationWorld):
        policy = KnowsClicks(FLOOR)
    else:
        raise InvalidFieldError(
            f"there is no policy {cell.policy!r} in the world {cell.world}", "policy"
        )
    trained = time.process_time()
    played = play(world, policy, cell.sessions, TEST_SEED + cell.seed)
    return SessionCellResult(
        cell,
        float(played.returns.mean()),
        float(played.lengths.mean()),
        {} if isinstance(policy, KnowsClicks) else exact_values(world, cell.policy, policy),
        curve,
        trained - began,
        time.process_time() - trained,
    )


def _trained_rl(cell: SessionCell) -> tuple[Policy, list[tuple[int, float]]]:
    from simulator.rl.train import Training, train_rl  # noqa: PLC0415 - torch and RLlib, only where they train

    trained = train_rl(
        Training(
            world=cell.world,
            world_seed=cell.seed,
            seed=cell.seed,
            steps=cell.steps,
            gamma=cell.gamma,
        )
    )
    spec = trained.spec(temperature=TEMPERATURE, floor=FLOOR)
    snapshot = make_learner(spec, salt=SALT, checkpoint=trained.model(spec).checkpoint).snapshot(
        f"{cell.steps}-0"
    )
    return load_policy(spec, snapshot), [
        (point.steps, point.session_return) for point in trained.curve
    ]


def _trained_bandit(cell: SessionCell, world: SessionWorld) -> Policy:
    spec = bandit_named(TUNED[cell.world])
    return load_policy(without_exploration(spec), train_bandit(world, spec, cell.steps, cell.seed))


def without_exploration(spec: PolicySpec) -> PolicySpec:
    """The policy that shows what it has learned, and explores no more than the floor."""
    exploration: Exploration = Greedy()
    return msgspec.structs.replace(spec, exploration=exploration)


def exact_values(world: SessionWorld, name: str, policy: Policy) -> dict[str, float]:
    """Of the small world: the expected return of the policy, of the best myopic one, and the optimum."""
    if not isinstance(world, SatiationWorld):
        return {}
    try:
        best = {"optimum": optimal_return(world), MYOPIC: myopic_return(world)}
    except InvalidFieldError:
        return {}
    return {
        **best,
        name: value_of(world, lambda group, levels: _choice(world, policy, group, levels)),
    }


def _choice(world: SatiationWorld, policy: Policy, group: int, levels: Levels) -> Float64:
    """float64[items]: what a policy would show a user of this group with these satiations."""
    scores = world.affinities[group][world.topics]
    request = world.request(group, np.arange(len(world.ids)), scores, levels)
    return policy.pmf(*featurise_session(world, request))


def ratios(results: Iterable[SessionCellResult]) -> list[ReturnRatio]:
    """By world, gamma and peer, of the seeds that have both; in the order they come."""
    done = list(results)
    groups: dict[tuple[str, float, str], list[float]] = {}
    for mine in done:
        for its in done:
            same = (mine.cell.world, mine.cell.seed) == (its.cell.world, its.cell.seed)
            if same and mine.cell.policy == RL and its.cell.policy != RL:
                at = (mine.cell.world, mine.cell.gamma, its.cell.policy)
                groups.setdefault(at, []).append(mine.mean / its.mean)
    return [_ratio(*at, np.log(np.array(values))) for at, values in groups.items()]


def _ratio(world: str, gamma: float, against: str, logs: Float64) -> ReturnRatio:
    """Geometric mean, with Student's interval for its logarithm."""
    count = len(logs)
    mean = float(logs.mean())
    radius = (
        STUDENT.get(count, z_of(0.05)) * float(logs.std(ddof=1)) / np.sqrt(count)
        if count > 1
        else np.inf
    )
    return ReturnRatio(
        world,
        gamma,
        against,
        float(np.exp(mean)),
        float(np.exp(mean - radius)),
        float(np.exp(mean + radius)),
        count,
    )


STUDENT = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
}
"""Quantiles 0.975 of Student's distribution with n - 1 degrees of freedom, by n."""
