"""Libraries' own item-kNN and EASE, as rankings of source_quality.py.

    pip install lenskit==2025.8.1        EASE; without it that row has no peer

LensKit's EASE takes no weights: what it is given is who interacted with what.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
from implicit.nearest_neighbours import TFIDFRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from policies.artifacts.histories import Histories
from policies.training.cf import user_items

Ranking = Callable[[str], list[str]]

PEER_KNN = (50, 100, 200)
"""Neighbours of ``implicit``'s TF-IDF model."""
PEER_EASE = (50.0, 100.0, 200.0, 300.0, 500.0)
"""λ of LensKit's EASE."""
# The best of the two grids on the validation part, with what they are given.
BEST_PEER_KNN = "graded", 200
BEST_PEER_EASE = "liked", 200.0


def peer_knn(histories: Histories, neighbours: int) -> Ranking:
    """What implicit itself does: fit and recommend."""
    # The item itself is one of its own nearest.
    model = TFIDFRecommender(K=neighbours + 1)
    interactions = user_items(histories)
    model.fit(interactions, show_progress=False)
    ids, scores = model.recommend(
        np.arange(len(histories.users)),
        interactions,
        N=10 + int(np.diff(histories.starts).max()),
        filter_already_liked_items=False,
    )
    return _unseen(histories, ids, scores)


def has_ease() -> bool:
    """Whether LensKit is there."""
    return find_spec("lenskit") is not None


def lenskit_data(users: NDArray[Any], items: NDArray[Any]) -> Any:
    """Return LensKit's data set of who interacted with what, by number."""
    from lenskit.data import DatasetBuilder  # noqa: PLC0415

    builder = DatasetBuilder()
    builder.add_interactions(
        "interaction",
        pa.table({"user_id": users, "item_id": items}),
        entities=["user", "item"],
        missing="insert",
        default=True,
    )
    return builder.build()


def peer_ease(histories: Histories, regularization: float) -> Ranking:
    """LensKit's fit and scores."""
    from lenskit.data import ItemList, RecQuery  # noqa: PLC0415
    from lenskit.knn import EASEScorer  # noqa: PLC0415

    interactions = user_items(histories)
    rows = np.repeat(np.arange(len(histories.users)), np.diff(interactions.indptr))
    data = lenskit_data(rows, interactions.indices)
    model = EASEScorer(regularization=regularization)
    model.train(data)

    every = data.items.ids()
    scores = np.full((len(histories.users), len(every)), -np.inf)
    for user in range(len(histories.users)):
        query = RecQuery(user_id=user, history_items=ItemList(item_ids=interactions[user].indices))
        scores[user] = model(query, ItemList(item_ids=every)).scores()
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")
    return _unseen(histories, every[order], np.take_along_axis(scores, order, axis=1))


def _unseen(histories: Histories, ids: np.ndarray, scores: np.ndarray) -> Ranking:
    """The ten best that a user has not seen, of items and scores by user, best first."""
    seen = csr_matrix(
        (np.ones_like(histories.weights), histories.indices, histories.starts),
        shape=(len(histories.users), len(histories.items)),
    )

    def best(user: str) -> list[str]:
        row = histories.user_index[user]
        known = set(seen[row].indices.tolist())
        found = [int(i) for i in ids[row][np.isfinite(scores[row])] if i >= 0 and i not in known]
        return [histories.items[i] for i in found[:10]]

    return best
