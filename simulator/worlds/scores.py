"""How far estimators are from the truth, over seeds.

A seed is one draw: all of its policies and targets share a world, so standard errors are of sums by
seed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from bandits.types import Float64
from simulator.worlds.cell import Rewards, TargetEstimate, WorldCellResult

Key = tuple[Any, ...]


class Figure(msgspec.Struct, frozen=True):
    """A number and its standard error over seeds; NaN, null in JSON, where it cannot be told (one seed, no cases)."""

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
    """How an estimator did in a world: over all policies and targets, or over one of each if they are named.

    ``bias``: mean of estimate less truth. ``rmse``: root of the mean squared error. ``coverage``:
    share of 95% intervals that hold the truth, and ``trusted_coverage`` of those alone whose
    verdict is reliable. ``reliable``, ``weak``, ``unreliable``: shares of verdicts. ``estimates``:
    how many there are.
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
    """By world and policy, in the order they come."""
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
    """By world and estimator, or by policy and target as well if ``detailed``, in the order they come."""

    def key(cell: WorldCellResult, found: TargetEstimate) -> Key:
        at = (cell.world, found.estimator, found.rewards)
        return (*at, cell.policy, found.target) if detailed else at

    return [_score(at, by_seed) for at, by_seed in _grouped(cells, key).items()]


def ratio_of_sums(above: Float64, below: Float64) -> Figure:
    """The ratio of two sums over S seeds, float64[S] each, with its linearised standard error.

    Cochran 1977, "Sampling Techniques", section 6.4; with as many cases in each seed, the mean and
    its usual error.
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
    """By key and seed: what was found, and the truth."""
    out: dict[Key, dict[int, list[tuple[TargetEstimate, float]]]] = {}
    for cell in cells:
        for found in cell.findings:
            by_seed = out.setdefault(key(cell, found), {})
            by_seed.setdefault(cell.seed, []).append((found, cell.truths[found.target].value))
    return out


def _score(at: Key, by_seed: dict[int, list[tuple[TargetEstimate, float]]]) -> Score:
    world, estimator, rewards, *rest = at
    policy, target = rest or (None, None)

    def total(function: Callable[[TargetEstimate, float], float]) -> Float64:
        return np.array([sum(function(*each) for each in seed) for seed in by_seed.values()])

    count = total(lambda _found, _truth: 1.0)
    trusted = total(lambda found, _truth: found.verdict == "reliable")
    squared = ratio_of_sums(total(lambda found, truth: (found.value - truth) ** 2), count)
    rmse = float(np.sqrt(squared.value))
    return Score(
        world=world,
        estimator=estimator,
        rewards=rewards,
        policy=policy,
        target=target,
        estimates=int(count.sum()),
        bias=ratio_of_sums(total(lambda found, truth: found.value - truth), count),
        rmse=Figure(rmse, squared.stderr / (2.0 * rmse) if rmse else 0.0),
        coverage=ratio_of_sums(total(_covered), count),
        trusted_coverage=ratio_of_sums(
            total(lambda found, truth: found.verdict == "reliable" and _covered(found, truth)),
            trusted,
        ),
        reliable=ratio_of_sums(trusted, count),
        weak=ratio_of_sums(total(lambda found, _truth: found.verdict == "weak"), count),
        unreliable=ratio_of_sums(total(lambda found, _truth: found.verdict == "unreliable"), count),
    )


def _covered(found: TargetEstimate, truth: float) -> bool:
    return found.interval[0] <= truth <= found.interval[1]


def _mean(values: Sequence[float]) -> Figure:
    return ratio_of_sums(np.array(values), np.ones(len(values)))
