"""How far estimators are from the truth, over seeds.

A seed is one draw: all of its policies and targets share a world, so standard errors are those of
sums by seed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from bandits.types import Float64
from simulator.ope.verdict import Verdict
from simulator.worlds.cell import Rewards, TargetEstimate, WorldCellResult

Key = tuple[Any, ...]


class Figure(msgspec.Struct, frozen=True):
    """A number and its standard error over seeds.

    Either is NaN, null in JSON, where it cannot be told (one seed, no cases).
    """

    value: float
    stderr: float


class LoopScore(msgspec.Struct, frozen=True):
    """How a policy did in a world: means over seeds of what WorldCellResult has."""

    world: str
    policy: str
    mean_reward: Figure
    regret: Figure
    quarters: list[Figure]


class Score(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How an estimator did in a world.

    Over all policies and targets, or over one of each if they are named.

    Attributes:
        estimates: How many estimates there are.
        bias: Mean of estimate less truth.
        rmse: Root of the mean squared error.
        coverage: Share of 95% intervals that hold the truth.
        trusted_coverage: The same among estimates whose verdict is reliable.
        reliable: Share of that verdict; so are ``weak`` and ``unreliable``.
    """

    world: str
    estimator: str
    rewards: Rewards
    policy: str | None = None
    target: str | None = None
    estimates: int
    bias: Figure
    rmse: Figure
    coverage: Figure
    trusted_coverage: Figure
    reliable: Figure
    weak: Figure
    unreliable: Figure


def loop_scores(cells: Iterable[WorldCellResult]) -> list[LoopScore]:
    """Return the scores by world and policy, in the order they come."""
    groups: dict[tuple[str, str], list[WorldCellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.world, cell.policy), []).append(cell)
    return [
        LoopScore(
            *at,
            mean_reward=_mean([cell.mean_reward for cell in group]),
            regret=_mean([cell.regret for cell in group]),
            quarters=[
                _mean(list(quarter))
                for quarter in zip(*(cell.quarters for cell in group), strict=True)
            ],
        )
        for at, group in groups.items()
    ]


def scores(cells: Iterable[WorldCellResult], *, detailed: bool = False) -> list[Score]:
    """Return the scores by world and estimator, in the order they come.

    Args:
        cells: What the cells gave.
        detailed: Whether to tell policies and targets apart as well.
    """

    def key(cell: WorldCellResult, estimate: TargetEstimate) -> Key:
        at = (cell.world, estimate.estimator, estimate.rewards)
        return (*at, cell.policy, estimate.target) if detailed else at

    return [_score(at, by_seed) for at, by_seed in _grouped(cells, key).items()]


def ratio_of_sums(above: Float64, below: Float64) -> Figure:
    """Return the ratio of two sums over S seeds, with its linearised standard error.

    Cochran 1977, "Sampling Techniques", section 6.4; with as many cases in each seed, the mean and
    its usual error.

    Args:
        above: float64[S], the numerator by seed.
        below: float64[S], the denominator by seed.
    """
    count, total = len(above), float(below.sum())
    if total == 0.0:
        return Figure(float("nan"), float("nan"))

    value = float(above.sum()) / total
    if count < 2:
        return Figure(value, float("nan"))
    left = above - value * below
    return Figure(value, float(np.sqrt(left @ left * count / (count - 1)) / total))


def _grouped(
    cells: Iterable[WorldCellResult], key: Callable[[WorldCellResult, TargetEstimate], Key]
) -> dict[Key, dict[int, list[tuple[TargetEstimate, float]]]]:
    """Return by key and seed the estimates, each with its truth."""
    groups: dict[Key, dict[int, list[tuple[TargetEstimate, float]]]] = {}
    for cell in cells:
        for estimate in cell.findings:
            by_seed = groups.setdefault(key(cell, estimate), {})
            truth = cell.truths[estimate.target].value
            by_seed.setdefault(cell.seed, []).append((estimate, truth))
    return groups


def _score(at: Key, by_seed: dict[int, list[tuple[TargetEstimate, float]]]) -> Score:
    world, estimator, rewards, *rest = at
    policy, target = rest or (None, None)

    def total(function: Callable[[TargetEstimate, float], float]) -> Float64:
        return np.array([sum(function(*pair) for pair in pairs) for pairs in by_seed.values()])

    # Every figure is a ratio of sums by seed.
    count = total(lambda _estimate, _truth: 1.0)
    trusted = total(lambda estimate, _truth: estimate.verdict == "reliable")
    trusted_and_covered = total(
        lambda estimate, truth: estimate.verdict == "reliable" and _covered(estimate, truth)
    )
    squared = ratio_of_sums(total(lambda estimate, truth: (estimate.value - truth) ** 2), count)
    rmse = float(np.sqrt(squared.value))

    def share(verdict: Verdict) -> Figure:
        return ratio_of_sums(total(lambda estimate, _truth: estimate.verdict == verdict), count)

    return Score(
        world=world,
        estimator=estimator,
        rewards=rewards,
        policy=policy,
        target=target,
        estimates=int(count.sum()),
        bias=ratio_of_sums(total(lambda estimate, truth: estimate.value - truth), count),
        rmse=Figure(rmse, squared.stderr / (2.0 * rmse) if rmse else 0.0),
        coverage=ratio_of_sums(total(_covered), count),
        trusted_coverage=ratio_of_sums(trusted_and_covered, trusted),
        reliable=share("reliable"),
        weak=share("weak"),
        unreliable=share("unreliable"),
    )


def _covered(estimate: TargetEstimate, truth: float) -> bool:
    return estimate.interval[0] <= truth <= estimate.interval[1]


def _mean(values: Sequence[float]) -> Figure:
    return ratio_of_sums(np.array(values), np.ones(len(values)))
