"""Intervals for a function of means: what an estimator's value could be but for chance.

A row is one draw: ``Normal``, ``Bernstein`` and ``Anytime`` take rows for independent. Slots of one
decision are not; ``Bootstrap`` draws them together, so it alone is right for a log of slates
evaluated in one piece.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.moments import Moments
from bandits.types import Float64

ALPHA = 0.05
"""The probability that an interval misses the truth, where nobody says another."""
REPLICATES = 200
UNKNOWN = (-math.inf, math.inf)


class Bounds(NamedTuple):
    """Both ends of an interval. ``note``: what the reader has to know of it, or empty."""

    low: float
    high: float
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A function of the means of k columns, and what was seen of them.

    ``value``: the function, from means, float64[..., k], to float64[...]; ``gradient``: its
    gradient, float64[k] to float64[k]. ``span``: from the largest weight and the range of rewards
    and predictions to the range of each column, two float64[k]. ``max_weight``, ``rewards``: the
    largest weight, and the range of rewards and predictions, that were seen. ``skewness``: that of
    a row's part of the value, where the value is a mean of such parts; 0 where nobody says it.
    ``effective``: how many rows the standard error is made of, as far as weights go; infinite where
    nobody says it. ``draws``: how many draws the weights were found by; infinite where they are
    exact. The rows share what such weights are off by, so that no number of rows takes it away.
    """

    moments: Moments
    value: Callable[[Float64], Float64]
    gradient: Callable[[Float64], Float64]
    span: Callable[[float, tuple[float, float]], tuple[Float64, Float64]]
    max_weight: float
    rewards: tuple[float, float]
    skewness: float = 0.0
    effective: float = math.inf
    draws: float = math.inf

    @property
    def point(self) -> float:
        """The function at the means; NaN without rows."""
        return float(self.value(self.moments.mean)) if self.moments.n else math.nan

    @property
    def stderr(self) -> float:
        """Its standard error; infinite below two rows, or where the function has no value."""
        if self.moments.n < 2 or not math.isfinite(self.point):
            return math.inf
        n = self.moments.n
        return self.moments.stderr(self.gradient(self.moments.mean)) * math.sqrt(1 + n / self.draws)


def per_decision(sample: Sample) -> Sample:
    """Return the sample of means over decisions, where a row stands for several.

    The last column is the number of decisions of a row. A mean over decisions is the ratio to the
    mean of that column (Hajek 1971), with the delta method for what this adds to the standard
    error.
    """
    moments = sample.moments
    k = len(moments.mean) - 1

    # Where every row stands for the same number, it is the sample without that column.
    if moments.low[-1] == moments.high[-1]:
        count = moments.low[-1]
        columns = moments.columns(k, count)
        return replace(sample, moments=columns)

    low_count, high_count = float(moments.low[-1]), float(moments.high[-1])

    def value(means: Float64) -> Float64:
        with np.errstate(invalid="ignore"):
            return sample.value(means[..., :k] / means[..., k:])

    def gradient(means: Float64) -> Float64:
        inner = sample.gradient(means[:k] / means[k]) / means[k]
        return np.append(inner, -float(inner @ means[:k]) / means[k])

    def span(max_weight: float, rewards: tuple[float, float]) -> tuple[Float64, Float64]:
        ends = np.array(
            [
                end * count
                for end in sample.span(max_weight, rewards)
                for count in (low_count, high_count)
            ]
        )
        return np.append(ends.min(axis=0), low_count), np.append(ends.max(axis=0), high_count)

    return replace(sample, value=value, gradient=gradient, span=span)


class Interval(Protocol):
    """Holds the truth with probability 1 - alpha, under the conditions that a subclass states."""

    def bounds(self, sample: Sample) -> Bounds:
        """Return both ends; infinite when the sample says nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Normal:
    """Point +- z standard errors: right in the limit of many rows.

    Where the sample knows its skewness, both ends are corrected for it (Hall 1992, On the removal
    of skewness by transformation): the mean of a few large products is more often too low than too
    high, and looks the more certain the lower it is. Where it knows how many rows count, z is
    Student's quantile with one degree of freedom less: the standard error is an estimate, too.
    """

    alpha: float = ALPHA

    def bounds(self, sample: Sample) -> Bounds:
        """Return a two-sided interval."""
        z, stderr, n = t_of(self.alpha, sample.effective), sample.stderr, sample.moments.n
        if sample.skewness == 0.0 or not math.isfinite(stderr):
            return _around(sample, z * stderr)
        high, low = (unskewed(end, sample.skewness, n) for end in (-z, z))
        return Bounds(sample.point - low * stderr, sample.point - high * stderr)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Percentiles of the Poisson bootstrap (Efron & Tibshirani 1993, chapter 13).

    Right in the limit of many decisions.
    """

    alpha: float = ALPHA

    def bounds(self, sample: Sample) -> Bounds:
        """Return a two-sided interval.

        Raises:
            ReplayError: the sample was gathered without replicates.
        """
        replicates = sample.moments.replicates
        if not replicates.size:
            raise ReplayError(
                "a bootstrap needs replicates: make the estimator with replicates=200", "replicates"
            )

        # A replicate may have drawn no row.
        drawn = replicates[replicates[:, -1] > 0.0]
        values = sample.value(drawn[:, :-1] / drawn[:, -1:])
        values = values[np.isfinite(values)]
        if sample.moments.n < 2 or not values.size:
            return Bounds(*UNKNOWN)
        low, high = np.quantile(values, [self.alpha / 2, 1.0 - self.alpha / 2])
        return Bounds(float(low), float(high))


