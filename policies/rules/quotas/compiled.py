"""The quotas of a policy, compiled: of which groups an item is, and what is added to its score."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bandits.errors import SpecError
from policies.rules.columns import Bools
from policies.rules.conditions import CompiledCondition, Looks
from policies.rules.quotas.quota import Exposure, Quota, span_ms
from policies.rules.values import Frame


class Goal(NamedTuple):
    """What a quota or a group is to come to.

    ``share``: of what is shown; ``sign``: 1 for at least, -1 for at most; ``within_s``: in which
    time, in seconds; ``cap``: how much is added to a score at most.
    """

    share: float
    sign: int
    within_s: float
    cap: float


class Quotas:
    """The quotas of a policy, compiled.

    ``goals``: by the name of each quota, its goal; ``group``: the feature by whose values items are
    grouped, None if they are not; ``floor``: the goal of each such group; ``looks_by_field``: what
    each quota looks at, by its field in the spec.
    """

    def __init__(self, quotas: Sequence[Quota], exposure: Exposure | None = None) -> None:
        """Compile some.

        Args:
            quotas: the policy's.
            exposure: what each group is to have.

        Raises:
            SpecError: a condition is none, or looks at more than items; a quota says nothing, or
                stands twice.
        """
        self._conditions: list[CompiledCondition] = []
        self.goals: dict[str, Goal] = {}
        self.looks_by_field: dict[str, Looks] = {}
        for at, quota in enumerate(quotas):
            field = f"quota[{at}]"
            condition = CompiledCondition(quota.when, f"{field}.when")
            if condition.of_asking is not None:
                raise SpecError(
                    "a quota is of a group of items, whoever asks: let it look at item alone",
                    f"{field}.when",
                )
            goal = _goal(quota, field)
            if quota.name in self.goals:
                raise SpecError(f"{quota.name} stands twice: once is enough", field)
            self._conditions.append(condition)
            self.goals[quota.name] = goal
            self.looks_by_field[f"{field}.when"] = condition.looks

        self.names = list(self.goals)
        self.group: str | None = None
        self.floor: Goal | None = None
        if exposure is not None:
            within_s = span_ms(exposure.within, "exposure.within") / 1000
            self.group = exposure.group
            self.floor = Goal(exposure.floor, 1, within_s, exposure.cap)
            self.looks_by_field["exposure.group"] = Looks(
                frozenset([exposure.group]), needs=frozenset([(exposure.group, None)])
            )

    def members(self, frame: Frame) -> Bools:
        """Return which items are of the group of each quota, bool[n, Q]."""
        members = np.zeros((len(frame.rows), len(self._conditions)), np.bool_)
        for at, condition in enumerate(self._conditions):
            of_items: Any = condition.of_items
            members[:, at] = of_items(frame).yes
        return members


def _goal(quota: Quota, field: str) -> Goal:
    given = [each for each in (quota.at_least, quota.at_most) if each is not msgspec.UNSET]
    if len(given) != 1:
        raise SpecError("set either at_least or at_most", field)
    sign = 1 if quota.at_most is msgspec.UNSET else -1
    return Goal(float(given[0]), sign, span_ms(quota.within, f"{field}.within") / 1000, quota.cap)
