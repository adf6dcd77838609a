"""The directions in which items differ most."""

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from bandits.types import Float32


def principal_directions(rows: Float32, size: int) -> Float32:
    """Return the principal directions of rows, float32[d, min(size, d)], the first one first.

    Each points to where its largest number is positive, so that it is the same on every machine.

    Args:
        rows: float32[n, d], less their mean.
        size: how many at most.
    """
    with threadpoolctl.threadpool_limits(1, "blas"):
        wide = rows.astype(np.float64)
        _, directions = np.linalg.eigh(wide.T @ wide)
    directions = directions[:, ::-1][:, :size]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    found: Float32 = directions.astype(np.float32)
    return found
