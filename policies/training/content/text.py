"""Fits what makes vectors of texts (``policies.sources.live.text_vectors``)."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from scipy.sparse import csr_matrix

from bandits.types import Float32, Float64, UInt32
from policies.sources.live.text_vectors import MOST_REMEMBERED, word_hashes, words_of

SEEN_TWICE: Final = 2
"""Texts that a word is in at least: one that is in a single text says nothing of others."""
SPARE: Final = 10
"""Directions that are looked for beyond those that are wanted, so that these are the largest."""
ITERATIONS: Final = 8


def fit_words(
    texts: Sequence[str], *, size: int, most_words: int, seed: int
) -> tuple[UInt32, Float32] | None:
    """Fit latent semantic analysis: TF-IDF of hashed words, and its largest singular vectors.

    Args:
        texts: of the items.
        size: numbers of a vector at most.
        most_words: words that are kept at most, the most frequent.
        seed: of the first vector of the iteration.

    Returns:
        ``hashes``, uint32[words], ascending, and ``rows``, float32[words, size], the vector of each
        word, weighed by how rare it is. None if no two texts share a word that a third has not.
    """
    of = lru_cache(MOST_REMEMBERED)(lambda word: tuple(word_hashes(word)))
    counts = [Counter(each for word in words_of(text) for each in of(word)) for text in texts]
    texts_of = Counter(word for each in counts for word in each)

    # A word in every text tells none from another.
    telling = [(-n, word) for word, n in texts_of.items() if SEEN_TWICE <= n < len(texts)]
    words = sorted(word for _, word in sorted(telling)[:most_words])
    if not words:
        return None

    places = {word: place for place, word in enumerate(words)}
    idf = np.log(len(texts) / np.array([texts_of[word] for word in words]))
    rows, columns, values = [], [], []
    for row, each in enumerate(counts):
        for word, n in each.items():
            if word in places:
                rows.append(row)
                columns.append(places[word])
                values.append(1.0 + np.log(n))
    matrix = csr_matrix((values, (rows, columns)), (len(texts), len(words)), np.float64)
    matrix = matrix.multiply(idf).tocsr()
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1
    matrix = csr_matrix(matrix.multiply(1.0 / np.maximum(lengths, 1e-12)[:, None]))

    directions = _directions(matrix, min(size, *matrix.shape), seed)
    return np.array(words, np.uint32), (idf[:, None] * directions).astype(np.float32)


def _directions(matrix: csr_matrix, size: int, seed: int) -> Float64:
    """Return the right singular vectors of the largest singular values, float64[words, size].

    By subspace iteration (Halko, Martinsson & Tropp 2011, https://arxiv.org/abs/0909.4061,
    algorithm 4.4): ARPACK draws numbers of its own, which are others the next time.
    """
    rng, width = np.random.default_rng(seed), min(size + SPARE, *matrix.shape)
    with threadpoolctl.threadpool_limits(1, "blas"):
        basis = np.linalg.qr(rng.standard_normal((matrix.shape[1], width)))[0]
        for _ in range(ITERATIONS):
            basis = np.linalg.qr(matrix.T @ (matrix @ basis))[0]
        right = np.linalg.svd(matrix @ basis, full_matrices=False)[2]
        found: Float64 = basis @ right[:size].T
    return found
