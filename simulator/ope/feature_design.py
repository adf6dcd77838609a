"""From hashed features to the columns of a regression.

A feature that varies enters as (x - mean) / standard deviation, both of the rows that the model is
fitted on, before it is crossed or shares a column with others. So what a model predicts does not
depend on the unit or the zero of any feature. One that does not vary, as text never does, says only
that it is there.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bandits.kernels.features import FNV_PRIME
from bandits.types import Float64, UInt32
from simulator.ope.hashed_features import HashedFeatures
from simulator.ope.kernels import PRESENCE

CONSTANT = 1e-13
"""A standard deviation, as a share of the largest value, that is rounding: nothing varies."""
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScales:
    """The units of features, from the rows that a model is fitted on.

    Attributes:
        hashes: uint32[m], sorted: all the features that these rows have.
        largest: float64[m], the largest absolute value of each.
        mean: float64[m], as a share of the largest.
        deviation: float64[m], as a share of the largest; 0 for a feature that does not vary.
        partial: bool[m], whether it varies and some rows lack it.
    """

    hashes: UInt32
    largest: Float64
    mean: Float64
    deviation: Float64
    partial: Bool

    @classmethod
    def of(cls, features: HashedFeatures) -> "FeatureScales":
        """Measure the features of rows with one action each, the chosen one."""
        n = len(features)
        hashes, values = (
            np.concatenate([array.ravel() for array in group])
            for group in (
                (features.ids, features.context, features.own),
                (features.there, features.values, features.own_values),
            )
        )
        here = ~np.isnan(values)
        names, which, counts = np.unique(hashes[here], return_inverse=True, return_counts=True)

        # Means are of shares of the largest value, so that no sum overflows.
        largest = np.zeros(len(names))
        np.maximum.at(largest, which, np.abs(values[here]))
        shares = values[here] / np.where(largest > 0.0, largest, 1.0)[which]
        mean = np.bincount(which, shares, len(names)) / np.maximum(counts, 1)
        deviation = np.sqrt(
            np.bincount(which, (shares - mean[which]) ** 2, len(names)) / np.maximum(counts, 1)
        )
        deviation[deviation <= CONSTANT] = 0.0

        return cls(names, largest, mean, deviation, (deviation > 0.0) & (counts < n))

    def standard(self, hashes: UInt32, values: Float64) -> tuple[Float64, Bool]:
        """Standardise features.

        Args:
            hashes: uint32[...].
            values: float64[...], NaN for what is not there.

        Returns:
            What each feature enters with, float64[...], 0 for what is not there or not known; and
            whether to say that it is there, too, bool[...].
        """
        if not self.hashes.size or not hashes.size:
            return np.zeros(hashes.shape), np.zeros(hashes.shape, np.bool_)

        at = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        present = (self.hashes[at] == hashes) & ~np.isnan(values)
        deviation = self.deviation[at]
        varies = present & (deviation > 0.0)

        # What does not vary enters with 1: that it is there.
        out = present.astype(np.float64)
        places = at[varies]
        shares = values[varies] / self.largest[places]
        out[varies] = (shares - self.mean[places]) / deviation[varies]
        return out, present & self.partial[at]

    def units(self, hashes: UInt32) -> Float64:
        """Return how features enter, float64[U, 4]; the same as ``standard``, for any values.

        That is the largest value, the mean and the deviation of each, and 0 if it is not known, 1
        if it is, 2 if that it is there is to be said, too.

        Args:
            hashes: uint32[U].
        """
        out = np.zeros((len(hashes), 4))
        if not self.hashes.size or not hashes.size:
            return out
        at = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        known = self.hashes[at] == hashes
        columns = (self.largest, self.mean, self.deviation, 1.0 + self.partial)
        out[known] = np.stack(columns, axis=1)[at[known]]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class HashedDesign:
    """The design of a fit, by row and action.

    ``columns``: int64[n, K, W], hashes; ``values``: float64[n, K, W], 0 for padding.
    """

    columns: NDArray[np.int64]
    values: Float64


def hashed_design(features: HashedFeatures, scales: FeatureScales) -> HashedDesign:
    """Cross and standardise features.

    The columns are an action's id, the context, the context crossed with the id, and what the
    action has of its own.

    Args:
        features: of n rows of K actions.
        scales: the units of the features.
    """
    ids, context = features.ids[:, :, None], features.context[:, None, :]
    known_id, _ = scales.standard(ids, features.there[:, :, None])
    shared, shared_partial = scales.standard(context, features.values[:, None, :])
    own, own_partial = scales.standard(features.own, features.own_values)
    real = ~np.isnan(features.there[:, :, None])

    columns: list[UInt32] = [ids]
    values: list[Any] = [known_id]

    # The context speaks for all actions alike, and for each by itself.
    contexts: list[tuple[UInt32, Any]] = [(context, shared)]
    if shared_partial.any():
        contexts.append((context ^ PRESENCE, shared_partial * 1.0))
    for hashes, numbers in contexts:
        columns += [
            np.broadcast_to(hashes, known_id.shape[:2] + hashes.shape[2:]),
            (ids * FNV_PRIME) ^ hashes,
        ]
        values += [numbers * real, numbers * known_id]

    columns.append(features.own)
    values.append(own)
    if own_partial.any():
        columns.append(features.own ^ PRESENCE)
        values.append(own_partial * 1.0)

    return HashedDesign(
        np.concatenate(columns, axis=2, dtype=np.int64), np.concatenate(values, axis=2)
    )


def to_dense(columns: NDArray[np.int64], values: Float64, size: int) -> Float64:
    """Return features as a dense matrix, float64[n, size]; those that collide are added.

    Args:
        columns: int64[n, W], hashes: a feature's column is its hash modulo ``size``.
        values: float64[n, W].
        size: how many columns there are.
    """
    at = np.arange(len(columns))[:, None] * size + columns % size
    flat = np.bincount(at.ravel(), values.ravel(), len(columns) * size)
    return cast("Float64", flat.astype(np.float64, copy=False).reshape(len(columns), size))
