"""Popularity by event time: what counts, and how the half-life is chosen."""

import numpy as np

from policies.artifacts.histories import Histories
from policies.sources import load_model
from policies.training.trending import (
    DAY_MS,
    TrendingConfig,
    fit_trending,
)


def make_histories(
    days: list[float], items: list[int], weights: list[float], n_items: int
) -> Histories:
    """Of as many users as there are events."""
    n = len(days)
    return Histories(
        items=tuple(map(str, range(n_items))),
        users=tuple(map(str, range(n))),
        starts=np.arange(n + 1),
        indices=np.array(items, np.int32),
        weights=np.array(weights, np.float32),
        times=np.array([round(day * DAY_MS) if day >= 0 else -1 for day in days], np.int64),
    )


def test_an_event_counts_half_with_every_half_life_before_the_last_event() -> None:
    """In any order; without a time or a weight it counts nothing."""
    histories = make_histories([106, 100, 103, -1, 500], [0, 0, 1, 2, 3], [2, 1, 8, 9, 0], 5)
    source = fit_trending(histories, TrendingConfig(half_life_days=3), step=_quiet)
    np.testing.assert_allclose(source.arrays["counts"], [2 + 1 / 4, 8 / 2, 0, 0, 0])
    assert source.config == {"half_life_days": 3}

    model = load_model(source, 5)
    scores = model.raw(np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert not model.needs_history
    assert (scores > model.floor).tolist() == [True, True, False, False, False]


def test_the_half_life_follows_how_fast_the_data_changes() -> None:
    """Items that are in fashion for a day; and items whose popularity stays what it is."""
    rng = np.random.default_rng(5)
    n, n_items = 20_000, 50
    days = np.sort(rng.uniform(0, 64, n))
    steady = rng.geometric(0.1, n) % n_items
    fashions = np.where(rng.random(n) < 0.8, days.astype(int) % n_items, steady)
    weights = np.ones(n)

    def chosen(items: np.ndarray) -> float:
        histories = make_histories(days.tolist(), items.tolist(), weights.tolist(), n_items)
        found = fit_trending(histories, TrendingConfig(), step=_quiet).config
        return float(found["half_life_days"])

    assert chosen(steady) >= 4
    assert chosen(fashions) < 1


def test_events_of_one_moment_are_counted() -> None:
    histories = make_histories([7, 7, 7], [1, 1, 0], [1, 1, 1], 2)
    found = fit_trending(histories, TrendingConfig(), step=_quiet)
    assert found.arrays["counts"].tolist() == [1, 2]


def _quiet(_done: int, _total: int) -> None:
    pass
