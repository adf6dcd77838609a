"""Vectors of users are made once for each history, and few enough are kept."""

import numpy as np

from policies.sources.sequence.kept import KeptUsers


class Counting:
    """An encoder that counts how often it is asked."""

    asked = 0

    def encode(self, indices, rows, weights):
        self.asked += 1
        return rows.sum(axis=0)


def test_a_history_is_encoded_once():
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    counting = Counting()
    kept = KeptUsers(counting, length=3, most=2)

    def encode(*places: int):
        at = np.array(places)
        return kept.encode(at, rows[at], np.ones(at.size, np.float32))

    first = encode(1, 2, 3)
    assert np.array_equal(first, rows[1:4].sum(axis=0))
    assert encode(1, 2, 3) is first
    assert encode(7, 1, 2, 3) is first, "only the newest three are looked at"
    assert counting.asked == 1

    encode(3, 2, 1)
    encode(1, 2, 3)
    assert counting.asked == 2, "another order is another history"
    encode(4)
    encode(3, 2, 1)
    assert counting.asked == 4, "what was not asked for longest has gone"
