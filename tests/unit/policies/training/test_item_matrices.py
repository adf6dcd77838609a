"""EASE, RP³β and neighbours against their definitions, on dense matrices in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import load_model
from policies.training.cf import KnnConfig, fit_item_knn
from policies.training.ease import EaseConfig, fit_ease
from policies.training.neighbours import largest_of_rows
from policies.training.rp3beta import Rp3betaConfig, fit_rp3beta

N_USERS, N_ITEMS = 50, 12


def make_histories(seed: int = 0, n_users: int = N_USERS, n_items: int = N_ITEMS) -> Histories:
    """Users with 1 to 6 items each; an interaction in five has weight 0, the last item none."""
    rng = np.random.default_rng(seed)
    rows = [
        np.sort(rng.choice(n_items - 1, rng.integers(1, 7), replace=False)) for _ in range(n_users)
    ]
    indices = np.concatenate(rows).astype(np.int32)
    weights = rng.uniform(0.1, 3, indices.size) * (rng.random(indices.size) > 0.2)
    return Histories(
        items=tuple(f"item-{i}" for i in range(n_items)),
        users=tuple(f"user-{u}" for u in range(n_users)),
        starts=np.append(0, np.cumsum([row.size for row in rows])),
        indices=indices,
        weights=weights.astype(np.float32),
    )


HISTORIES = make_histories()


def dense(histories: Histories) -> NDArray[np.float64]:
    matrix = np.zeros((len(histories.users), len(histories.items)))
    for user in range(len(histories.users)):
        indices, weights = histories.row(user)
        matrix[user, indices] = weights
    return matrix


def unpacked(source: TrainedSource) -> NDArray[np.float64]:
    """The whole matrix of similarities, by way of the model that serves them."""
    items = len(source.arrays["neighbours"])
    model = load_model(source, items)
    one = np.ones(1, np.float32)
    return np.array([model.raw(np.array([i]), one) for i in range(items)])


def test_ease_is_the_least_squares_of_each_item_from_all_others() -> None:
    """Ridge regressions, one per item: Steck's objective with a diagonal of 0."""
    matrix = dense(HISTORIES)
    penalty = 3.0 * np.mean(matrix[matrix > 0] ** 2)
    found = unpacked(fit_ease(HISTORIES, EaseConfig(regularization=3.0), step=_quiet))
    for item in range(N_ITEMS):
        others = np.arange(N_ITEMS) != item
        inputs = matrix[:, others]
        expected = np.linalg.solve(
            inputs.T @ inputs + penalty * np.eye(N_ITEMS - 1), inputs.T @ matrix[:, item]
        )
        np.testing.assert_allclose(found[others, item], expected, rtol=1e-3, atol=1e-5)
        assert found[item, item] == 0


def test_ease_does_not_mind_the_unit_of_the_weights() -> None:
    ten = Histories(
        HISTORIES.items,
        HISTORIES.users,
        HISTORIES.starts,
        HISTORIES.indices,
        HISTORIES.weights * 1000,
    )
    config = EaseConfig(regularization=20.0)
    one, other = (unpacked(fit_ease(of, config, step=_quiet)) for of in (HISTORIES, ten))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_ease_keeps_the_largest_of_either_sign() -> None:
    every, few = (
        unpacked(fit_ease(HISTORIES, EaseConfig(3.0, neighbours), step=_quiet))
        for neighbours in (400, 4)
    )
    assert (np.count_nonzero(few, axis=1) <= 4).all()
    kept = few != 0
    assert np.array_equal(few[kept], every[kept])
    left, least = np.abs(every) * ~kept, np.where(kept, np.abs(every), np.inf)
    assert (left.max(axis=1) <= least.min(axis=1)).all()


def test_largest_of_ties_and_of_one_item() -> None:
    found = largest_of_rows(np.array([[0, 2, 2], [-5, 0, 1], [0, 0, 0]], np.float32), 1)
    assert found["similarities"].tolist() == [[2], [-5], [0]]
    assert found["neighbours"].shape == (3, 1)
    assert largest_of_rows(np.zeros((1, 1), np.float32), 5)["similarities"].tolist() == [[0]]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.4, 0.6), (1.3, 0.2)])
def test_rp3beta_is_the_walk_of_three_steps(alpha: float, beta: float) -> None:
    matrix = dense(HISTORIES)
    of_user, of_item = matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        to_item = np.nan_to_num((matrix / of_user[:, None]) ** alpha)
        to_user = np.nan_to_num((matrix / of_item) ** alpha)
        expected = np.nan_to_num((to_user.T @ to_item) / of_item**beta)
    np.fill_diagonal(expected, 0)

    found = unpacked(fit_rp3beta(HISTORIES, Rp3betaConfig(alpha, beta), step=_quiet))
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    # Of few neighbours, those with the highest product in the row.
    few = unpacked(fit_rp3beta(HISTORIES, Rp3betaConfig(alpha, beta, 3), step=_quiet))
    np.testing.assert_allclose(
        few, np.where(expected >= np.sort(expected, axis=1)[:, [-3]], expected, 0), rtol=1e-5
    )


def test_item_knn_is_the_cosine_of_columns() -> None:
    matrix = dense(HISTORIES)
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    expected = unit.T @ unit
    np.fill_diagonal(expected, 0)
    source = fit_item_knn(HISTORIES, KnnConfig(100, "cosine"), step=_quiet)
    np.testing.assert_allclose(unpacked(source), expected, rtol=1e-5)
    assert source.arrays["neighbours"].shape[1] < N_ITEMS, "padded no further than the longest row"
    assert (np.diff(source.arrays["similarities"], axis=1) <= 0).all(), "best first"


def _quiet(_done: int, _total: int) -> None:
    pass
