"""From lists to figures: metrics by row and by group, intervals over users, paired tests."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from bandits.types import Float64
from simulator.ranking.gather import Gathered
from simulator.ranking.metrics.beyond import (
    ItemVectors,
    coverage,
    gini,
    intra_list_diversity,
    likeness_vectors,
    mean_of_items,
    popularity,
    self_information,
)
from simulator.ranking.metrics.groups import item_groups, user_groups
from simulator.ranking.metrics.lists import (
    LIST_METRICS,
    Hits,
    Lists,
    graded_ndcg,
    hits_of,
    rating_errors,
)
from simulator.ranking.metrics.significance import bootstrap, holm, intervals, paired_p_values
from simulator.ranking.report import Metric, PairedTest, RankerResult
from simulator.ranking.task import RankingTask


class UserColumns:
    """Values by user, a named column each, whose means get intervals from the same resamples."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._values: dict[tuple[str, ...], Float64] = {}
        self._places: dict[tuple[str, ...], int] = {}
        self._means: Float64 = np.empty((0, 0))
        self._ends: Float64 = np.empty((0, 2))

    def add(self, values: Float64, *name: str) -> None:
        """Add a column, float64[users], NaN where a user has no value."""
        self._values[name] = values

    def resample(self) -> None:
        """Draw the resamples of what has been added."""
        self._places = {name: place for place, name in enumerate(self._values)}
        self._means = bootstrap(np.stack(list(self._values.values()), axis=1), seed=self._seed)
        self._ends = intervals(self._means)

    def metric(self, *name: str) -> Metric:
        """Return a column's mean and interval."""
        values = self._values[name]
        values = values[np.isfinite(values)]
        if values.size == 0:
            return Metric(None)
        low, high = self._ends[self._places[name]].tolist()
        return Metric(float(values.mean()), low, high)

    def difference(self, left: tuple[str, ...], right: tuple[str, ...]) -> Metric:
        """Return the mean of a column less that of another, with the paired interval."""
        value = float(np.mean(self._values[left] - self._values[right]))
        apart = self._means[:, [self._places[left]]] - self._means[:, [self._places[right]]]
        low, high = intervals(apart)[0].tolist()
        return Metric(value, low, high)


def summarise(
    task: RankingTask,
    found: Gathered,
    vectors: ItemVectors,
    rated: Mapping[str, Float64],
    k: int,
    *,
    seed: int,
) -> tuple[list[RankerResult], list[PairedTest]]:
    """Return the results of every row, and the tests of every two.

    Args:
        task: the users.
        found: what they would have been recommended.
        vectors: what items are compared by.
        rated: predicted ratings of the task's ratings, by source.
        k: where lists are cut.
        seed: of the resampling.
    """
    columns, shares = UserColumns(seed), popularity(task.everyone, len(vectors.vectors))
    groups = item_groups(shares)
    members, _ = user_groups(task.known.sets.sizes)
    information = self_information(shares, len(task.everyone.starts) - 1)
    for name, lists in found.lists.items():
        hits = hits_of(lists, task.relevant, k)
        for metric, values in LIST_METRICS.items():
            columns.add(values(hits), name, metric)
        nothing = np.full(task.users, np.nan)
        columns.add(
            nothing if task.gains is None else graded_ndcg(lists, task.relevant, task.gains, k),
            name,
            "graded_ndcg",
        )
        columns.add(found.auc.get(name, nothing), name, "auc")
        columns.add(found.log_loss.get(name, nothing), name, "log_loss")
        columns.add(mean_of_items(lists, information), name, "novelty")
        columns.add(intra_list_diversity(lists, vectors), name, "diversity")
        columns.add(mean_of_items(lists, shares), name, "popularity")

        ndcg = LIST_METRICS["ndcg"](hits)
        for group, inside in members.items():
            columns.add(np.where(inside, ndcg, np.nan), name, "users", group)
        for group, inside in groups.items():
            columns.add(_recall_of(task, lists, hits, inside), name, "items", group)
    columns.resample()

    results = [
        _result(task, found, columns, name, rated.get(name), (tuple(members), tuple(groups)))
        for name in found.lists
    ]
    return results, _tests(list(found.lists), columns, task, found, k, seed=seed)


