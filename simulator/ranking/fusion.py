"""Fusions of all sources, as baselines for what a policy learns: averages, votes, stacking.

Each orders the same pool: the best candidates of every source, with every source's calibrated score
of each. What is fitted is fitted on a validation part, for users' items after the time that those
sources were trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, Float64
from policies.artifacts.source_artifact import Calibration
from simulator.ranking.asking import Answers, best_of
from simulator.ranking.metrics.lists import ItemSets, Lists, hits_of, ndcg

RRF_K: Final = 60
"""Cormack, Clarke & Büttcher 2009, https://doi.org/10.1145/1571941.1572114."""
RIDGE_L2: Final = 1.0
TRIES: Final = 60
"""Weights that are tried for an average, beside each source alone and all alike."""
NEWTON_STEPS: Final = 30
TOO_SMALL: Final = 1e-9
"""A step that changes no coefficient by more than this ends the search."""
UNRANKED: Final = np.int16(np.iinfo(np.int16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """The candidates of each user, int32[users, n] ascending, -1 beyond the last.

    ``scores``: calibrated, float32[users, n, sources], 0 where a source has no answer for the user.
    ``ranks``: the place in each source's list, from 0, int16[users, n, sources], or UNRANKED.
    ``answers``: which sources have an answer, bool[users, sources].
    """

    items: Lists
    scores: Float32
    ranks: NDArray[np.int16]
    answers: NDArray[np.bool_]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which places hold a candidate, bool[users, n]."""
        return self.items >= 0

    def within(self, limit: int) -> NDArray[np.bool_]:
        """Return which candidates are among the first ``limit`` of any source, bool[users, n]."""
        inside: NDArray[np.bool_] = self.there & (self.ranks.min(axis=2, initial=UNRANKED) < limit)
        return inside

    def first(self, users: int, limit: int) -> "Pools":
        """Return the pools of the first users, without what only a larger limit brings in.

        Args:
            users: how many.
            limit: how many of each source's candidates are taken.
        """
        items = np.where(self.within(limit), self.items, np.int32(-1))[:users]
        return Pools(items, self.scores[:users], self.ranks[:users], self.answers[:users])

    def best(self, fused: Float64, allowed: NDArray[np.bool_], length: int) -> Lists:
        """Return the best candidates by a fused score, int32[users, length], -1 where a list ends.

        Args:
            fused: float64[users, n].
            allowed: candidates that may be listed, bool[users, n].
            length: of the lists.
        """
        places = best_of(np.where(allowed, fused, -np.inf), length)
        items = np.take_along_axis(self.items, np.maximum(places, 0).astype(np.intp), axis=1)
        return np.where(places >= 0, items, np.int32(-1))


def make_pools(
    answers: Answers,
    lists: Mapping[str, Lists],
    scales: Mapping[str, Calibration],
    limit: int,
) -> Pools:
    """Return the pools of some users.

    Args:
        answers: what the sources said.
        lists: the best items of each source, int32[users, n].
        scales: of each source's scores.
        limit: how many of each source's candidates are taken.
    """
    every = np.concatenate([lists[name][:, :limit] for name in lists], axis=1)
    items = np.sort(every, axis=1)

    # An item that two sources propose is one candidate; what is left over goes to the end.
    items[:, 1:][items[:, 1:] == items[:, :-1]] = -1
    items = np.where(items < 0, np.iinfo(np.int32).max, items)
    items.sort(axis=1)
    width = max(1, int((items < np.iinfo(np.int32).max).sum(axis=1).max(initial=0)))
    items = np.where(items == np.iinfo(np.int32).max, -1, items)[:, :width].astype(np.int32)

    safe = np.maximum(items, 0)
    scores = np.empty((*items.shape, len(lists)), np.float32)
    ranks = np.full((*items.shape, len(lists)), UNRANKED, np.int16)
    rows = np.arange(len(items))[:, None]
    place = np.full(answers.raw[next(iter(lists))].shape, UNRANKED, np.int16)
    for number, (name, listed) in enumerate(lists.items()):
        scale = scales[name]
        found = (answers.raw[name][rows, safe] - np.float32(scale.mean)) / np.float32(scale.std)
        scores[:, :, number] = found * answers.answers[name][:, None]

        # A scratch map from items to places, which is cleaned after use.
        at, rank = np.nonzero(listed[:, :limit] >= 0)
        place[at, listed[at, rank]] = rank
        ranks[:, :, number] = np.where(items >= 0, place[rows, safe], UNRANKED)
        place[at, listed[at, rank]] = UNRANKED
    answered = np.stack([answers.answers[name] for name in lists], axis=1)
    return Pools(items, scores, ranks, answered)


Fused = Callable[[Pools], Float64]
"""From pools to float64[users, n]: by what the candidates are ordered."""


def borda(limit: int) -> Fused:
    """Return Borda's count: a candidate gets ``limit`` - rank points from each list it is in.

    Aslam & Montague 2001, https://doi.org/10.1145/383952.384007.
    """

    def points(pools: Pools) -> Float64:
        total: Float64 = np.maximum(limit - pools.ranks.astype(np.float64), 0.0).sum(axis=2)
        return total

    return points


def reciprocal_ranks(pools: Pools) -> Float64:
    """Return reciprocal rank fusion: Σ 1 / (60 + rank), ranks from 1, of the lists it is in."""
    listed = pools.ranks < UNRANKED
    total: Float64 = np.where(listed, 1.0 / (RRF_K + 1.0 + pools.ranks), 0.0).sum(axis=2)
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """The average of calibrated scores with weights of 0 or more that add up to 1."""

    weights: Float64

    def __call__(self, pools: Pools) -> Float64:
        """Return the averages, float64[users, n]."""
        return pools.scores @ self.weights


def fit_weighted(pools: Pools, relevant: ItemSets, k: int, *, seed: int) -> Weighted:
    """Return the weights with the best nDCG@k of those tried.

    Tried are each source alone, all alike, weights drawn uniformly, and ever smaller steps from the
    best of these.

    Args:
        pools: of the validation users.
        relevant: their relevant items.
        k: where lists are cut.
        seed: of what is drawn.
    """
    rng = np.random.default_rng([seed, 2])
    sources, allowed = pools.scores.shape[2], pools.there

    def value(weights: Float64) -> float:
        lists = pools.best(pools.scores @ weights, allowed, k)
        return float(ndcg(hits_of(lists, relevant, k)).mean())

    tried = [np.full(sources, 1 / sources), *np.eye(sources)]
    tried += list(rng.dirichlet(np.ones(sources), TRIES // 2)) if sources > 1 else []
    best = max(((value(weights), -n) for n, weights in enumerate(tried)))
    top, weights = best[0], tried[-best[1]]
    for number in range(TRIES // 2 if sources > 1 else 0):
        step = np.abs(weights + rng.normal(0.0, 0.3 * 0.9**number, sources))
        step /= step.sum()
        if (reached := value(step)) > top:
            top, weights = reached, step
    return Weighted(weights)


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """A linear model of the sources' calibrated scores and reciprocal ranks.

    ``mean`` and ``std`` bring the inputs to one scale; the logistic one orders as its logit does.
    """

    mean: Float64
    std: Float64
    coefficients: Float64

    def __call__(self, pools: Pools) -> Float64:
        """Return the predictions without the constant, which is all alike, float64[users, n]."""
        return ((inputs_of(pools) - self.mean) / self.std) @ self.coefficients


def fit_stacked(pools: Pools, relevant: ItemSets, *, logistic: bool) -> Stacked:
    """Fit whether a candidate turns out to be relevant: stacking, Wolpert 1992.

    By ridge regression, or by logistic regression (Newton's method), both with a penalty of 1 on
    the squared coefficients of the standardised inputs.

    Args:
        pools: of the validation users.
        relevant: their relevant items.
        logistic: whether the model is logistic.
    """
    allowed = pools.there
    rows = inputs_of(pools)[allowed]
    target = relevant.holds(pools.items)[allowed].astype(np.float64)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    std[std == 0] = 1.0
    design = np.column_stack([np.ones(len(rows)), (rows - mean) / std])
    penalty = RIDGE_L2 * np.diag([0.0, *np.ones(rows.shape[1])])

    if not logistic:
        solved = np.linalg.lstsq(design.T @ design + penalty, design.T @ target, rcond=None)[0]
        return Stacked(mean, std, solved[1:])

    return Stacked(mean, std, _logistic(design, target, penalty)[1:])


def _logistic(design: Float64, target: Float64, penalty: Float64) -> Float64:
    """Return the coefficients with the least penalised log loss, by Newton's method."""

    def cost(solved: Float64) -> float:
        logits = design @ solved
        losses = np.logaddexp(0.0, logits) - target * logits
        return float(losses.sum() + solved @ penalty @ solved / 2)

    share = np.clip(target.mean(), 1e-6, 1 - 1e-6)
    solved = np.zeros(design.shape[1])
    solved[0] = np.log(share / (1 - share))
    least = cost(solved)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ solved, -30, 30)))
        slope = design.T @ (target - chance) - penalty @ solved
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]

        # Far from the solution a whole step goes too far, where few rows are relevant.
        while (reached := cost(solved + step)) > least and np.abs(step).max() > TOO_SMALL:
            step /= 2
        if reached >= least:
            break
        solved, least = solved + step, reached
    return solved


