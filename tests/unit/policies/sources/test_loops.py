"""Compiled loops of sources find what numpy finds."""

import numpy as np

from policies.sources.cf import NeighboursModel
from policies.sources.loops import best_places, recurrent_state


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


def test_the_best_places_are_those_of_a_sorted_list():
    """Of scores with ties the earlier places come first; barred and shaded ones never do."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        count = int(rng.integers(1, 40))
        scores = rng.integers(-3, 4, count).astype(np.float32)
        shade = np.where(rng.random(count) < 0.2, -np.inf, 0.0).astype(np.float32)
        shade = shade[: count * int(rng.integers(2))]
        barred = rng.integers(count, size=int(rng.integers(4)))
        limit, floor = int(rng.integers(-1, 45)), float(rng.choice([-np.inf, 0.0]))

        shaded = scores + shade if shade.size else scores.copy()
        shaded[barred] = -np.inf
        found = sorted(np.flatnonzero(shaded > floor), key=lambda at: (-shaded[at], at))
        got = best_places(scores, shade, barred, limit, np.float32(floor)).tolist()
        assert got == found[: max(limit, 0)]


def test_a_recurrent_state_is_that_of_numpy_however_large_what_events_say():
    """Gates that are open or shut altogether are no trouble: nothing overflows."""
    rng = np.random.default_rng(2)
    d = 5
    state_weight, new_bias = rng.normal(size=(d, 3 * d)), rng.normal(size=d)
    for scale in (0.1, 3.0, 1e4, 1e30):
        events = (scale * rng.normal(size=(6, 3 * d))).astype(np.float32)
        state = np.zeros(d)
        for event in events.astype(np.float64):
            said = state @ state_weight
            reset, update = np.split((1 + np.tanh((event + said)[: 2 * d] / 2)) / 2, 2)
            new = np.tanh(event[2 * d :] + reset * (said[2 * d :] + new_bias))
            state = new + update * (state - new)
        found = recurrent_state(events, *(np.float32(each) for each in (state_weight, new_bias)))
        assert np.abs(found - state).max() < 1e-5
