"""Metrics of ranked lists equal those of well-kept libraries, and their own definitions."""

import json
import math
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, roc_auc_score
from support.ranx_reference import CUTS, METRICS, by_ranx, make_lists

from simulator.ranking.metrics.beyond import (
    coverage,
    gini,
    intra_list_diversity,
    likeness_vectors,
    mean_of_items,
    popularity,
    self_information,
)
from simulator.ranking.metrics.lists import (
    LIST_METRICS,
    ItemSets,
    auc,
    graded_ndcg,
    hits_of,
    rating_errors,
)

PINNED = json.loads((Path(__file__).parents[3] / "fixtures/ranking/ranx.json").read_text())


def sets_of(rows):
    return ItemSets(
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        np.array([item for row in rows for item in sorted(row)], np.int32),
    )


def padded(rows):
    lists = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for user, row in enumerate(rows):
        lists[user, : len(row)] = row
    return lists


def ours(metric, k):
    lists, relevant = make_lists()
    return LIST_METRICS[metric](hits_of(padded(lists), sets_of(relevant), k))


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("metric", METRICS)
def test_lists_are_judged_as_ranx_judges_them(metric, k):
    """The figures are those of tests/support/ranx_reference.py."""
    assert ours(metric, k) == pytest.approx(PINNED["metrics"][f"{metric}@{k}"], abs=1e-9)


@pytest.mark.skipif(find_spec("ranx") is None, reason="ranx is not installed")
def test_the_pinned_figures_are_those_of_ranx():
    found = by_ranx()
    assert found.keys() == PINNED["metrics"].keys()
    for name, values in found.items():
        assert values == pytest.approx(PINNED["metrics"][name], abs=1e-9)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_graded_ndcg_is_scikit_learns(k):
    """Each relevant item has a gain of its own."""
    rng = np.random.default_rng(8)
    lists = np.stack([rng.permutation(40) for _ in range(30)]).astype(np.int32)
    relevant = [rng.permutation(40)[: int(rng.integers(1, 20))].tolist() for _ in range(30)]
    gains = rng.choice([0.5, 1.0, 3.0, 10.0], sum(map(len, relevant)))
    found = graded_ndcg(lists, sets_of(relevant), gains, k)

    starts = np.concatenate([[0], np.cumsum([len(mine) for mine in relevant])])
    for user, mine in enumerate(relevant):
        worth, scores = np.zeros(40), np.zeros(40)
        worth[sorted(mine)] = gains[starts[user] : starts[user + 1]]
        scores[lists[user]] = -np.arange(40)
        assert found[user] == pytest.approx(ndcg_score([worth], [scores], k=k), abs=1e-9)


def test_graded_ndcg_of_lists_that_are_short_or_empty_and_of_equal_gains():
    lists, relevant = padded([[3, 1], [], [0]]), sets_of([[1, 2], [0], []])
    discount = 1 / math.log2(3)
    found = graded_ndcg(lists, relevant, np.array([2.0, 4.0, 1.0]), 5)
    assert found == pytest.approx([2 * discount / (4 + 2 * discount), 0, 0], abs=1e-12)
    alike = graded_ndcg(lists, relevant, np.full(3, 2.0), 5)
    assert alike == pytest.approx(LIST_METRICS["ndcg"](hits_of(lists, relevant, 5)), abs=1e-12)


def test_auc_is_scikit_learns():
    """Ties and items that a source does not propose included."""
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 6, (30, 50)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    relevant, barred = [], []
    for _ in range(30):
        order = rng.permutation(50)
        relevant.append(order[: int(rng.integers(1, 8))].tolist())
        barred.append(order[10 : 10 + int(rng.integers(0, 12))].tolist())

    found = auc(scores, sets_of(relevant), sets_of(barred))
    for user in range(30):
        ranked = [item for item in range(50) if item not in barred[user]]
        finite = np.where(np.isinf(scores[user, ranked]), -1.0, scores[user, ranked])
        expected = roc_auc_score([item in relevant[user] for item in ranked], finite)
        assert found[user] == pytest.approx(expected, abs=1e-9)


def test_auc_of_nothing_relevant_or_nothing_else_is_no_number():
    values = auc(np.ones((2, 3), np.float32), sets_of([[], [0, 1]]), sets_of([[], [2]]))
    assert np.isnan(values).all()


def test_errors_of_ratings_are_scikit_learns():
    rng = np.random.default_rng(4)
    predicted, ratings = rng.normal(3, 1, 100), rng.integers(1, 6, 100).astype(float)
    errors = rating_errors(predicted, ratings)
    assert errors["mse"] == pytest.approx(mean_squared_error(ratings, predicted), abs=1e-12)
    assert errors["rmse"] == pytest.approx(errors["mse"] ** 0.5, abs=1e-12)
    assert errors["mae"] == pytest.approx(mean_absolute_error(ratings, predicted), abs=1e-12)


def test_gini_and_coverage_of_what_is_recommended():
    """Gini by its first definition: half the mean difference of two items over the mean."""
    counts = np.array([0, 3, 3, 10, 1])
    pairs = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(pairs / (2 * counts.mean()), abs=1e-12)
    assert gini(np.full(7, 4)) == pytest.approx(0, abs=1e-12)
    assert gini(np.zeros(3)) == 0
    assert coverage(counts) == 0.8


def test_popularity_and_novelty_of_a_list():
    shares = popularity(sets_of([[0, 1], [0], [0, 2], [0]]), 4)
    assert shares.tolist() == [1, 0.25, 0.25, 0]
    novelty = mean_of_items(padded([[0, 1], [3], []]), self_information(shares, 4))
    assert novelty[:2].tolist() == [1, 2]
    assert math.isnan(novelty[2])


def test_diversity_is_one_less_the_mean_cosine_of_pairs():
    rng = np.random.default_rng(5)
    items, features = np.nonzero(rng.random((12, 30)) < 0.3)
    of = likeness_vectors(items, features, 12, by="features", seed=1)
    lists = padded([[0, 3, 5, 7], [2, 1], [4], []])

    expected = [
        1 - np.mean([of.vectors[a] @ of.vectors[b] for a, b in combinations(row, 2)])
        for row in ([0, 3, 5, 7], [2, 1])
    ]
    found = intra_list_diversity(lists, of)
    assert found[:2] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found[2:]).all()


def test_random_signs_keep_the_cosines_of_sets():
    """Over many pairs the error averages out: each has a deviation of 1 / √128 at most."""
    rng = np.random.default_rng(6)
    owned = rng.random((60, 200)) < 0.2
    items, features = np.nonzero(owned)
    of = likeness_vectors(items, features, 60, by="features", seed=2)
    exact = (owned @ owned.T.astype(float)) / np.sqrt(np.outer(owned.sum(1), owned.sum(1)))
    apart = (of.vectors @ of.vectors.T - exact)[np.triu_indices(60, 1)]
    assert abs(apart.mean()) < 4 / math.sqrt(128 * 60)
    assert apart.std() < 1.2 / math.sqrt(128)
