"""Means of decisions whose units are users."""

import itertools

import numpy as np
import pytest

from simulator.report.numbering import UnitNumbers, renumbered
from simulator.report.units import UnitSums


def summed(units, rewards, cuts=()):
    sums = UnitSums()
    edges = [0, *cuts, len(units)]
    for start, stop in itertools.pairwise(edges):
        sums.add(units[start:stop], np.zeros(stop - start, bool), rewards[start:stop])
    return sums.policy()


def test_where_each_user_decides_once_it_is_the_variance_of_a_mean():
    rewards = np.random.default_rng(0).exponential(size=50)
    found = summed(np.arange(50), rewards)
    assert found.mean == pytest.approx(rewards.mean())
    assert found.variance == pytest.approx(rewards.var(ddof=1) / 50)
    third = ((rewards - rewards.mean()) ** 3).sum() / 50**3
    assert found.third == pytest.approx(third)


def test_a_decision_without_a_unit_is_one_by_itself():
    rng = np.random.default_rng(1)
    rewards, units = rng.normal(size=40), np.arange(40)
    units[20:] = 3  # one user has many
    alone = units.copy()
    alone[:20][units[:20] != 3] = -1
    one, other = summed(units, rewards), summed(alone, rewards)
    for name in ("units", "decisions", "mean", "variance", "third", "largest"):
        assert getattr(other, name) == pytest.approx(getattr(one, name)), name


def test_what_users_repeat_is_no_new_unit():
    """Ten times the same user says no more than once: the variance stays."""
    rewards = np.random.default_rng(2).normal(size=30)
    once = summed(np.arange(30), rewards)
    often = summed(np.repeat(np.arange(30), 10), np.repeat(rewards, 10))
    assert often.decisions == 300
    assert often.units == 30
    assert often.variance == pytest.approx(once.variance)


def test_it_does_not_matter_how_rows_are_cut():
    rng = np.random.default_rng(3)
    units, rewards = rng.integers(-1, 20, 200), rng.normal(size=200)
    whole, parts = summed(units, rewards), summed(units, rewards, cuts=(1, 50, 51, 180))
    assert parts == pytest.approx(whole)


def test_without_decisions_there_is_no_mean():
    found = UnitSums().holdout()
    assert found.units == 0
    assert np.isnan(found.mean)
    assert found.variance == np.inf


def test_units_are_numbered_anew_and_whoever_has_none_keeps_none():
    numbers, count = renumbered(np.array([7, -1, 3, 7, 0], np.int32), 9)
    assert (numbers.tolist(), count) == ([2, -1, 1, 2, 0], 3)
    nobody, count = renumbered(np.array([-1, -1], np.int32), 0)
    assert (nobody.tolist(), count) == ([-1, -1], 0)


def test_a_hash_keeps_its_number_however_many_come():
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 1 << 63, 200_000).astype(np.uint64)
    hashes = np.concatenate([hashes, hashes[::-3], np.zeros(2, np.uint64)])
    numbers = UnitNumbers()
    found = np.concatenate([numbers.of(part) for part in np.array_split(hashes, 7)])
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    assert numbers.count == len(first)
    assert (found == found[first][inverse]).all()
    assert (np.sort(found[first]) == np.arange(len(first))).all()
    assert (hashes[first][np.argsort(numbers.in_order()[found[first]])] == hashes[first]).all()
