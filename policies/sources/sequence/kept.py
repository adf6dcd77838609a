"""Vectors of users that are kept for as long as nothing new is known of them."""

from collections import OrderedDict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, frozen
from policies.sources.loops import newest_that_speak
from policies.sources.vectors import UserEncoder

MOST_USERS: Final = 10_000
"""Users whose vectors a source keeps: about 7 MB of 64 dimensions and 50 events."""


class KeptUsers:
    """An encoder that is asked of the newest events alone, and once for each history of them.

    Events without weight are none. Whatever a history says of the user is in the places of its
    items: the artifact's arrays are the encoder's own.
    """

    def __init__(self, encoder: UserEncoder, length: int, most: int = MOST_USERS) -> None:
        self._encoder = encoder
        self._length = length
        self._most = most
        self._kept: OrderedDict[bytes, Float32] = OrderedDict()

    def encode(self, indices: NDArray[Any], rows: Float32, weights: Float32) -> Float32:
        """Return the user's vector, float32[d]; 0 of a history without weight.

        Args:
            indices: places of the history's items, int[h], each once, oldest first as far as it is
                known.
            rows: the items' vectors, float32[h, d].
            weights: float32[h], how strongly each speaks for its item.
        """
        weights = np.ascontiguousarray(weights, np.float32)
        newest = newest_that_speak(weights, self._length)
        if not newest.size:
            return np.zeros(rows.shape[1], np.float32)

        if newest.size < weights.size:
            indices, rows, weights = indices[newest], rows[newest], weights[newest]
        key = indices.astype(np.int32, copy=False).tobytes()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        user = frozen(self._encoder.encode(indices, rows, weights))
        self._kept[key] = user
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return user
