"""The fields ``quota`` and ``exposure`` of a policy spec, and the prices that hold them."""

from typing import Annotated, Final

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError
from policies.rules.boosts import MAX_BOOST
from policies.rules.conditions import Condition

QUOTA_CAP: Final = 1.0
"""How much a quota adds to a score at most, or takes away, where the spec does not say."""
MOST_GROUPS: Final = 1000
"""Values of the feature that groups are told by; items of further ones are of no group."""
MOST_FLOORS: Final = 0.9
"""How much all floors of groups come to at most: the rest is the policy's."""
LEAST_MS: Final = 60_000
MOST_MS: Final = 30 * 86_400_000

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Cap = Annotated[float, msgspec.Meta(gt=0, le=MAX_BOOST)]


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of what is shown that the items of which a condition holds have at least, or at most.

    Attributes:
        when: a condition (CEL) over ``item`` alone, as that of a filter.
        at_least: the share; of several slots each counts as one. Either this or ``at_most`` is set.
        at_most: likewise.
        within: in which time the share is to come out, as ``1h``, from a minute to 30 days: the
            shorter, the faster what is added to scores follows, and the more that costs.
        cap: how much is added to a score at most, or taken away, in units of the reward.
    """

    when: Condition
    at_least: Share | msgspec.UnsetType = msgspec.UNSET
    at_most: Share | msgspec.UnsetType = msgspec.UNSET
    within: str = "1h"
    cap: Cap = QUOTA_CAP

    @property
    def name(self) -> str:
        """What it is called in the log: a spec to come that has the same goes on with its price."""
        return f"{'at_most' if self.at_least is msgspec.UNSET else 'at_least'} {self.when}"


class Exposure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of what is shown that each group of items has at least.

    Attributes:
        group: the feature of items, a text, whose values are the groups; an item without it is of
            none.
        floor: the share of each group. Where there are more groups than it has room for, it is less
            of each.
        within: in which time the share is to come out; see ``Quota``.
        cap: how much is added to a score at most, in units of the reward.
    """

    group: Annotated[str, msgspec.Meta(min_length=1)]
    floor: Annotated[float, msgspec.Meta(gt=0, le=0.5)]
    within: str = "1h"
    cap: Cap = QUOTA_CAP


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A state of the controller of a policy's quotas.

    Attributes:
        entry: the position of the entry that says it, in the log of partition 0.
        prices: by the name of a quota or of a group, what is added to the score of its items.
    """

    entry: str
    prices: dict[str, float]


class QuotaState(msgspec.Struct, frozen=True):
    """How a quota stands, or a group that is to have its floor.

    Attributes:
        share: the share of the last while; None: nothing of it could be shown yet.
        wanted: the share that it is to have at least, or at most.
        price: what is added to the scores of its items.
        capped: whether that is as much as the spec allows.
    """

    share: float | None
    wanted: float
    price: float
    capped: bool


def group_name(group: str, value: str) -> str:
    """Return what a group is called in the log.

    Args:
        group: the feature whose values are the groups.
        value: the group's.
    """
    return f"{group}={value}"


def span_ms(within: str, target: str) -> int:
    """Return a quota's span of time in milliseconds.

    Args:
        within: as the spec has it.
        target: its field.

    Raises:
        SpecError: it is none, or too short or too long.
    """
    try:
        span = duration_ms(within)
    except InvalidFieldError as error:
        raise SpecError(error.message, target) from error
    if not LEAST_MS <= span <= MOST_MS:
        raise SpecError(f"a quota holds within 1m to 30d, not {within}", target)
    return span