def inputs_of(pools: Pools) -> Float64:
    """Return what a stacked model sees, float64[users, n, 2 * sources].

    Each source's calibrated score of a candidate, then its reciprocal rank in each list, 0 where it
    is not listed.
    """
    listed = pools.ranks < UNRANKED
    votes = np.where(listed, 1.0 / (1.0 + pools.ranks), 0.0)
    return np.concatenate([pools.scores, votes], axis=2, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Fusion:
    """A named way of ordering the pool, and what is to be said of it."""

    name: str
    fused: Any
    note: str


def fusions(
    names: Sequence[str],
    pools: Pools | None,
    relevant: ItemSets | None,
    k: int,
    *,
    limit: int,
    seed: int,
) -> list[Fusion]:
    """Return all ways of fusing; those that need fitting only where there is a validation part.

    Args:
        names: of the sources, in the pools' order.
        pools: of the validation users.
        relevant: their relevant items.
        k: where lists are cut.
        limit: how many candidates each source brings.
        seed: of what is drawn.
    """
    found = [
        Fusion("borda", borda(limit), "votes: Borda's count"),
        Fusion("rrf", reciprocal_ranks, "votes: reciprocal ranks, k = 60"),
    ]
    if pools is None or relevant is None or not pools.there.any():
        return found

    weighted = fit_weighted(pools, relevant, k, seed=seed)
    said = ", ".join(
        f"{name} {weight:.2f}" for name, weight in zip(names, weighted.weights, strict=True)
    )
    return [
        Fusion("weighted", weighted, f"weights fitted: {said}"),
        *found,
        Fusion("stack_ridge", fit_stacked(pools, relevant, logistic=False), "ridge on scores"),
        Fusion("stack_logistic", fit_stacked(pools, relevant, logistic=True), "logistic on scores"),
    ]