def _recall_of(task: RankingTask, lists: Lists, hits: Hits, inside: np.ndarray) -> Float64:
    """Return the recall of the relevant items of one group, NaN where a user has none."""
    owners = task.relevant.owners()
    wanted = np.bincount(owners[inside[task.relevant.indices]], minlength=task.users)
    part = hits.hits[:, : lists.shape[1]] & inside[np.maximum(lists, 0)]
    recall: Float64 = np.divide(
        part.sum(axis=1), wanted, out=np.full(task.users, np.nan), where=wanted > 0
    )
    return recall


def _result(
    task: RankingTask,
    found: Gathered,
    columns: UserColumns,
    name: str,
    predicted: Float64 | None,
    groups: tuple[tuple[str, ...], tuple[str, ...]],
) -> RankerResult:
    lists = found.lists[name]
    means = (*LIST_METRICS, "graded_ndcg", "auc", "log_loss", "novelty", "diversity", "popularity")
    metrics = {metric: columns.metric(name, metric) for metric in means}
    counts = np.bincount(lists[lists >= 0], minlength=task.items)
    metrics["coverage"] = Metric(coverage(counts))
    metrics["gini"] = Metric(gini(counts))
    if predicted is not None and predicted.size:
        errors = rating_errors(predicted, task.ratings)
        metrics |= {metric: Metric(value) for metric, value in errors.items()}

    source = name in found.ask_s
    return RankerResult(
        name=name,
        kind=_kind(name, found),
        metrics=metrics,
        user_groups={group: columns.metric(name, "users", group) for group in groups[0]},
        item_groups={group: columns.metric(name, "items", group) for group in groups[1]},
        answered=float(found.answered[name].mean()) if source else float((lists[:, 0] >= 0).mean()),
        ask_ms=1000 * found.ask_s[name] / task.users if source else None,
    )


def _kind(name: str, found: Gathered) -> str:
    if name in found.references:
        return "reference"
    if name in found.deep:
        return "source"
    return "scorer" if name in found.ask_s else "fusion"


def _tests(
    names: list[str], columns: UserColumns, task: RankingTask, found: Gathered, k: int, *, seed: int
) -> list[PairedTest]:
    if len(names) < 2:
        return []
    values = [LIST_METRICS["ndcg"](hits_of(found.lists[n], task.relevant, k)) for n in names]
    p_values = paired_p_values(np.stack(values, axis=1), seed=seed)
    tests = []
    for (left, right), p_value, adjusted in zip(
        combinations(names, 2), p_values.tolist(), holm(p_values).tolist(), strict=True
    ):
        apart = columns.difference((left, "ndcg"), (right, "ndcg"))
        tests.append(
            PairedTest(
                left,
                right,
                apart.value or 0.0,
                apart.low or 0.0,
                apart.high or 0.0,
                p_value,
                adjusted,
            )
        )
    return tests


def vectors_of(
    catalogue: Sequence[Mapping[str, Any]], items: Sequence[str], task: RankingTask, seed: int
) -> ItemVectors:
    """Return what items are compared by: their features, or who has them where they have none.

    Args:
        catalogue: ``{"id", "features"}`` each.
        items: the sources', in their order.
        task: the users.
        seed: of the projection.
    """
    codes: dict[str, int] = {}
    place_of = {item: place for place, item in enumerate(items)}
    pairs: list[tuple[int, int]] = []
    for item in catalogue:
        place = place_of.get(item["id"])
        if place is None:
            continue
        words = {
            f"{name}={value}"
            for name, given in item.get("features", {}).items()
            for value in (given if isinstance(given, list) else [given])
            if isinstance(value, str)
        }
        pairs += [(place, codes.setdefault(word, len(codes))) for word in sorted(words)]

    if pairs:
        columns = np.array(pairs, np.int64)
        return likeness_vectors(
            columns[:, 0], columns[:, 1], len(items), by="the items' features", seed=seed
        )
    everyone = task.everyone
    return likeness_vectors(
        everyone.indices, everyone.owners(), len(items), by="who has the items", seed=seed
    )
