"""Verdicts in words: what is wrong with an estimate, and what would mend it."""

import numpy as np
import pytest

from simulator.ope.batch import OpeBatch
from simulator.ope.diagnostics import Diagnostics
from simulator.ope.verdict import judge


def judged(count: int, weights: list[float]) -> tuple[str, str]:
    weight = np.resize(weights, count)
    rows = OpeBatch(
        np.arange(count, dtype=np.uint64), np.ones(count), np.full(count, 0.5), 0.5 * weight
    )
    return judge(Diagnostics.of(rows, weight, 0.0), 0.1)


@pytest.mark.parametrize(("count", "verdict"), [(20, "unreliable"), (60, "weak")])
def test_few_rows_that_all_count_are_called_few(count, verdict):
    """More exploration would make no more of them count."""
    assert judged(count, [1.0]) == (
        verdict,
        f"{count} rows are few: use more of the log, or wait until it has more",
    )


def test_many_rows_of_which_few_count_ask_for_exploration():
    verdict, reason = judged(200, [5.0, *[0.5] * 8])
    assert verdict == "weak"
    assert "of 200 rows only" in reason
    assert "exploration" in reason
