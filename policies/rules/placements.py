"""Placements: an item stands in a slot of the page for some time, whatever a draw would say."""

from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from typing import Annotated, NamedTuple

import msgspec

from banditloop_client.schemas import MAX_SLOTS, Time
from bandits.errors import SpecError
from bandits.log.records import Placed, Unplaced
from policies.rules.conditions import CompiledCondition, Condition, Looks

TWICE = "twice"
"""The item stands in another slot."""
TAKEN = "taken"
"""The slot has the item of a placement before. Builds before this one left those unsaid."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item that stands in a slot of the page from one moment to another.

    Attributes:
        item: its id.
        slot: which slot of the page, from 0; a page that has no such slot is left as it is.
        begins: when it begins to stand there, with the zone: ``2026-12-01T00:00:00Z``.
        until: when it no longer does.
        when: a condition (CEL), as that of a filter: only where it holds the item is placed.
    """

    item: Annotated[str, msgspec.Meta(min_length=1)]
    slot: Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]
    begins: Time | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    until: Time | msgspec.UnsetType = msgspec.UNSET
    when: Condition | msgspec.UnsetType = msgspec.UNSET


class OnPage(NamedTuple):
    """What placements put on one page, by ascending slot, and what could not stand there."""

    placed: list[Placed]
    unplaced: list[Unplaced]


class _Placement(NamedTuple):
    item: str
    slot: int
    from_ms: float
    until_ms: float
    condition: CompiledCondition | None


class Placements:
    """The placements of a policy, compiled.

    ``looks_by_field``: what each looks at, by its field in the spec. ``items``: those they place.
    """

    def __init__(self, placements: Sequence[Placement]) -> None:
        """Compile some.

        Args:
            placements: the policy's; of two for one slot the first that can stand there does.

        Raises:
            SpecError: a condition is none, or a time ends before it begins.
        """
        self._placements: list[_Placement] = []
        self.items = [each.item for each in placements]
        self.looks_by_field: dict[str, Looks] = {}
        for at, each in enumerate(placements):
            field = f"placements[{at}]"
            from_ms, until_ms = _ms(each.begins, -inf), _ms(each.until, inf)
            if until_ms <= from_ms:
                raise SpecError(
                    f"it ends at {each.until}, no later than it begins", f"{field}.until"
                )

            condition, looks = None, Looks()
            if each.when is not msgspec.UNSET:
                condition = CompiledCondition(each.when, f"{field}.when")
                looks = condition.looks
            self._placements.append(_Placement(each.item, each.slot, from_ms, until_ms, condition))

            # Which of them were in force is said by the moment: it belongs into the record.
            self.looks_by_field[f"{field}.when"] = looks._replace(time=True)

    def on_page(
        self,
        slots: int,
        now_ms: int,
        holds: Callable[[CompiledCondition, str], bool],
        refused: Callable[[str], str],
    ) -> OnPage:
        """Return what stands on a page without a draw, and what was to and cannot.

        Args:
            slots: how many the page has.
            now_ms: the moment, in ms since 1970.
            holds: says whether a condition holds of an item.
            refused: says why an item cannot be shown; "" if it can.
        """
        placed: dict[int, str] = {}
        unplaced: list[Unplaced] = []
        for item, slot, from_ms, until_ms, condition in self._placements:
            if slot >= slots or not from_ms <= now_ms < until_ms:
                continue
            if condition is not None and not holds(condition, item):
                continue
            if placed.get(slot) == item:
                continue

            if slot in placed:
                reason = TAKEN
            else:
                reason = TWICE if item in placed.values() else refused(item)
            if reason:
                unplaced.append(Unplaced(slot, item, reason))
            else:
                placed[slot] = item
        return OnPage([Placed(slot, item) for slot, item in sorted(placed.items())], unplaced)

    def in_force(self, now_ms: int) -> list[tuple[str, int, bool]]:
        """Return the item and the slot of each that is in force, and whether it has a condition."""
        return [
            (each.item, each.slot, each.condition is not None)
            for each in self._placements
            if each.from_ms <= now_ms < each.until_ms
        ]


def _ms(moment: datetime | msgspec.UnsetType, otherwise: float) -> float:
    return otherwise if isinstance(moment, msgspec.UnsetType) else 1000 * moment.timestamp()