@dataclass(frozen=True, slots=True)
class Bernstein:
    """Empirical Bernstein bounds (Maurer & Pontil 2009, arXiv:0907.3740, theorem 4), for any n.

    ``max_weight``: the largest weight possible; ``rewards``: the range of rewards and of the
    model's predictions. With both stated the interval is a guarantee. What is not stated is taken
    from what was seen, and then it is none.

    Each of the k means has its own interval, at alpha / k. Every estimator here is monotone in each
    mean, so its extremes over that box are at the corners.
    """

    alpha: float = ALPHA
    max_weight: float | None = None
    rewards: tuple[float, float] | None = None

    def bounds(self, sample: Sample) -> Bounds:
        """Return a two-sided interval."""
        moments = sample.moments
        if moments.n < 2:
            return Bounds(*UNKNOWN)

        # The range of each column; rows outside of what was stated widen it, and are told.
        max_weight = sample.max_weight if self.max_weight is None else self.max_weight
        low, high = sample.span(max_weight, self.rewards or sample.rewards)
        broken = bool(
            (moments.low < low - _slack(low)).any() or (moments.high > high + _slack(high)).any()
        )
        low, high = np.minimum(low, moments.low), np.maximum(high, moments.high)

        k = len(moments.mean)
        log = math.log(4.0 * k / self.alpha)
        radius = np.sqrt(2.0 * moments.variance * log / moments.n) + 7.0 * (high - low) * log / (
            3.0 * (moments.n - 1)
        )

        box = np.clip([moments.mean - radius, moments.mean + radius], low, high)
        corners = np.array(
            [[box[side, j] for j, side in enumerate(sides)] for sides in product((0, 1), repeat=k)]
        )

        values = sample.value(corners)
        note = self._note(broken=broken)
        return (
            Bounds(float(values.min()), float(values.max()), note)
            if np.isfinite(values).all()
            else Bounds(*UNKNOWN, note)
        )

    def _note(self, *, broken: bool) -> str:
        if broken:
            return (
                "the interval is no guarantee, because rows lie outside the stated max_weight and"
                " rewards"
            )
        missing = [name for name in ("max_weight", "rewards") if getattr(self, name) is None]
        return (
            f"the interval is no guarantee, because {' and '.join(missing)} were not stated"
            if missing
            else ""
        )


@dataclass(frozen=True, slots=True)
class Anytime:
    """Asymptotic confidence sequence (Waudby-Smith et al. 2021, arXiv:2103.06476, theorem 2.2).

    It holds at all sample sizes at once, from a start with enough rows: look as often as you like
    and stop when you like. ``tightest_at``: the number of rows at which it is narrowest, which sets
    rho.
    """

    alpha: float = ALPHA
    tightest_at: float = 10_000.0

    def bounds(self, sample: Sample) -> Bounds:
        """Return a two-sided interval."""
        n = sample.moments.n
        if n < 2:
            return Bounds(*UNKNOWN)

        spent = -2.0 * math.log(self.alpha)
        scaled = n * (spent + math.log(spent + 1.0)) / self.tightest_at  # n rho^2
        factor = math.sqrt((scaled + 1.0) / scaled * (math.log(scaled + 1.0) + spent))
        return _around(sample, factor * sample.stderr)


INTERVALS: Mapping[str, Callable[..., Interval]] = {
    "normal": Normal,
    "bootstrap": Bootstrap,
    "bernstein": Bernstein,
    "anytime": Anytime,
}


def z_of(alpha: float) -> float:
    """Return the two-sided quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(1.0 - alpha / 2)


def t_of(alpha: float, effective: float) -> float:
    """Return the two-sided quantile of Student's distribution for the mean of so many rows.

    Args:
        alpha: what is left out.
        effective: how many rows count; of infinitely many it is ``z_of``.
    """
    if math.isinf(effective):
        return z_of(alpha)
    from scipy.special import stdtrit  # noqa: PLC0415 - most intervals have no need of it

    return float(stdtrit(max(effective - 1.0, 1.0), 1.0 - alpha / 2))


def p_of(t: float, effective: float) -> float:
    """Return the chance of a statistic at least so far from 0, of whichever sign; see ``t_of``.

    Args:
        t: how far, in standard errors.
        effective: how many rows count.
    """
    if math.isinf(effective):
        return math.erfc(t / math.sqrt(2.0))
    from scipy.special import stdtr  # noqa: PLC0415 - as above

    return 2.0 * float(stdtr(max(effective - 1.0, 1.0), -t))


def unskewed(z: float, skewness: float, n: int) -> float:
    """Return the t-statistic of a mean that is as likely undershot as z is of a normal variable.

    The inverse of Hall's cubic t + s (2 t^2 + 1) / 6 + s^2 t^3 / 27, s = skewness / sqrt(n), which
    is monotone.

    Args:
        z: a quantile of the standard normal distribution.
        skewness: of one row, not 0.
        n: how many rows the mean is of.
    """
    s = skewness / math.sqrt(n)
    return 3.0 / s * (math.cbrt(1.0 + s * (z - s / 6.0)) - 1.0)


def _around(sample: Sample, radius: float) -> Bounds:
    return (
        Bounds(sample.point - radius, sample.point + radius)
        if math.isfinite(radius)
        else Bounds(*UNKNOWN)
    )


def _slack(limit: Float64) -> Float64:
    """Return the room for rounding: a weight at its bound may compute to a bit above it."""
    slack: Float64 = 1e-9 * np.abs(limit)
    return slack
