"""What sources are fitted on, made of ratings. Without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32, frozen
from policies.artifacts.histories import Histories

RATING_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 1.0, 1.5)
"""How strongly a rating of 0 … 5 speaks for an item, interpolated in between.

By validation (docs/benchmarks/sources.md).
"""


def make_histories(ratings: NDArray[Any]) -> Histories:
    """Return the histories of ratings, as ``train_sources`` takes them.

    An item that a user has twice counts once, with the later row's weight. Ids become strings.

    Raises:
        ArtifactError: no rows, a field is missing, or a number is negative or not finite.
    """
    names = set(ratings.dtype.names or ())
    if not len(ratings) or not {"user", "item"} <= names or not {"rating", "weight"} & names:
        raise ArtifactError(
            "training needs rows with fields user, item, and rating or weight", "ratings"
        )
    given = ratings["weight" if "weight" in names else "rating"]
    if not np.isfinite(given).all() or given.min() < 0:
        raise ArtifactError("ratings and weights are finite and not negative", "ratings")

    weights = given.astype(np.float32) if "weight" in names else rating_weights(given)
    users, rows = np.unique(ratings["user"], return_inverse=True)
    items, columns = np.unique(ratings["item"], return_inverse=True)

    # Read backwards, the first of a user's rows of an item is the latest.
    cells = rows.astype(np.int64) * len(items) + columns
    unique, last = np.unique(cells[::-1], return_index=True)
    return Histories(
        items=tuple(items.astype(str).tolist()),
        users=tuple(users.astype(str).tolist()),
        starts=frozen(
            np.searchsorted(unique, np.arange(len(users) + 1, dtype=np.int64) * len(items))
        ),
        indices=frozen((unique % len(items)).astype(np.int32)),
        weights=frozen(weights[::-1][last]),
    )


def rating_weights(ratings: NDArray[Any]) -> Float32:
    """Return the weight of each rating, float32."""
    weights: Float32 = np.interp(ratings, np.arange(len(RATING_WEIGHTS)), RATING_WEIGHTS).astype(
        np.float32
    )
    return weights
