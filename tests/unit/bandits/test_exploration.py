import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import scores

from bandits.exploration import EpsilonGreedy, Greedy, Softmax, SquareCB, greedy, votes, with_floor
from bandits.types import check_pmf

EXPLORATIONS = [EpsilonGreedy(0.1), Softmax(0.5), SquareCB(10.0, 0.5), Greedy()]


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda e: type(e).__name__)
@given(values=scores, learned=st.integers(0, 10**6), floor=st.floats(0, 1))
def test_every_exploration_gives_a_pmf_above_the_floor(exploration, values, learned, floor):
    pmf = check_pmf(with_floor(exploration.pmf(values, learned), floor))
    assert pmf.min() >= floor / values.size - 1e-15


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda e: type(e).__name__)
@given(values=scores, seed=st.integers(0, 100))
def test_exploration_is_permutation_equivariant(exploration, values, seed):
    order = np.random.default_rng(seed).permutation(values.size)
    assert exploration.pmf(values[order], 100) == pytest.approx(
        exploration.pmf(values, 100)[order], abs=1e-12
    )


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda e: type(e).__name__)
@given(values=scores)
def test_equal_scores_have_equal_probability(exploration, values):
    pmf = exploration.pmf(np.concatenate([values, values]), 100)
    assert pmf[: values.size] == pytest.approx(pmf[values.size :], abs=1e-12)


@given(scores)
def test_limits(values):
    """Epsilon 1 and gamma 0 are uniform; epsilon 0 is greedy.

    A cold softmax is greedy over clear gaps.
    """
    uniform = np.full(values.size, 1 / values.size)
    assert EpsilonGreedy(1.0).pmf(values, 5) == pytest.approx(uniform)
    assert SquareCB().pmf(values, 0) == pytest.approx(uniform)
    assert EpsilonGreedy(0.0).pmf(values, 5) == pytest.approx(greedy(values))


def test_squarecb_is_the_formula_of_the_paper():
    pmf = SquareCB(gamma_scale=2.0, gamma_exponent=0.5).pmf(np.array([1.0, 0.5, 0.0]), 100)
    assert pmf[1] == pytest.approx(1 / (3 + 20 * 0.5))
    assert pmf[2] == pytest.approx(1 / (3 + 20 * 1.0))
    assert pmf[0] == pytest.approx(1 - pmf[1] - pmf[2])


def test_votes_are_shares_of_draws_and_ties_split():
    draws = np.array([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0]], np.float32)
    assert votes(draws) == pytest.approx([2.5 / 4, 1.5 / 4])
