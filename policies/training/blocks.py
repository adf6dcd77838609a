"""Blocks of similar items, so that a request need not look at all (``policies.sources.blocks``)."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32

BLOCKS_ABOVE = 50_000
"""Items above which it is cheaper for a request to look at the promising ones only.

See docs/benchmarks/sources.md.
"""
FIRST_BLOCK: Final = 32
GROWTH: Final = 1.5
SAMPLE: Final = 48
"""Rows per cluster by which the clusters are found."""
ROUNDS: Final = 8
CHUNK: Final = 4096
"""Rows that are compared with all centres at once, which bounds the memory."""


def blocks_of(vectors: Float32, *, seed: int) -> dict[str, NDArray[Any]]:
    """Return the blocks of a catalogue's vectors; none if it is so small that all are scored.

    Args:
        vectors: float32[items, d].
        seed: see ``arrange``.
    """
    return arrange(vectors, seed=seed) if len(vectors) > BLOCKS_ABOVE else {}


def arrange(factors: Float32, *, seed: int) -> dict[str, NDArray[Any]]:
    """Arrange similar rows in blocks.

    Directions make √items clusters (spherical k-means on a sample). In a cluster the longest rows
    come first, since they have the highest products, and in the smallest blocks: 32 rows, then each
    block half as long again as the one before. The blocks are the same for the same factors and
    seed, with one BLAS thread.

    Args:
        factors: float32[items, d].
        seed: of the sample and the first centres.

    Returns:
        ``order``, int32[items], and ``starts``, int32[blocks + 1].
    """
    rng = np.random.default_rng(seed)
    items, clusters = len(factors), int(np.sqrt(len(factors)))
    sample = _unit(
        factors[np.sort(rng.choice(items, min(items, SAMPLE * clusters), replace=False))]
    )

    # Spherical k-means: a centre is the mean direction of the rows that are most alike to it.
    centres = sample[np.sort(rng.choice(len(sample), clusters, replace=False))]
    for _ in range(ROUNDS):
        cluster = _most_alike(sample, centres)
        met, first = np.unique(np.sort(cluster), return_index=True)
        centres[met] = _unit(np.add.reduceat(sample[np.argsort(cluster, kind="stable")], first))

    cluster = _most_alike(factors, centres)
    order = np.lexsort((-np.vecdot(factors, factors), cluster)).astype(np.int32)
    first, last = (
        np.searchsorted(cluster[order], np.arange(clusters), side=side)
        for side in ("left", "right")
    )
    starts = np.concatenate(
        [i + _cuts(j - i) for i, j in zip(first.tolist(), last.tolist(), strict=True)]
    )
    return {"order": order, "starts": np.append(starts, items).astype(np.int32)}


def _cuts(rows: int) -> NDArray[Any]:
    """Return where the blocks of a cluster of so many rows start."""
    cuts, size = [0], float(FIRST_BLOCK)
    while cuts[-1] < rows:
        cuts.append(cuts[-1] + int(size))
        size *= GROWTH
    return np.array(cuts[:-1], np.int64)


def _unit(rows: Float32) -> Float32:
    lengths = np.sqrt(np.vecdot(rows, rows))
    lengths[lengths == 0] = 1
    unit: Float32 = rows / lengths[:, None]
    return unit


def _most_alike(rows: Float32, centres: Float32) -> NDArray[np.intp]:
    """Return, by row, the centre with the highest product."""
    return np.concatenate(
        [np.argmax(rows[i : i + CHUNK] @ centres.T, axis=1) for i in range(0, len(rows), CHUNK)]
    )
