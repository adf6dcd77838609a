"""The compiled sums of similarities are those of numpy."""

import numpy as np

from policies.sources.cf import NeighboursModel


def test_sums_are_the_bits_that_numpy_adds_up():
    """Each item's sum has numpy's bits, of any history, also where a neighbour is named twice."""
    rng = np.random.default_rng(0)
    neighbours = rng.integers(20, size=(20, 7), dtype=np.int32)
    similarities = rng.normal(size=(20, 7)).astype(np.float32)
    model = NeighboursModel(neighbours, similarities)

    for length in (0, 1, 9):
        places = rng.permutation(20)[:length].astype(np.int32)
        weights = rng.random(length, np.float32)
        by = (similarities[places] * weights[:, None]).ravel()
        expected = np.bincount(neighbours[places].ravel(), by, minlength=20).astype(np.float32)
        assert model.raw(places, weights).tobytes() == expected.tobytes()
