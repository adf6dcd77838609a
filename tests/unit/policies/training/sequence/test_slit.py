"""Transitions: what is fitted is the closed form, and what is served reads the order."""

from dataclasses import asdict

import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import load_model
from policies.training.sequence.order import in_order
from policies.training.sequence.slit import SlitConfig, fit_slit

ITEMS = 9
CONFIG = SlitConfig(half_life=2.0, length=4, regularization=3.0)


def histories_in_order(rows: list[list[tuple[int, float]]], n_items: int = ITEMS) -> Histories:
    """Users' items, oldest first, with their weights."""
    cells = [
        sorted((item, time, weight) for time, (item, weight) in enumerate(row)) for row in rows
    ]
    flat = [cell for row in cells for cell in row]
    return Histories(
        items=tuple(map(str, range(n_items))),
        users=tuple(map(str, range(len(rows)))),
        starts=np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
        indices=np.array([item for item, _, _ in flat], np.int32),
        weights=np.array([weight for _, _, weight in flat], np.float32),
        times=np.array([time for _, time, _ in flat], np.int64),
    )


def drawn(seed: int = 3) -> Histories:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 2, 7, 9, 5]
    return histories_in_order(
        [
            [(int(item), float(rng.choice([0.0, 0.5, 1.0, 3.0]))) for item in row]
            for row in (rng.permutation(ITEMS)[:length] for length in lengths)
        ]
    )


def test_events_stand_in_their_order_without_those_that_say_nothing():
    events = in_order(histories_in_order([[(5, 1), (2, 0), (1, 2)], [], [(0, 0)], [(8, 1)]]))
    assert events.items.tolist() == [5, 1, 8]
    assert events.weights.tolist() == [1, 2, 1]
    assert events.after.tolist() == [1, 0, 0]
    assert events.starts.tolist() == [0, 2, 2, 2, 3]
    assert [each.tolist() for each in events.pairs(1)] == [[0], [1]]


def test_the_weights_are_those_of_ridge_regression_on_the_next_item():
    histories = drawn()
    past, following = [], []
    for user in range(len(histories.users)):
        items, weights = histories.row(user)
        items, weights = items[weights > 0], weights[weights > 0]
        for last in range(items.size - 1):
            row, target = np.zeros(ITEMS), np.zeros(ITEMS)
            for at in range(max(0, last - CONFIG.length + 1), last + 1):
                row[items[at]] = weights[at] * 0.5 ** ((last - at) / CONFIG.half_life)
            target[items[last + 1]] = weights[last + 1]
            past.append(row)
            following.append(target)
    s, t = np.array(past), np.array(following)
    squares = histories.weights[histories.weights > 0].astype(float) ** 2
    ridge = CONFIG.regularization * squares.mean() * np.eye(ITEMS)
    expected = np.linalg.solve(s.T @ s + ridge, s.T @ t)

    fitted = fit_slit(histories, CONFIG, step=lambda *_: None)
    found = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        found[item, fitted.arrays["neighbours"][item]] = fitted.arrays["similarities"][item]
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_newer_events_count_for_more_and_only_the_newest_are_looked_at():
    fitted = fit_slit(drawn(), CONFIG, step=lambda *_: None)
    model = load_model(fitted, ITEMS)
    alone = [
        model.raw(np.array([item]), np.ones(1, np.float32)).astype(float) for item in range(ITEMS)
    ]
    history, weights = np.array([3, 1, 7, 0, 5, 2]), np.array([1, 1, 2, 0, 1, 1], np.float32)
    fade = 0.5 ** (1 / CONFIG.half_life)
    expected = alone[2] + fade * alone[5] + 2 * fade**2 * alone[7] + fade**3 * alone[1]
    np.testing.assert_allclose(model.raw(history, weights), expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(model.raw(history[::-1], weights[::-1]), expected)


def test_of_a_history_of_ten_thousand_events_the_newest_count():
    items = 300
    row = [(item, 1.0) for item in range(items)]
    fitted = fit_slit(
        histories_in_order([row, row[:1], row[5:7]], items), SlitConfig(), step=lambda *_: None
    )
    model = load_model(fitted, items)
    long = np.resize(np.arange(items), 10_000)
    scores = model.raw(long, np.ones(long.size, np.float32))
    assert scores.argmax() == long[-1] + 1
    newest = long[-SlitConfig().length :]
    assert np.array_equal(scores, model.raw(newest, np.ones(newest.size, np.float32)))


@pytest.mark.parametrize(
    ("config", "named"),
    [({"length": 0}, "length"), ({"length": 1.5}, "length"), ({"half_life": None}, "half_life")],
)
def test_numbers_that_are_none_are_refused(config, named):
    fitted = fit_slit(drawn(), CONFIG, step=lambda *_: None)
    damaged = TrainedSource("slit", fitted.arrays, {**asdict(CONFIG), **config})
    with pytest.raises(ArtifactError, match=f"slit: {named} must be a"):
        load_model(damaged, ITEMS)


def test_weights_beyond_all_bounds_are_an_error():
    histories = histories_in_order([[(0, 1e30), (1, 1e30), (2, 1e30)]] * 2)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ArtifactError, match="slit: the weights are too large"),
    ):
        fit_slit(histories, CONFIG, step=lambda *_: None)
