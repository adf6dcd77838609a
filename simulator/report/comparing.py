"""The uplift of a policy's rows: at every look, by segment, and when an answer can be expected."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulator.report.gather import HOLDOUT, NO_UNIT, POLICY, UNSERVED, PolicyRows
from simulator.report.numbering import renumbered
from simulator.report.report import Assignment, GroupSummary, SegmentDifference, Uplift
from simulator.report.units import GroupMean, UnitSums
from simulator.report.uplift import Compared, UpliftLook, compare_groups, ratio_evidence

LOOKS = 60
"""Looks that a report goes back to: each after as many more decisions."""

Int64 = NDArray[np.int64]


def uplift_of(rows: PolicyRows, alpha: float) -> Uplift | None:
    """Return the uplift over the holdout; None where the spec holds nobody out.

    Args:
        rows: the policy's decisions.
        alpha: the probability that the interval ever misses the truth.
    """
    if rows.spec is None or rows.spec.holdout is None:
        return None

    sums, looks, last = UnitSums(), list[UpliftLook](), None
    information: list[float] = []
    for start, stop in stretches(len(rows)):
        _add(sums, rows, slice(start, stop))
        last = compare_groups(sums.policy(), sums.holdout(), alpha)
        information.append(1.0 / last.variance if last.sequence else 0.0)
        decisions = sums.policy().decisions + sums.holdout().decisions
        looks.append(
            UpliftLook(
                int(decisions),
                int(rows.ms[stop - 1]),
                last.difference,
                *last.interval,
                last.evidence,
            )
        )

    policy, holdout = sums.policy(), sums.holdout()
    compared = compare_groups(policy, holdout, alpha) if last is None else last
    low, high = compared.interval
    grown = _seconds_per_information(looks, information)
    worth = 0.0 if compared.sequence is None else compared.sequence.effect
    return Uplift(
        policy=_summary(policy),
        holdout=_summary(holdout),
        difference=compared.difference,
        relative=compared.difference / holdout.mean if holdout.mean else math.nan,
        low=low,
        high=high,
        p_value=math.exp(-max([0.0, *(look.evidence for look in looks)])),
        alpha=alpha,
        worth_finding=worth,
        skewness=compared.skewness,
        answer_s=_expected_s(compared, compared.difference, grown),
        worth_finding_s=_expected_s(compared, worth, grown),
        looks=looks,
    )


def assignment_of(rows: PolicyRows) -> Assignment | None:
    """Return how units are divided; None where the spec holds nobody out."""
    if rows.spec is None or rows.spec.holdout is None:
        return None
    held_out = _distinct(rows, rows.compared == HOLDOUT)
    served = _distinct(rows, rows.compared == POLICY)
    both = int(np.count_nonzero(held_out[0] & served[0]))
    count = int(np.count_nonzero(held_out[0])) + held_out[1]
    units = count + int(np.count_nonzero(served[0])) + served[1]
    fraction = rows.spec.holdout.fraction
    return Assignment(
        fraction,
        units,
        count,
        math.exp(-max(0.0, ratio_evidence(count, units, fraction))),
        both,
        int((rows.compared == UNSERVED).sum()),
    )


def segments_of(rows: PolicyRows, alpha: float) -> list[SegmentDifference]:
    """Return the uplift by field of the context, all segments at one significance level.

    Args:
        rows: the policy's decisions.
        alpha: the probability that any interval ever misses its truth.
    """
    parts = [
        (name, value, compacted(rows, np.flatnonzero(codes == code)))
        for name, (codes, values) in rows.fields.items()
        for code, value in enumerate(values)
    ]
    kept = [
        (name, value, each.policy(), each.holdout())
        for name, value, each in parts
        if each.policy().units and each.holdout().units
    ]

    # One level for all: each interval has its share of it.
    share = alpha / max(1, len(kept))
    compared = [compare_groups(policy, holdout, share) for _, _, policy, holdout in kept]
    adjusted = _holm([math.exp(-max(0.0, each.evidence)) for each in compared])
    return [
        SegmentDifference(
            name,
            value,
            _summary(policy),
            _summary(holdout),
            each.difference,
            *each.interval,
            p_value,
            p_value < alpha,
        )
        for (name, value, policy, holdout), each, p_value in zip(
            kept, compared, adjusted, strict=True
        )
    ]


def stretches(count: int) -> Iterator[tuple[int, int]]:
    """Yield where each stretch of decisions begins and ends, LOOKS of them at most."""
    ends = np.unique(np.linspace(0, count, LOOKS + 1).astype(np.int64)).tolist()
    yield from itertools.pairwise(ends)


def _add(sums: UnitSums, rows: PolicyRows, part: slice) -> None:
    group = rows.compared[part]
    there = group <= HOLDOUT
    units = rows.unit[part][there]
    sums.add(units, group[there] == HOLDOUT, rows.reward[part][there])


def compacted(rows: PolicyRows, places: Int64) -> UnitSums:
    """Return the sums of some decisions, whose units are numbered anew so that they take little.

    Args:
        rows: a policy's decisions.
        places: int64[n], which of them.
    """
    group = rows.compared[places]
    there = group <= HOLDOUT
    if not there.all():
        places, group = places[there], group[there]

    numbers, _ = renumbered(rows.unit[places], rows.units)
    sums = UnitSums()
    sums.add(numbers, group == HOLDOUT, rows.reward[places])
    return sums


def _distinct(rows: PolicyRows, mine: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Return which units some decisions are of, and how many decisions are units by themselves."""
    units = rows.unit[mine]
    there = np.zeros(rows.units + 1, np.bool_)
    there[units] = True  # the last is of those that are of none
    return there[:-1], int(np.count_nonzero(units == NO_UNIT))


def _summary(group: GroupMean) -> GroupSummary:
    return GroupSummary(
        group.units,
        int(group.decisions),
        group.mean,
        math.sqrt(group.variance),
        group.mean * group.per_unit,
    )


def _seconds_per_information(looks: list[UpliftLook], information: list[float]) -> float | None:
    """Return how long the last half of the looks took to make the estimate so much more precise."""
    if len(looks) < 2:
        return None
    half = len(looks) // 2
    seconds = (looks[-1].time_ms - looks[half - 1].time_ms) / 1000.0
    gained = information[-1] - information[half - 1]
    return seconds / gained if gained > 0.0 and seconds > 0.0 else None


def _expected_s(compared: Compared, effect: float, per_information: float | None) -> float | None:
    """Return the seconds until an effect is expected to be found; 0 if an answer is there."""
    low, high = compared.interval
    if low > 0.0 or high < 0.0:
        return 0.0
    # Units that are too few for an interval say nothing of when there is one.
    if compared.sequence is None or not compared.ready or per_information is None or not effect:
        return None
    needed = compared.sequence.information_to_find(effect) - 1.0 / compared.variance
    return max(0.0, needed) * per_information


def _holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable").tolist()
    out, least = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        out[at] = least
    return out
