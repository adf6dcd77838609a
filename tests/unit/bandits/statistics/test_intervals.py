"""Intervals by hand, and the sums they are made from."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from bandits.errors import ReplayError
from bandits.features.hashing import splitmix64
from bandits.statistics.intervals import (
    INTERVALS,
    Anytime,
    Bernstein,
    Bootstrap,
    Normal,
    p_of,
    t_of,
    z_of,
)
from bandits.statistics.moments import POISSON, Moments, poisson_weights
from simulator.ope.batch import OpeBatch
from simulator.ope.estimators import Estimator, make_estimator
from simulator.ope.formulas import FORMULAS, IPS, SNDR, SNIPS, ClippedIPS, DRos, SwitchDR

N = 1000


def batch(n: int = N, seed: int = 0) -> OpeBatch:
    """Weights up to 4, rewards of 0 and 1, predictions between."""
    rng = np.random.default_rng(seed)
    propensity = rng.uniform(0.25, 1.0, n)
    return OpeBatch(
        keys=rng.integers(0, 2**64, n, np.uint64),
        reward=(rng.random(n) < 0.4).astype(np.float64),
        propensity=propensity,
        target=propensity * rng.uniform(0.0, 2.0, n),
        predicted=rng.random(n),
        expected=rng.random(n),
    )


def fed(name: str, rows: OpeBatch, replicates: int = 0, **parameter: float):
    each = make_estimator(name, replicates=replicates, **parameter)
    each.update(rows)
    return each


def test_moments_are_those_of_numpy():
    columns = np.random.default_rng(0).normal(size=(3, 500)) @ np.diag(np.linspace(1.0, 9.0, 500))
    moments, gradient = Moments.empty(3), np.array([1.0, -2.0, 0.5])
    for part in np.array_split(columns, 7, axis=1):
        moments.update(part, np.zeros(part.shape[1], np.uint64))
    assert moments.mean == pytest.approx(columns.mean(axis=1), rel=1e-12)
    assert moments.variance == pytest.approx(columns.var(axis=1, ddof=1), rel=1e-12)
    assert moments.stderr(gradient) == pytest.approx(
        np.std(gradient @ columns, ddof=1) / math.sqrt(500), rel=1e-12
    )
    assert np.array_equal(moments.low, columns.min(axis=1))
    assert np.array_equal(moments.high, columns.max(axis=1))


def test_a_mean_large_against_the_deviations_costs_no_digits():
    """Deviations of one in a mean of 2^30: a sum of squares would have lost them all."""
    noise = np.tile([-1.0, 1.0], 5000)
    moments = Moments.empty(1)
    for part in np.array_split(2.0**30 + noise, 7):
        other = Moments.empty(1)
        other.update(part[None], np.zeros(len(part), np.uint64))
        moments.merge(other)
    assert moments.variance[0] == pytest.approx(noise.var(ddof=1), rel=1e-9)


def test_normal_by_hand():
    assert z_of(0.05) == pytest.approx(1.959964, abs=1e-6)
    found = fed("ips", batch())
    for alpha in (0.05, 0.5):
        estimate = found.estimate(Normal(alpha))
        radius = NormalDist().inv_cdf(1 - alpha / 2) * estimate.stderr
        assert estimate.interval == pytest.approx(
            (estimate.value - radius, estimate.value + radius)
        )


def test_where_few_rows_count_an_interval_is_students():
    """Of 11 rows 2.228 standard errors, as tables have it; of one no more than of two."""
    assert t_of(0.05, 11.0) == pytest.approx(2.228139, abs=1e-6)
    assert t_of(0.05, 0.3) == t_of(0.05, 2.0) == pytest.approx(12.7062, abs=1e-4)
    assert t_of(0.05, math.inf) == z_of(0.05)
    for effective in (3.0, 40.0, math.inf):
        assert p_of(t_of(0.05, effective), effective) == pytest.approx(0.05, abs=1e-12)

    sample = replace(fed("ips", batch()).sample(), effective=11.0)
    low, high, _ = Normal().bounds(sample)
    assert (high - low) / sample.stderr == pytest.approx(2 * 2.228139, abs=1e-5)


def test_bernstein_by_hand():
    """Maurer & Pontil's theorem 4 on both sides: of w r in [0, 4]."""
    rows = batch()
    column = rows.weight * rows.reward
    log = math.log(4 / 0.05)
    radius = math.sqrt(2 * column.var(ddof=1) * log / N) + 7 * 4.0 * log / (3 * (N - 1))
    estimate = fed("ips", rows).estimate(Bernstein(max_weight=4.0, rewards=(0.0, 1.0)))
    assert estimate.interval == pytest.approx((column.mean() - radius, column.mean() + radius))
    assert "guarantee" not in estimate.reason


