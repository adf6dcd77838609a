"""The uplift's interval where the truth is known: it holds at every look, and finds what is there.

``python -m benchmarks.learning.uplift`` measures the same in 400 runs.
"""

import numpy as np
import pytest

from benchmarks.learning.uplift import Run, run_of

RUNS = 60
WORLD = {"uplifts": [0.3] * 4, "visits": 30_000, "users": 3_000}


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [run_of(seed, changes=WORLD, bounded=True) for seed in range(RUNS)]


def test_it_holds_at_all_looks(runs):
    """Of 60 runs at most 8 miss: more would come by chance with 2e-3 if 5% missed."""
    assert sum(run.missed for run in runs) <= 8


def test_the_usual_interval_does_not(runs):
    """Else the test above would show nothing: it misses in a quarter of the runs or more."""
    assert sum(run.usual_missed for run in runs) > RUNS / 8


def test_what_is_there_is_found(runs):
    """A true +30% lies outside of 0 by the end in most runs, and never below it."""
    assert np.mean([np.isfinite(run.found) for run in runs]) > 0.5
    assert not any((run.high < 0.0).any() for run in runs)
