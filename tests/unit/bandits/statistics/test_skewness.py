"""Intervals of means of skewed rows are corrected for their skewness."""

import math

import numpy as np
import pytest

from bandits.statistics.intervals import Normal, Sample, unskewed, z_of
from bandits.statistics.moments import Moments
from bandits.statistics.skewness import Skews

ROWS = np.random.default_rng(0).lognormal(sigma=1.2, size=(3, 500))


@pytest.mark.parametrize("cuts", [[250], [1, 2, 499], [100, 200, 300, 400]])
def test_however_the_rows_are_cut_the_skewness_is_that_of_all(cuts):
    found = Skews.empty(3)
    for part in np.split(ROWS, cuts, axis=1):
        other = Skews.empty(3)
        other.update(part)
        found.merge(other)
    apart = ROWS - ROWS.mean(axis=1, keepdims=True)
    wanted = (apart**3).mean(axis=1) / (apart**2).mean(axis=1) ** 1.5
    np.testing.assert_allclose(found.skewness, wanted, rtol=1e-9)


def test_a_column_that_is_constant_or_too_large_to_tell_has_none():
    found = Skews.empty(2)
    found.update(np.array([[1.0, 1.0, 1.0], [1e99, -1e99, 9e99]]))
    assert found.skewness.tolist()[0] == 0.0
    assert np.isfinite(found.skewness).all()


@pytest.mark.parametrize("skewness", [-9.0, 0.5, 30.0])
def test_what_is_taken_out_is_halls_polynomial(skewness):
    for z in (-1.96, -0.1, 0.0, 1.96):
        t, s = unskewed(z, skewness, 400), skewness / 20
        assert t + s * (2 * t * t + 1) / 6 + s * s * t**3 / 27 == pytest.approx(z, abs=1e-9)


def sample_of(rows: np.ndarray, skewness: float) -> Sample:
    moments = Moments.empty(1)
    moments.update(rows[None], np.arange(len(rows), dtype=np.uint64))
    return Sample(
        moments,
        lambda means: means[..., 0],
        lambda _: np.ones(1),
        lambda _, rewards: (np.zeros(1), np.array([rewards[1]])),
        1.0,
        (0.0, 1.0),
        skewness,
    )


def test_without_skewness_the_interval_is_the_plain_one():
    low, high, _ = Normal().bounds(sample_of(ROWS[0], 0.0))
    plain = sample_of(ROWS[0], 0.0)
    assert (low, high) == (
        plain.point - z_of(0.05) * plain.stderr,
        plain.point + z_of(0.05) * plain.stderr,
    )
    one = Normal().bounds(sample_of(ROWS[0][:1], 3.0))
    assert (one.low, one.high) == (-math.inf, math.inf)


def test_more_of_the_intervals_of_skewed_means_hold_the_truth():
    """600 means of 200 rows each; 95% of 600 are fewer than 92.5% with probability 0.003."""
    rows = np.random.default_rng(1).lognormal(sigma=1.2, size=(600, 200))
    truth, held = math.exp(0.72), {False: 0, True: 0}
    for each in rows:
        skews = Skews.empty(1)
        skews.update(each[None])
        for corrected in held:
            skewness = float(skews.skewness[0]) if corrected else 0.0
            low, high, _ = Normal().bounds(sample_of(each, skewness))
            held[corrected] += low <= truth <= high
    assert held[False] / 600 < 0.925 <= held[True] / 600