def test_bernstein_says_when_it_is_no_guarantee():
    found = fed("ips", batch())
    assert "because max_weight and rewards were not stated" in found.estimate(Bernstein()).reason
    assert (
        "because max_weight were not stated" not in found.estimate(Bernstein(max_weight=4.0)).reason
    )
    assert "rewards" in found.estimate(Bernstein(max_weight=4.0)).reason
    assert "outside" in found.estimate(Bernstein(max_weight=1.0, rewards=(0.0, 1.0))).reason
    assert (
        "outside"
        in fed("snips", batch()).estimate(Bernstein(max_weight=4.0, rewards=(0.0, 0.1))).reason
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_bernstein_narrows_to_the_value_and_is_wider_than_normal(name):
    widths = []
    for n in (1000, 100_000):
        estimate = fed(name, batch(n)).estimate(Bernstein(max_weight=2.0, rewards=(0.0, 1.0)))
        low, high = estimate.interval
        assert low < estimate.value - 1.96 * estimate.stderr
        assert high > estimate.value + 1.96 * estimate.stderr
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_a_ratio_whose_weight_may_be_zero_has_no_bernstein_interval():
    rows = replace(batch(50), target=np.full(50, 0.01))
    assert fed("snips", rows).estimate(Bernstein(max_weight=4.0)).interval == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "formula", [IPS(), SNIPS(), SNDR(), ClippedIPS(2.0), SwitchDR(tau=3.0), DRos(lambda_=4.0)]
)
def test_no_column_leaves_its_span(formula):
    """On a fine grid of weights, rewards and predictions.

    And the span is no wider than it has to be.
    """
    low, high = formula.span(5.0, (-1.0, 2.0))
    weights, rewards = np.linspace(0.0, 5.0, 501), np.linspace(-1.0, 2.0, 4)
    w, r, q, e = (each.ravel() for each in np.meshgrid(weights, rewards, rewards, rewards))
    rows = OpeBatch(np.zeros(len(w), np.uint64), r, np.ones(len(w)), w, q, e)
    columns = formula.columns(formula.weight(w), rows)
    assert columns.min(axis=1) == pytest.approx(low)
    assert columns.max(axis=1) == pytest.approx(high)


def test_anytime_by_hand():
    """Theorem 2.2 as printed, and the width least near the row count it is tuned for."""
    rows, alpha, n = batch(), 0.05, N
    column = rows.weight * rows.reward
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / 500
    margin = math.sqrt(
        2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    )
    low, high = fed("ips", rows).estimate(Anytime(tightest_at=500)).interval
    assert (high - low) / 2 == pytest.approx(margin * column.std(ddof=1))
    widths = {}
    for tuned in (100, 300, 1000, 3000, 10_000):
        low, high = fed("ips", rows).estimate(Anytime(tightest_at=tuned)).interval
        widths[tuned] = high - low
    assert min(widths, key=widths.__getitem__) == N


def test_splitmix64_is_the_published_one():
    """The first outputs of Vigna's splitmix64.c, seeded with 1234567."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * golden) % 2**64 for step in range(3)], np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_the_table_of_poisson_quantiles_has_its_probabilities():
    for count in range(6):
        assert (count == POISSON).mean() == pytest.approx(
            math.exp(-1) / math.factorial(count), abs=2**-15
        )
    assert POISSON.mean() == pytest.approx(1.0, abs=1e-4)
    assert POISSON.var() == pytest.approx(1.0, abs=1e-3)


def test_bootstrap_weights_are_poisson_and_independent():
    """Of 200 x 20,000: the mean within 5 standard errors, no correlation beyond 5 / sqrt(n)."""
    n = 20_000
    weights = poisson_weights(np.arange(n, dtype=np.uint64), 200)
    assert weights.shape == (200, n)
    assert weights.mean() == pytest.approx(1.0, abs=5 / math.sqrt(weights.size) + 1e-4)
    correlations = np.corrcoef(weights) - np.eye(200)
    assert np.abs(correlations).max() < 5 / math.sqrt(n)


def test_bootstrap_weights_depend_on_key_and_replicate_alone():
    keys = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    weights = poisson_weights(keys, 10)
    assert np.array_equal(poisson_weights(keys[::-1], 7), weights[:7, ::-1])
    assert np.array_equal(poisson_weights(keys[:0], 7), weights[:7, :0])


@pytest.mark.parametrize("name", FORMULAS)
def test_the_bootstrap_agrees_with_the_delta_method(name):
    """Of 2,000 replicates: their deviation within 5 of its standard errors, 1.6% each."""
    rows = batch(5000)
    found = fed(name, rows, replicates=2000)
    replicates = found.sample().moments.replicates
    values = found.formula.value(replicates[:, :-1] / replicates[:, -1:])
    assert values.std() == pytest.approx(found.estimate().stderr, rel=0.08)


def test_the_bootstrap_interval_is_made_of_percentiles():
    found = fed("snips", batch(), replicates=101)
    replicates = found.sample().moments.replicates
    values = np.sort(found.formula.value(replicates[:, :-1] / replicates[:, -1:]))
    assert found.estimate(Bootstrap(alpha=0.2)).interval == pytest.approx((values[10], values[90]))


def test_a_bootstrap_of_slates_draws_the_slots_of_a_decision_together():
    """Ten rows that are one row: taken for independent, the interval were sqrt(10) too narrow."""
    one = batch(500)
    ten = OpeBatch(
        *(np.repeat(getattr(one, name), 10) for name in ("keys", "reward", "propensity", "target"))
    )
    widths = [
        np.diff(fed("ips", rows, replicates=200).estimate(Bootstrap()).interval)[0]
        for rows in (one, ten)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)


def test_a_bootstrap_without_replicates_is_refused():
    with pytest.raises(ReplayError, match="replicates=200"):
        fed("ips", batch()).estimate(Bootstrap())
    assert Estimator(IPS()).sample().moments.replicates.size == 0


def test_every_interval_has_its_name():
    assert {name: type(kind()) for name, kind in INTERVALS.items()} == {
        "normal": Normal,
        "bootstrap": Bootstrap,
        "bernstein": Bernstein,
        "anytime": Anytime,
    }
