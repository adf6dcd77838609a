"""Relevant items in a pool of several sources' candidates, by sources and limit."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.ranking.gather import DEPTH, LIMITS, Gathered, places_of_relevant
from simulator.ranking.metrics.lists import hits_of, ndcg
from simulator.ranking.metrics.significance import bootstrap, intervals
from simulator.ranking.report import Metric, PoolRow
from simulator.ranking.task import RankingTask

LIMIT: Final = 30
"""Candidates of each source in the pools of one source, of two, and so on: a spec's default."""
SIZED_USERS: Final = 1_000
"""Users by whom the size of a pool is measured."""


def pools_by_sources(task: RankingTask, found: Gathered, *, seed: int) -> list[PoolRow]:
    """Return the best pool of one source, then with the source that adds most, and so on.

    A source adds the recall of the pool with it, less that of the pool without it whose limit is
    raised until it is as large: so a source is not praised for more candidates of the same.

    Args:
        task: the users.
        found: what the sources would have recommended.
        seed: of the resampling.
    """
    places = places_of_relevant(found.deep, task.relevant)
    names = list(found.deep)
    rows: list[PoolRow] = []
    taken: list[int] = []
    while len(taken) < len(names):
        options = []
        for number in range(len(names)):
            if number in taken:
                continue
            chosen = [*taken, number]
            reached = _recall(task, places, chosen, LIMIT)
            size = _size(found, [names[i] for i in chosen], LIMIT)
            before = np.zeros(task.users)
            if taken:
                held = [names[i] for i in taken]
                wider = next(
                    (n for n in range(LIMIT, DEPTH) if _size(found, held, n) >= size), DEPTH
                )
                before = _recall(task, places, taken, wider)
            options.append((float((reached - before).mean()), -number, reached, before, size))

        best = max(options, key=lambda option: option[:2])
        taken.append(-best[1])
        rows.append(
            PoolRow(
                sources=[names[i] for i in taken],
                limit=LIMIT,
                recall=float(best[2].mean()),
                gain=_with_interval(best[2] - best[3], seed),
                size=best[4],
            )
        )
    return rows


def pools_by_limit(task: RankingTask, found: Gathered, k: int, *, seed: int) -> list[PoolRow]:
    """Return the pool of all sources by limit, and how well a fusion orders it.

    Args:
        task: the users.
        found: what the sources would have recommended.
        k: where lists are cut.
        seed: of the resampling.
    """
    places = places_of_relevant(found.deep, task.relevant)
    names = list(found.deep)
    rows, before = [], np.zeros(task.users)

    for limit in LIMITS:
        reached = _recall(task, places, list(range(len(names))), limit)
        ordered = None
        if limit in found.by_limit:
            ordered = _with_interval(ndcg(hits_of(found.by_limit[limit], task.relevant, k)), seed)
        rows.append(
            PoolRow(
                sources=names,
                limit=limit,
                recall=float(reached.mean()),
                gain=_with_interval(reached - before, seed),
                size=_size(found, names, limit),
                ndcg=ordered,
            )
        )
        before = reached
    return rows


def _recall(
    task: RankingTask, places: NDArray[np.int16], chosen: Sequence[int], limit: int
) -> Float64:
    """Return the share of each user's relevant items that a pool holds, float64[users].

    Each counts by what it is worth.
    """
    inside = places[:, list(chosen)].min(axis=1) < limit
    gains = np.ones(inside.size) if task.gains is None else task.gains
    held, wanted = (
        np.add.reduceat(values, task.relevant.starts[:-1]) for values in (inside * gains, gains)
    )
    return held / wanted


def _size(found: Gathered, names: Sequence[str], limit: int) -> float:
    """Return how many different items are in a pool, on average over some users."""
    every = np.concatenate([found.deep[name][:SIZED_USERS, :limit] for name in names], axis=1)
    every = np.sort(every, axis=1)
    fresh = np.ones(every.shape, np.bool_)
    fresh[:, 1:] = every[:, 1:] != every[:, :-1]
    return float((fresh & (every >= 0)).sum(axis=1).mean())


def _with_interval(values: Float64, seed: int) -> Metric:
    low, high = intervals(bootstrap(values[:, None], seed=seed))[0].tolist()
    return Metric(float(values.mean()), low, high)
