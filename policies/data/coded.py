"""All events of a data set as numpy columns, with what each is worth."""

from dataclasses import dataclass, replace
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, frozen
from policies.data.manifest import WeightOptions

RATING_CURVE = (0.1, 0.2, 0.4, 1.0, 1.5)
"""How strongly a rating speaks for an item, from the lowest to the highest, interpolated between.

By validation on a scale of 1 to 5 (docs/benchmarks/sources.md).
"""
UNTIMED = -1
"""The time of an event that has none."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedEvents:
    """Events as columns; those of one user stand together, in time order.

    ``user``: int32[n], into ``user_ids``, ascending; ``item``: int32[n], into ``item_ids``, which
    are sorted; ``type``: int16[n], into ``types``; ``time``: int64[n], ms since 1970, -1 for none;
    ``value``: float32[n], NaN for none; ``weight``: float32[n], see ``event_weights``.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    types: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    type: NDArray[np.int16]
    time: NDArray[np.int64]
    value: Float32
    weight: Float32

    def __len__(self) -> int:
        return self.user.size

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first event of each user, and the number of events: int64[users + 1]."""
        return np.searchsorted(self.user, np.arange(len(self.user_ids) + 1)).astype(np.int64)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return some of the events, by a mask or by number; users and items keep their codes."""
        return replace(
            self,
            user=frozen(self.user[rows]),
            item=frozen(self.item[rows]),
            type=frozen(self.type[rows]),
            time=frozen(self.time[rows]),
            value=frozen(self.value[rows]),
            weight=frozen(self.weight[rows]),
        )

    def with_weight(self, weight: Float32) -> Self:
        """Return the same events with other weights, float32[n]."""
        return replace(self, weight=weight)

    def compact(self) -> Self:
        """Return the same events without the users and items that have none."""
        users, user = np.unique(self.user, return_inverse=True)
        items, item = np.unique(self.item, return_inverse=True)
        return replace(
            self,
            user_ids=tuple(self.user_ids[i] for i in users.tolist()),
            item_ids=tuple(self.item_ids[i] for i in items.tolist()),
            user=frozen(user.astype(np.int32)),
            item=frozen(item.astype(np.int32)),
        )


def event_weights(
    types: tuple[str, ...],
    type_codes: NDArray[np.int16],
    time: NDArray[np.int64],
    value: Float32,
    options: WeightOptions,
) -> Float32:
    """Return the weight of each event, float32[n].

    It is the weight of its type, times that of its rating if values are ratings, times
    2^(-age / half-life), the age being counted back from the latest event. An event without a
    rating counts as much as one of a history that comes with a request, 1; one without a time does
    not age.

    Args:
        types: the names of the types.
        type_codes: the type of each event, into ``types``.
        time: ms since 1970, -1 for none.
        value: NaN for none.
        options: the data set's.
    """
    by_type = np.array([options.types.get(name, 1.0) for name in types] or [1.0])
    weight = by_type[type_codes]

    if options.rating_scale is not None:
        rated = ~np.isnan(value)
        weight[rated] *= rating_curve(value[rated], options.rating_scale)

    if options.half_life_s is not None and time.size:
        age_s = (time.max() - time) / 1000
        weight *= np.where(time == UNTIMED, 1.0, np.exp2(-age_s / options.half_life_s))
    return frozen(weight.astype(np.float32))


def weights_as_rewards(events: CodedEvents, weights: WeightOptions) -> Float32:
    """Return the weight of each event as if it did not fade with its age, float32[n].

    Args:
        events: what users did.
        weights: the data set's options.
    """
    options = msgspec.structs.replace(weights, half_life_s=None)
    return event_weights(events.types, events.type, events.time, events.value, options)


def rating_curve(ratings: Float32, scale: tuple[float, float]) -> NDArray[np.float64]:
    """Return how strongly each rating speaks for its item, float64[n].

    Args:
        ratings: within the scale.
        scale: the lowest and the highest rating.
    """
    lowest, highest = scale
    points = np.linspace(lowest, highest, len(RATING_CURVE))
    curve: NDArray[np.float64] = np.interp(ratings, points, RATING_CURVE)
    return curve
