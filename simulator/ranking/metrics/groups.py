"""Groups of users by what is known of them, and of items by how popular they are."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

Bools = NDArray[np.bool_]

HEAD, MIDDLE = 0.5, 0.8
"""Shares of the training events that the most popular items hold, up to which they are ``head``
and ``middle``; the rest are ``tail``."""
USER_GROUPS: Final = ("new", "light", "heavy")
ITEM_GROUPS: Final = ("head", "middle", "tail")


def user_groups(history_sizes: NDArray[np.int64]) -> tuple[dict[str, Bools], str]:
    """Return the members of each group, and what the groups are.

    ``new``: no history. ``light`` and ``heavy``: up to the median history of the others, and above.

    Args:
        history_sizes: how many items are in the history of each user that is tested.
    """
    known = history_sizes > 0
    median = int(np.median(history_sizes[known])) if known.any() else 0
    members = {
        "new": ~known,
        "light": known & (history_sizes <= median),
        "heavy": history_sizes > median,
    }
    return members, (f"new: no history; light: up to {median:,} items (the median); heavy: more")


def item_groups(shares: Float64) -> dict[str, Bools]:
    """Return the members of each group of items.

    Args:
        shares: of the training users that have each item, float64[items].
    """
    order = np.argsort(-shares, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(shares[order])[:-1]]) / max(shares.sum(), 1e-300)
    place = np.empty(shares.size)
    place[order] = before
    return {
        "head": place < HEAD,
        "middle": (place >= HEAD) & (place < MIDDLE),
        "tail": place >= MIDDLE,
    }
