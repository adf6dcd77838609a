"""What one request says of who asks, found once for all sources that look at it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, frozen
from policies.artifacts.histories import Profile
from policies.profiles.known_user import LiveHistory
from policies.sources.base import SourceRequest


class AskedPlaces(NamedTuple):
    """What a request says, as places of an order: who asks, and what is not proposed to them.

    ``key``, int[h] ``places`` and float32[h] ``weights`` are as ``ItemOrder.history`` has them;
    ``speaks``: whether any of it has a weight. ``barred``: int64[n].
    """

    key: str
    places: NDArray[Any]
    weights: Float32
    speaks: bool
    barred: NDArray[np.int64]


class ItemWeights:
    """A history by the ids of its items, also such as are not of an order: the newest last.

    Args:
        by_id: how strongly each item speaks for itself.
    """

    def __init__(self, by_id: dict[str, float]) -> None:
        self.by_id = by_id

    @classmethod
    def of(cls, request: SourceRequest, ids: Sequence[str]) -> Self:
        """Return the history of who asks.

        Args:
            request: what is known, by a file and by the log, is joined with what was sent, which is
                newer and weighs 1 where nothing else is known of it.
            ids: the items that profiles name, in their order.
        """
        history: dict[str, float] = {}
        if request.profile is not None:
            known, live = request.profile, request.live
            places = known.indices.tolist()
            weights = known.weights.tolist() if live is None else earlier_weights(known, live)
            history = dict(zip(map(ids.__getitem__, places), weights, strict=True))
        if request.live is not None:
            for item_id, weight in request.live.weights.items():
                history[item_id] = max(weight, history.pop(item_id, 0.0))
        for item_id in request.history:
            history[item_id] = history.pop(item_id, 1.0)
        return cls(history)

    @cached_property
    def in_order(self) -> tuple[tuple[str, ...], Float32]:
        """The items, the newest last, and float32[h], the weight of each."""
        return tuple(self.by_id), frozen(np.array(list(self.by_id.values()), np.float32))

    @cached_property
    def sorted(self) -> tuple[tuple[str, ...], Float32]:
        """The same in the order of the ids, so that a sum depends on no other order."""
        ids = tuple(sorted(self.by_id))
        return ids, frozen(np.array([self.by_id[each] for each in ids], np.float32))


def earlier_weights(profile: Profile, live: LiveHistory) -> list[float]:
    """Return how strongly each item of a profile speaks beside what was done since.

    Args:
        profile: what was known when the artifact was made.
        live: what the log says.
    """
    total = float(profile.weights.sum())
    share = live.earlier / total if total > live.earlier else 1.0
    weights: list[float] = (profile.weights * np.float32(share)).tolist()
    return weights
