"""Intervals that hold at every look, in information."""

import math

import numpy as np
import pytest

from bandits.statistics.intervals import Anytime, Sample
from bandits.statistics.moments import Moments
from bandits.statistics.sequences import MixtureSequence


def test_of_independent_rows_it_is_the_sequence_of_means():
    """In rows that are alike the information is n / variance: then both are one formula."""
    rows = np.random.default_rng(0).normal(size=(1, 400))
    moments = Moments.empty(1)
    moments.update(rows, np.arange(400, dtype=np.uint64))
    sample = Sample(moments, lambda m: m[..., 0], np.ones_like, lambda *_: (rows, rows), 1, (0, 1))
    variance = sample.stderr**2

    sequence = MixtureSequence(effect=0.2)
    same = Anytime(tightest_at=400 * variance * sequence.fixed_information)
    bounds = same.bounds(sample)
    assert sequence.radius(variance) == pytest.approx((bounds.high - bounds.low) / 2, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("variance", [1e-4, 0.01, 3.0])
def test_the_evidence_reaches_its_limit_where_the_interval_leaves_zero(alpha, variance):
    sequence = MixtureSequence(0.1, alpha)
    radius = sequence.radius(variance)
    assert sequence.log_evidence(radius, variance) == pytest.approx(-math.log(alpha))
    assert sequence.log_evidence(0.0, variance) < 0.0


def test_an_effect_is_expected_to_be_found_a_little_after_a_test_with_one_look_finds_it():
    sequence = MixtureSequence(0.1)
    assert 1.0 < sequence.information_to_find(0.1) / sequence.fixed_information < 1.3
    needed = sequence.information_to_find(0.02)
    assert sequence.radius(1.0 / needed) == pytest.approx(0.02)


@pytest.mark.parametrize("variance", [0.0, math.inf, math.nan])
def test_without_a_variance_nothing_is_said(variance):
    sequence = MixtureSequence(0.1)
    assert sequence.radius(variance) == math.inf
    assert sequence.log_evidence(1.0, variance) == 0.0


def test_a_fair_bettor_keeps_the_money_that_it_began_with():
    """The evidence against no difference has a mean of 1 where there is none: an e-process."""
    rng, sequence = np.random.default_rng(1), MixtureSequence(0.5)
    noise = rng.normal(size=(20_000, 10)).cumsum(axis=1) / np.arange(1, 11)
    money = [
        np.exp([sequence.log_evidence(row[n], 1.0 / (n + 1)) for row in noise]) for n in (0, 9)
    ]
    for at_one_look in money:
        error = at_one_look.std() / math.sqrt(len(at_one_look))
        assert abs(at_one_look.mean() - 1.0) < 4.0 * error  # false alarm 6e-5
