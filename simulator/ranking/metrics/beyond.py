"""Metrics of what is recommended: coverage, popularity, novelty, diversity, inequality."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, Float64
from simulator.ranking.metrics.lists import ItemSets, Lists

DIMENSIONS: Final = 128
"""The dimensions of vectors that items are compared by."""
AT_ONCE: Final = 1 << 22
"""Numbers that are gathered at a time, which bounds the memory."""


def coverage(counts: NDArray[Any]) -> float:
    """Return the share of all items that were recommended to anybody.

    Args:
        counts: how often each item was recommended, int[items].
    """
    return float(np.count_nonzero(counts) / max(1, counts.size))


def gini(counts: NDArray[Any]) -> float:
    """Return the Gini index of how often items were recommended: 0 all alike, 1 one item alone.

    Σ (2i - n - 1) c_i / (n Σ c_i), with c_1 ≤ … ≤ c_n the counts of all n items (Adomavicius & Kwon
    2012, https://doi.org/10.1109/TKDE.2011.15; 0 where nothing was recommended).

    Args:
        counts: int[items].
    """
    total, n = counts.sum(), counts.size
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts) / (n * total))


def mean_of_items(lists: Lists, values: Float64) -> Float64:
    """Return the mean of a list's items' values, float64[users]; NaN for an empty list.

    Args:
        lists: int32[users, k], -1 where a list has ended.
        values: of each item.
    """
    there = lists >= 0
    sums = np.where(there, values[np.maximum(lists, 0)], 0.0).sum(axis=1)
    return _mean(sums, there.sum(axis=1))


def popularity(histories: ItemSets, items: int) -> Float64:
    """Return the share of the training users whose history has each item, float64[items].

    Args:
        histories: of all training users.
        items: how many items there are.
    """
    return np.bincount(histories.indices, minlength=items) / max(1, len(histories.starts) - 1)


def self_information(shares: Float64, users: int) -> Float64:
    """Return how unexpected each item is, -log₂ of its popularity: a list's mean is its novelty.

    Zhou et al. 2010, https://doi.org/10.1073/pnas.1000488107. An item without a user counts as if
    it had one.

    Args:
        shares: the popularity of each item.
        users: how many there are.
    """
    return -np.log2(np.maximum(shares, 1 / max(1, users)))


@dataclass(frozen=True, slots=True, eq=False)
class ItemVectors:
    """The vectors that items are compared by: float32[items, d], whose products are cosines.

    ``by`` says what of: the items' own features, or who has them in the history. ``squares``,
    float32[items], is each vector's product with itself.
    """

    vectors: Float32
    squares: Float32
    by: str


def likeness_vectors(
    items: NDArray[Any], features: NDArray[Any], n_items: int, *, by: str, seed: int = 0
) -> ItemVectors:
    """Return vectors whose products are, on average, the cosines of the items' sets of features.

    A feature is a vector of random signs and an item the sum of its features', divided by the root
    of their number (Achlioptas 2003, https://doi.org/10.1016/S0022-0000(03)00025-4). So memory is
    bounded whatever the number of features. An item without features is unlike every other.

    Args:
        items: the item of each pair, int[n].
        features: its feature, int[n]; no pair occurs twice.
        n_items: how many items there are.
        by: what the features are, for a reader.
        seed: of the signs.
    """
    rng = np.random.default_rng(seed)
    width = int(features.max(initial=-1)) + 1
    signs = rng.integers(0, 2, (width, DIMENSIONS), np.int8) * np.int8(2) - np.int8(1)
    order = np.argsort(items, kind="stable")
    items, features = items[order], features[order]
    sizes = np.bincount(items, minlength=n_items)

    vectors = np.zeros((n_items, DIMENSIONS), np.float32)
    step = AT_ONCE // DIMENSIONS
    for start in range(0, items.size, step):
        part = items[start : start + step]
        met, first = np.unique(part, return_index=True)
        rows = signs[features[start : start + step]].astype(np.float32)
        vectors[met] += np.add.reduceat(rows, first)
    vectors /= np.sqrt(np.maximum(sizes, 1) * DIMENSIONS, dtype=np.float32)[:, None]
    return ItemVectors(vectors, np.vecdot(vectors, vectors), by)


def intra_list_diversity(lists: Lists, of: ItemVectors) -> Float64:
    """Return 1 - the mean cosine of two different items of a list, float64[users]; NaN below two.

    Ziegler et al. 2005, https://doi.org/10.1145/1060745.1060754: the sum over pairs is
    |Σ x_i|² - Σ |x_i|².

    Args:
        lists: int32[users, k], -1 where a list has ended.
        of: what items are compared by.
    """
    values = np.empty(len(lists))
    step = max(1, AT_ONCE // max(1, lists.shape[1] * of.vectors.shape[1]))
    for start in range(0, len(lists), step):
        part = lists[start : start + step]
        there = part >= 0
        rows = of.vectors[np.maximum(part, 0)] * there[:, :, None]
        sums = rows.sum(axis=1, dtype=np.float64)
        alone = np.where(there, of.squares[np.maximum(part, 0)], 0.0).sum(axis=1)

        length = there.sum(axis=1)
        pairs = length * (length - 1)
        values[start : start + step] = 1 - _mean(np.vecdot(sums, sums) - alone, pairs)
    return values


def _mean(sums: Float64, counts: NDArray[Any]) -> Float64:
    mean: Float64 = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return mean
