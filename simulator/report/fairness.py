"""What groups of items are shown, and what groups of users get, each with an interval."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from bandits.statistics.intervals import ALPHA, z_of
from bandits.types import Float64
from policies.rules.quotas.quota import Exposure
from simulator.report.gather import POLICY, PolicyRows
from simulator.report.item_groups import Groups
from simulator.report.numbering import Int32, renumbered
from simulator.report.report import ExposureReport, GroupExposure, GroupOutcome

MOST_GROUPS = 1_000
"""Groups that are told at most, the most shown."""


def exposure_by_group(
    chosen: Mapping[str, int], group_of: Groups, alpha: float = ALPHA
) -> list[GroupExposure]:
    """Return the exposure of each group of items, the most shown first.

    What was placed on a page was not drawn, and is not counted.

    Args:
        chosen: by item, how often it was drawn; see ``PolicyRows.chosen``.
        group_of: gives the group of an item, None if it has none.
        alpha: the probability that an interval (Wilson 1927, equation 4) misses the share.
    """
    counts = Counter[str]()
    for item, count in chosen.items():
        counts[group_of(item) or ""] += count
    total, z = sum(counts.values()), z_of(alpha)

    found = []
    for group, count in counts.most_common():
        share, wide = count / total, z * z / total
        middle = (share + wide / 2) / (1 + wide)
        radius = z * math.sqrt(share * (1 - share) / total + wide / total / 4) / (1 + wide)
        low, high = min(share, middle - radius), max(share, middle + radius)
        found.append(GroupExposure(group, count, share, max(0.0, low), min(1.0, high)))
    return found


def exposure_report(rows: PolicyRows, field: str, group_of: Groups) -> ExposureReport:
    """Return what groups of items the policy showed, and what their floor is.

    Args:
        rows: its decisions.
        field: the feature whose values are the groups.
        group_of: gives the group of an item, None if it has none.
    """
    said = None if rows.spec is None else rows.spec.exposure
    floor = said.floor if isinstance(said, Exposure) and said.group == field else None
    groups = exposure_by_group(rows.chosen[POLICY], group_of)
    return ExposureReport(field, floor, groups[:MOST_GROUPS])


def exposure_field(rows: PolicyRows) -> str | None:
    """Return the feature whose groups the newest spec gives a floor; None: it says of none."""
    said = None if rows.spec is None else rows.spec.exposure
    return said.group if isinstance(said, Exposure) else None


def outcomes_by_group(rows: PolicyRows, alpha: float = ALPHA) -> list[GroupOutcome]:
    """Return what the policy's decisions earned, by each value of each field of the context.

    Args:
        rows: the decisions; ``fields`` are those that they are divided by.
        alpha: the probability that an interval misses the mean (normal, of sums by user).
    """
    return list(_outcomes(rows, z_of(alpha)))


def _outcomes(rows: PolicyRows, z: float) -> Iterator[GroupOutcome]:
    for field, (codes, names) in rows.fields.items():
        for code, value in enumerate(names):
            here = np.flatnonzero((codes == code) & (rows.group == POLICY))
            if not len(here):
                continue
            reward = rows.reward[here]
            (units, count), mean = _units(rows.unit[here], rows.units), float(reward.mean())
            radius = z * _error(reward - mean, units, count)
            low, high = mean - radius, mean + radius
            yield GroupOutcome(field, value, len(here), count, mean, low, high)


def _units(units: Int32, count: int) -> tuple[Int32, int]:
    """Number units from 0 on, int32[n], and count them; a decision of none is one by itself.

    Args:
        units: int32[n], whose each decision is.
        count: how many units there are in all.
    """
    numbers, found = renumbered(units, count)
    alone = np.flatnonzero(numbers < 0)
    numbers[alone] = found + np.arange(len(alone), dtype=np.int32)
    return numbers, found + len(alone)


def _error(apart: Float64, units: Int32, count: int) -> float:
    """Return the standard error of a mean, infinite of one unit.

    Args:
        apart: of each decision, how far its reward is from the mean.
        units: whose each is.
        count: how many units there are.
    """
    if count == 1:
        return math.inf
    sums = np.bincount(units, apart, count)
    return math.sqrt(float(sums @ sums) * count / (count - 1)) / len(apart)
