"""Does it learn? Seeded worlds with known truth.

Each test states its false-alarm rate or its margin's origin.
"""

import numpy as np
import pytest

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, SquareCB
from bandits.log.join import JoinRule
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.spec import PolicySpec
from simulator.worlds.loop import Timing, run_loop
from simulator.worlds.synthetic import SyntheticWorld

RIDGE = RidgeConfig(interactions=[("context", "item")])
VW = VwConfig(args="--cb_explore_adf --cb_type mtr -q ci --learning_rate 0.5")
JOIN = JoinRule(window_s=2)
POLICIES = {
    "lints": (RIDGE, LinTs(scale=0.3, draws=50)),
    "linucb": (RIDGE, LinUcb(alpha=0.5)),
    "ridge_squarecb": (RIDGE, SquareCB()),
    "vw_epsilon": (VW, EpsilonGreedy(0.1)),
}
ROUNDS = 1500


def run(kind: str, seed: int, timing: Timing, drift: float = 0.0) -> np.ndarray:
    learner, exploration = POLICIES[kind]
    spec = PolicySpec("synthetic", learner=learner, exploration=exploration, floor=0.02, join=JOIN)
    world = SyntheticWorld(seed, drift=drift)
    return run_loop(world, spec, rounds=ROUNDS, seed=seed, timing=timing).rewards


def assert_beats_chance(rewards: np.ndarray) -> None:
    """Chance earns 1/2; 5 standard errors above it over the second half, false alarm 3e-7."""
    late = rewards[ROUNDS // 2 :]
    assert late.mean() > 0.5 + 5 * 0.5 / np.sqrt(late.size)


@pytest.mark.parametrize("kind", POLICIES)
def test_every_learner_beats_chance(kind):
    assert_beats_chance(run(kind, 1, Timing()))


@pytest.mark.parametrize(
    "timing", [Timing(delay_ms=1900), Timing(lost=0.3)], ids=["delayed", "lost"]
)
def test_it_learns_although_rewards_are_late_or_lost(timing):
    assert_beats_chance(run("lints", 1, timing))


def test_a_run_is_reproducible():
    first, second = (run("lints", 3, Timing()) for _ in range(2))
    assert (first == second).all()


@pytest.mark.slow
def test_drift_costs():
    """With the truth turning a full circle, all of history teaches less than without drift.

    Paired over 5 seeds; under no effect all 5 differences are positive with probability 1/32 at
    most.
    """
    differences = [
        run("lints", seed, Timing()).mean()
        - run("lints", seed, Timing(), drift=2 * np.pi / ROUNDS).mean()
        for seed in range(5)
    ]
    assert min(differences) > 0
