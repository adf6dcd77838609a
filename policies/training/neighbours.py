"""The most similar items of each item, and what is kept of a matrix of similarities."""

from typing import Any

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bandits.types import Float32


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
    found = model.similarity.tocoo()

    others = (found.row != found.col) & (found.data != 0)
    item, other, value = found.row[others], found.col[others], found.data[others]
    return _best(item, other, value, user_items.shape[1], count)


def _best(
    item: NDArray[Any], other: NDArray[Any], value: NDArray[Any], items: int, count: int
) -> dict[str, NDArray[Any]]:
    """Return the rows of ``most_similar`` of triples."""
    order = np.lexsort((other, -value, item))
    item, other, value = item[order], other[order], value[order]

    rank = np.arange(item.size) - np.searchsorted(item, item)
    kept = rank < count
    width = max(1, int(rank[kept].max(initial=0)) + 1)

    neighbours = np.zeros((items, width), np.int32)
    similarities = np.zeros((items, width), np.float32)
    neighbours[item[kept], rank[kept]] = other[kept]
    similarities[item[kept], rank[kept]] = value[kept]
    return {"neighbours": neighbours, "similarities": similarities}


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
