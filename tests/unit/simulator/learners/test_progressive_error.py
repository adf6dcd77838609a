"""Method progressive: its standard error is that of a mean of the rows' products."""

import numpy as np
import pytest

from bandits.exploration import EpsilonGreedy
from bandits.ridge.config import RidgeConfig
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive
from simulator.logs.rows import LoggedDecision, MemoryPiece


def test_the_standard_error_is_that_of_a_mean():
    """Of a policy that never learns anything: every product is reward x pmf / propensity."""
    rng = np.random.default_rng(3)
    rows = [
        LoggedDecision(f"e{n}", {}, ["a", "b"], int(rng.integers(2)), 0.5, float(rng.normal()))
        for n in range(50)
    ]
    spec = PolicySpec("p", learner=RidgeConfig(), exploration=EpsilonGreedy(1.0), floor=0.0)
    done = progressive(spec, [MemoryPiece(rows)])
    rewards = np.array([row.reward for row in rows])
    assert done.ips == pytest.approx(rewards.mean(), abs=1e-12)
    assert done.ips_stderr == pytest.approx(rewards.std(ddof=1) / np.sqrt(50), rel=1e-9)
    assert progressive(spec, [MemoryPiece(rows[:1])]).ips_stderr == np.inf
