"""The most similar items of each item, and what is kept of a matrix of similarities."""

from typing import Any, Final

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bandits.types import Float32

ROWS_AT_ONCE: Final = 16_384
"""Items that are put in order at once, which bounds the memory."""


def most_similar(user_items: csr_matrix, count: int) -> dict[str, NDArray[Any]]:
    """Return each item's most similar other items: of the products of all pairs of columns.

    Ties go to the earlier item. The bytes are the same whatever the number of threads, since each
    item is one thread's.

    Args:
        user_items: float[users, items], weighted so that the product of two columns is their
            similarity.
        count: how many are kept of an item.

    Returns:
        ``neighbours``, int32[items, K], and ``similarities``, float32[items, K], best first; a row
        with fewer than K is padded with similarity 0.
    """
    # One more, since an item is its own nearest.
    model = ItemItemRecommender(K=count + 1)
    model.fit(user_items, show_progress=False)
    found = model.similarity
    found.sort_indices()

    items = user_items.shape[1]
    parts = [_best(found[i : i + ROWS_AT_ONCE], i, count) for i in range(0, items, ROWS_AT_ONCE)]
    neighbours, similarities = map(np.concatenate, zip(*parts, strict=True))
    width = max(1, int(np.count_nonzero(similarities, axis=1).max(initial=0)))
    return {
        "neighbours": np.ascontiguousarray(neighbours[:, :width]),
        "similarities": np.ascontiguousarray(similarities[:, :width]),
    }


def _best(rows: csr_matrix, first: int, count: int) -> tuple[NDArray[np.int32], Float32]:
    """Return neighbours and similarities of some items, from ``first`` on, padded to ``count``."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    at = row, np.arange(row.size) - rows.indptr[row]
    others = np.zeros((rows.shape[0], count + 1), np.int32)
    values = np.full(others.shape, -np.inf)
    others[at] = rows.indices
    values[at] = np.where((rows.indices == row + first) | (rows.data == 0), -np.inf, rows.data)

    # Stable, so that ties stay in the order of the items.
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    others, values = (np.take_along_axis(array, order, axis=1) for array in (others, values))
    missing = values == -np.inf
    others[missing], values[missing] = 0, 0
    return others, values.astype(np.float32)


def largest_of_rows(matrix: Float32, count: int) -> dict[str, NDArray[Any]]:
    """Return what is kept of a dense matrix of similarities: each row's largest, either sign.

    Args:
        matrix: float[items, items], 0 on the diagonal.
        count: how many are kept of a row; all, if it has no more.

    Returns:
        As ``most_similar``, but a row's items ascend.
    """
    items = len(matrix)
    width = max(1, min(count, items - 1))
    neighbours = np.zeros((items, width), np.int32)
    similarities = np.zeros((items, width), np.float32)

    for item, row in enumerate(matrix):
        kept = np.argpartition(-np.abs(row), width - 1)[:width]
        kept.sort()
        neighbours[item], similarities[item] = kept, row[kept]
    return {"neighbours": neighbours, "similarities": similarities}
