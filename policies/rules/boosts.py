"""Boosts: what is added to the score of some items before anything has a probability."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from bandits.types import Float32
from policies.rules.conditions import CompiledCondition, Condition, Looks
from policies.rules.values import Frame

MAX_BOOST = 1e6
BOOST_CAP = 1.0
"""How much all boosts of an item together add at most, where the spec does not say."""


class Boost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is added to the score of the items of which a condition holds.

    Attributes:
        when: a condition (CEL), as that of a filter; of items of which it cannot be said whether it
            holds, it does not.
        by: what is added, in units of the reward; below 0 it is taken away.
    """

    when: Condition
    by: Annotated[float, msgspec.Meta(ge=-MAX_BOOST, le=MAX_BOOST)]


class Boosts:
    """The boosts of a policy, compiled. ``looks_by_field``: what each looks at, by its field."""

    def __init__(self, boosts: Sequence[Boost], cap: float) -> None:
        """Compile some.

        Args:
            boosts: the policy's.
            cap: how much they add to an item at most, or take away.

        Raises:
            SpecError: a condition is none.
        """
        fields = [f"boost[{at}].when" for at in range(len(boosts))]
        self._conditions = [
            CompiledCondition(boost.when, field)
            for boost, field in zip(boosts, fields, strict=True)
        ]
        self._by = [boost.by for boost in boosts]
        self._cap = cap
        self.looks_by_field: dict[str, Looks] = {
            field: each.looks for field, each in zip(fields, self._conditions, strict=True)
        }

    def offsets(self, frame: Frame) -> Float32:
        """Return what is added to the score of each item, float32[n]."""
        total = np.zeros(len(frame.rows))
        for condition, by in zip(self._conditions, self._by, strict=True):
            total += np.where(condition.holds(frame), by, 0.0)
        return np.clip(total, -self._cap, self._cap).astype(np.float32)
