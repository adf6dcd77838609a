"""A compiled loop over the neighbours of a history's items."""

import numpy as np
from numba import types

from bandits.kernels.compiled import Float32, Int32, Int64, compiled, f4s, f4ss, i4ss, i8s


@compiled(i4ss, f4ss, i8s, f4s, returns=types.float32[::1])
def sum_similarities(
    neighbours: Int32, similarities: Float32, indices: Int64, weights: Float32
) -> Float32:
    """Return every item's summed similarity to the items of a history, float32[items].

    Sums are of float64, in the order of the history and of each item's neighbours.

    Args:
        neighbours: int32[items, K], places of items.
        similarities: float32[items, K].
        indices: int64[h], places of the history's items.
        weights: float32[h], what the similarities to each are multiplied by.
    """
    sums = np.zeros(len(neighbours))
    for h in range(indices.size):
        row = indices[h]
        for k in range(neighbours.shape[1]):
            sums[neighbours[row, k]] += np.float64(similarities[row, k] * weights[h])
    return sums.astype(np.float32)
