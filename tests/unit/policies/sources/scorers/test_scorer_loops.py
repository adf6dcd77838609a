"""The compiled loops of scorers say what numpy says of the same numbers."""

import numpy as np
import pytest

from bandits.kernels.actions import all_within
from policies.sources.loops import values_at
from policies.sources.scorers.loops import all_there, logits_of_rows


@pytest.mark.parametrize("factors", [0, 3, 8, 21])
def test_a_logit_is_the_sum_of_what_is_kept_times_what_is_asked(factors):
    """Rows of a table, in any order, add up as a product of matrices has them."""
    rng = np.random.default_rng(factors)
    hidden, crossed = rng.normal(size=5).astype(np.float32), rng.normal(size=9).astype(np.float32)
    vector = rng.normal(size=factors).astype(np.float32)
    kept = rng.normal(size=(12, 1 + factors + 5 + 9)).astype(np.float32)
    rows = rng.integers(12, size=30)

    logits, inner = logits_of_rows(kept, rows, np.float32(0.5), vector, hidden, crossed)

    taken = kept[rows].astype(np.float64)
    first = 1 + factors
    expected = 0.5 + taken[:, 0] + taken[:, 1:first] @ vector + taken[:, first + 5 :] @ crossed
    assert logits == pytest.approx(expected, abs=1e-4)
    first_layer = np.maximum(hidden + taken[:, first : first + 5], 0)
    assert inner == pytest.approx(first_layer, abs=1e-6)


def test_what_is_not_there_is_told_from_what_is():
    """A row that is absent, that is beyond the table, or that is none, is not there."""
    there = np.array([True, False, True, False])  # the last stands for all beyond
    assert all_there(there, np.array([0, 2, 0]))
    for row in (1, 3, 7, -1):
        assert not all_there(there, np.array([0, row]))


def test_a_place_of_nothing_has_no_value_and_no_score_is_beyond_all_bounds():
    """NaN is what an unknown item has; where every score has to be a number, it is refused."""
    found = values_at(np.array([1.5, -2.0], np.float32), np.array([1, -1, 0]))
    np.testing.assert_array_equal(found, np.array([-2.0, np.nan, 1.5], np.float32))

    assert all_within(found, 2.0, True)
    assert not all_within(found, 2.0, False)
    for beyond in (np.inf, -np.inf, 2.1, -2.1):
        assert not all_within(np.array([0.0, beyond], np.float32), 2.0, True)
    assert all_within(np.zeros(0, np.float32), 2.0, False)
