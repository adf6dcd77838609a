"""Features as a sum of rows, one for each feature that training met; others count for nothing."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, Namespace, UInt32, frozen
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import TrainedSource
from policies.encoding import namespace_of

FARTHEST = 5.0
"""Standard deviations from its mean beyond which a number says nothing more."""
MOST_KEPT = 1_000
"""Features whose sum is kept, such as those of contexts; beyond so many all are forgotten."""


class FeatureRows:
    """A vector of features: the sum of their rows, each times the feature's value.

    A number is first put on its scale, (value - mean) / deviation.

    Args:
        hashes: uint32[n], ascending, of the features that are known.
        scales: float32[n, 2], the mean and the deviation of each; 0 and 1 for an indicator.
        rows: float32[n, d].
        namespace: which names are hashed with.
    """

    def __init__(self, hashes: UInt32, scales: Float32, rows: Float32, namespace: str) -> None:
        self._places = {each: place for place, each in enumerate(hashes.tolist())}
        self._scales, self._rows = scales, rows
        self._namespace = namespace
        self._sums: dict[tuple[bytes, bytes], Float32 | None] = {}

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self._rows.shape[1])

    @classmethod
    def load(cls, source: TrainedSource, prefix: str, size: int, namespace: str) -> Self:
        """Return what training has fitted.

        Args:
            source: its arrays ``{prefix}_hashes``, ``_scales`` and ``_rows``.
            prefix: of their names.
            size: numbers of a vector.
            namespace: which names are hashed with.

        Raises:
            ArtifactError: one is missing, or has another shape.
        """
        hashes = source.places(f"{prefix}_hashes")
        scales = source.array(f"{prefix}_scales", len(hashes), 2)
        return cls(hashes, scales, source.array(f"{prefix}_rows", len(hashes), size), namespace)

    def sum(self, features: FeatureMap) -> Float32 | None:
        """Return the vector of some features, float32[d]; None if none of them is known."""
        return self.sum_of(namespace_of(features, self._namespace))

    def kept_sum_of(self, features: Namespace) -> Float32 | None:
        """Return what ``sum_of`` does of features that are likely to come again."""
        key = features.hashes.tobytes(), features.values.tobytes()
        if key not in self._sums:
            if len(self._sums) >= MOST_KEPT:
                self._sums.clear()
            total = self.sum_of(features)
            self._sums[key] = None if total is None else frozen(total)
        return self._sums[key]

    def sum_of(self, features: Namespace) -> Float32 | None:
        """Return the vector of some features that are hashed, [n]; None if none is known."""
        found = [
            (place, at)
            for at, hashed in enumerate(features.hashes.tolist())
            if (place := self._places.get(hashed)) is not None
        ]
        if not found:
            return None
        places = np.array([place for place, _ in found], np.intp)
        values = features.values[[at for _, at in found]]
        total: Float32 = on_scale(values, self._scales[places]) @ self._rows[places]
        return total


def on_scale(values: Float32, scales: NDArray[np.float32]) -> Float32:
    """Return values on their scales, at most FARTHEST from 0.

    Args:
        values: float32[...].
        scales: float32[..., 2].
    """
    scaled = (values - scales[..., 0]) / scales[..., 1]
    bounded: Float32 = np.clip(scaled, -FARTHEST, FARTHEST)
    return bounded
