"""When does looking further than one reward pay? RL beside the best myopic bandit and the truth.

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
"""Temperature of the trained network's softmax when it is played.

It was chosen in a world of another seed (100).
"""
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
"""Bandits that were tried, in a world of another seed than those of the comparison.

``tune_bandits`` says what they earn.
"""
TUNED = {
    "satiation": "ridge, epsilon 0.1",
    "steady": "ridge, epsilon 0.1",
    "small": "ridge, epsilon 0.1",
    "movielens": "ridge, epsilon 0.1",
}
"""The one RL is compared with in each world. Why this one: docs/benchmarks/sessions.md."""


def bandit_named(name: str) -> PolicySpec:
    """Return one of GRID."""
    learner, exploration = GRID[name]
    return PolicySpec(
        "bandit", use=list(USE), learner=learner, exploration=exploration, floor=FLOOR
    )


def tune_bandits(
    world: str, steps: int, sessions: int, seeds: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Yield what each bandit of the grid earns: its name, and its mean return over some worlds.

    Args:
        world: The worlds' name.
        steps: Decisions that each bandit learns from first.
        sessions: Sessions that are then played in each world.
        seeds: Seeds of the worlds.
    """
    worlds = [session_world(world, seed) for seed in seeds]
    for name in GRID:
        spec = bandit_named(name)
        returns = []
        for one in worlds:
            policy = load_policy(without_exploration(spec), train_bandit(one, spec, steps, 1))
            returns.append(play(one, policy, sessions, TEST_SEED).returns.mean())
        yield name, float(np.mean(returns))


class SessionCell(msgspec.Struct, frozen=True):
    """A part of the comparison: one world, one seed and one policy.

    Attributes:
        policy: One of RL, BANDIT and MYOPIC.
        steps: Decisions to train on.
        sessions: Sessions played afterwards.
    """

    world: str
    seed: int
    policy: str
    steps: int
    sessions: int
    gamma: float = 0.97


class SessionCellResult(msgspec.Struct, frozen=True):
    """The results of a cell.

    Attributes:
        mean: Mean return of a session.
        length: Mean number of its decisions.
        exact: In the small world, the expected return of this policy and of the best there are,
            without chance.
        curve: Decisions and mean return during RL's training.
        trained_s: Processor time of training, in seconds.
        played_s: Processor time of playing, in seconds.
    """

    cell: SessionCell
    mean: float
    length: float
    exact: dict[str, float]
    curve: list[tuple[int, float]]
    trained_s: float
    played_s: float


class ReturnRatio(msgspec.Struct, frozen=True):
    """RL's mean return over another policy's, with a 95% interval over the seeds.

    The seeds are what is drawn.
    """

    world: str
    gamma: float
    against: str
    value: float
    low: float
    high: float
    seeds: int


def run_session_cell(cell: SessionCell) -> SessionCellResult:
    """Train the policy of a cell, then play.

    Raises:
        InvalidFieldError: There is no such world or policy.
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
        mean=float(played.returns.mean()),
        length=float(played.lengths.mean()),
        exact={} if isinstance(policy, KnowsClicks) else exact_values(world, cell.policy, policy),
        curve=curve,
        trained_s=trained - began,
        played_s=time.process_time() - trained,
    )


def _trained_rl(cell: SessionCell) -> tuple[Policy, list[tuple[int, float]]]:
    # torch and RLlib, only where they train
    from simulator.rl.train import Training, train_rl  # noqa: PLC0415

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
    """Return the policy that shows what it has learned, and explores no more than the floor."""
    exploration: Exploration = Greedy()
    return msgspec.structs.replace(spec, exploration=exploration)


def exact_values(world: SessionWorld, name: str, policy: Policy) -> dict[str, float]:
    """Return expected returns without chance: of the policy, the best myopic one, and the optimum.

    They are known in the small world; elsewhere there are none.

    Args:
        world: The world.
        name: The policy's name among the values.
        policy: The policy.
    """
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
    """Return float64[items]: what a policy would show a user of this group and satiations."""
    scores = world.affinities[group][world.topics]
    request = world.request(group, np.arange(len(world.ids)), scores, levels)
    return policy.pmf(*featurise_session(world, request))


def ratios(results: Iterable[SessionCellResult]) -> list[ReturnRatio]:
    """Return RL's ratios by world, gamma and peer, over the seeds that have both.

    They are in the order the results come.
    """
    done = list(results)
    groups: dict[tuple[str, float, str], list[float]] = {}
    for rl in (result for result in done if result.cell.policy == RL):
        for peer in (result for result in done if result.cell.policy != RL):
            if (rl.cell.world, rl.cell.seed) == (peer.cell.world, peer.cell.seed):
                at = (rl.cell.world, rl.cell.gamma, peer.cell.policy)
                groups.setdefault(at, []).append(rl.mean / peer.mean)
    return [_ratio(*at, np.log(np.array(values))) for at, values in groups.items()]


def _ratio(world: str, gamma: float, against: str, logs: Float64) -> ReturnRatio:
    """Return the geometric mean, with Student's interval for its logarithm."""
    count = len(logs)
    mean = float(logs.mean())
    radius = np.inf
    if count > 1:
        quantile = STUDENT.get(count, z_of(0.05))
        radius = quantile * float(logs.std(ddof=1)) / np.sqrt(count)

    return ReturnRatio(
        world,
        gamma,
        against,
        value=float(np.exp(mean)),
        low=float(np.exp(mean - radius)),
        high=float(np.exp(mean + radius)),
        seeds=count,
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
