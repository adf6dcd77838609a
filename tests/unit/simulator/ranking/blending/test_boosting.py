"""Trees on the sources' scores: they see what a linear model cannot."""

import sys

import numpy as np
import pytest
from support.small_ranking import crowds, items_of, train_small

from policies.data.manifest import WeightOptions
from simulator.ranking.blending import boosting
from simulator.ranking.blending.boosting import fit_boosted
from simulator.ranking.evaluate import RankingOptions, evaluate_sources
from simulator.ranking.fusion import Pools, fit_stacked
from simulator.ranking.metrics.lists import ItemSets


def agreeing(users, seed):
    """Candidates that are relevant where two sources agree: both high, or both low."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(users, 20, 2)).astype(np.float32)
    items = np.tile(np.arange(20, dtype=np.int32), (users, 1))
    items[::3, 15:] = -1
    relevant = (scores.prod(axis=2) > 0) & (items >= 0)
    starts = np.append(0, np.cumsum(relevant.sum(axis=1))).astype(np.int64)
    sets = ItemSets(starts, items[relevant])
    ranks = np.zeros((users, 20, 2), np.int16)
    return Pools(items, scores, ranks, np.ones((users, 2), np.bool_)), sets


def hit_rate(fused, pools, relevant):
    best = pools.best(fused(pools), pools.there, 1)
    return float(relevant.holds(best).mean())


def test_what_sources_agree_on_is_seen_by_trees_and_not_by_a_line():
    pytest.importorskip("sklearn")
    taught, others = agreeing(200, 1), agreeing(200, 2)
    trees, line = fit_boosted(*taught), fit_stacked(*taught, logistic=True)
    assert hit_rate(trees, *others) > 0.95
    assert hit_rate(line, *others) < 0.8

    again = fit_boosted(*taught)
    assert np.array_equal(trees(others[0]), again(others[0]))


def test_where_nothing_is_relevant_there_is_nothing_to_learn():
    pytest.importorskip("sklearn")
    pools, _ = agreeing(20, 1)
    nothing = ItemSets(np.zeros(21, np.int64), np.empty(0, np.int32))
    assert fit_boosted(pools, nothing) is None


def test_a_few_candidates_that_stand_far_out_do_not_turn_the_logistic_order_around():
    """Newton's whole steps overshoot where a chance is nearly 0: they were taken once."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.05, size=(50, 100, 2)).astype(np.float32)
    scores[:, 0] = rng.exponential(40.0, size=(50, 2))
    items = np.tile(np.arange(100, dtype=np.int32), (50, 1))
    relevant = np.zeros((50, 100), np.bool_)
    relevant[:45, 0] = relevant[::9, 7] = True
    starts = np.append(0, np.cumsum(relevant.sum(axis=1))).astype(np.int64)
    ranks = np.zeros((50, 100, 2), np.int16)
    pools = Pools(items, scores, ranks, np.ones((50, 2), np.bool_))
    sets = ItemSets(starts, items[relevant])
    assert hit_rate(fit_stacked(pools, sets, logistic=True), pools, sets) > 0.85


def names_of_rows():
    events, options = crowds(users=120), RankingOptions(split="user-time")
    report = evaluate_sources(
        "small", events, items_of(events), WeightOptions(), options, train_small
    )
    return [row.name for row in report.results]


def test_an_evaluation_has_a_row_of_it_where_the_library_is_installed(monkeypatch):
    pytest.importorskip("sklearn")
    assert "stack_boosted" in names_of_rows()
    monkeypatch.setattr(boosting, "find_spec", lambda _name: None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "stack_boosted" not in names_of_rows()
