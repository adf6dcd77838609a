"""What placements put on the page of one decision, when they are asked again."""

from collections.abc import Callable, Container, Iterator, Sequence

from bandits.log.records import NO_RULES, DecisionRecord, Placed, Unplaced
from policies.rules.conditions import CompiledCondition
from policies.rules.placements import TAKEN, Placements
from policies.rules.ruled_items import Asked, RuledItems

OF_THE_REQUEST = frozenset({"excluded", "not_sent"})
"""Why an item could not be placed, where the request alone knows."""


class PlacedAgain:
    """Asks placements again what stands on a page.

    What a request said of an item that it sent is not logged, if that was placed: then the record
    is believed in what conditions and filters say of it.
    """

    def __init__(
        self,
        items: RuledItems,
        asked: Asked,
        record: DecisionRecord,
        there: Container[str],
        offered: Callable[[str], bool | None] | None,
    ) -> None:
        """Take in what was asked.

        Args:
            items: those that placements name, as they were.
            asked: what rules look at beside them.
            record: the decision.
            there: the items that there were.
            offered: says whether an item was offered, None where the clocks cannot tell; None: the
                request may have sent what was placed.
        """
        said = record.rules or NO_RULES
        self._placed, self._unplaced = said.placed, said.unplaced
        self._items, self._asked = items, asked
        self._there, self._offered = there, offered
        self._record = record
        self._reasons = {
            each.action_id: each.reason for each in said.unplaced if each.reason != TAKEN
        }

    def faults(self, placements: Placements) -> Iterator[tuple[str, str]]:
        """Yield what is wrong: the kind, and what it is."""
        record, shown = self._record, {each.action_id for each in self._placed}
        for item_id in sorted(shown.intersection(record.action_ids)):
            yield "placed", f"{item_id!r} is placed, and could be chosen"

        slots = [each.slot + 1 for each in self._placed]
        slots += [each.slot + 1 for each in self._unplaced]
        slots.append(len(record.chosen) + len(self._placed))
        if self._offered is None:
            yield from self._as_far_as_known(placements, max(slots))
            return
        again = placements.on_page(max(slots), self._asked.now_ms, self._holds, self._refused)
        if again.placed != self._placed:
            stands, should = _listed(self._placed), _listed(again.placed)
            yield "placed", f"placed on the page: {stands}; it should be: {should}"
        elif self._unplaced not in (again.unplaced, _not_taken(again.unplaced)):
            yield "placed", "what could not be placed, or why, is not what the rules say"

    def _as_far_as_known(self, placements: Placements, slots: int) -> Iterator[tuple[str, str]]:
        """Yield what is wrong whatever the request said of what it sent."""
        in_force = placements.in_force(self._asked.now_ms)
        known = {(item, slot) for item, slot, _ in in_force}
        said = {(each.action_id, each.slot) for each in self._placed}
        said |= {(each.action_id, each.slot) for each in self._unplaced}
        for item, slot in sorted(said - known):
            yield "placed", f"no placement in force puts {item!r} in slot {slot}"

        taken = {each.slot for each in self._placed}
        for item, slot, is_conditional in in_force:
            is_said = (item, slot) in said or slot in taken
            if slot < slots and not is_conditional and not is_said:
                yield "placed", f"{item!r} is to stand in slot {slot}, and nothing is said of it"

    def _holds(self, condition: CompiledCondition, item_id: str) -> bool:
        rows = self._items.rows([item_id])
        return bool(self._items.holds(condition, rows, self._asked).all())

    def _refused(self, item_id: str) -> str:
        said = self._reasons.get(item_id, "")
        if self._offered is None or said in OF_THE_REQUEST:
            return said
        offered = self._offered(item_id)
        admitted = bool(self._items.admits(self._items.rows([item_id]), self._asked).all())
        if offered is None:  # its time begins or ends about now
            return said
        if offered:
            return "" if admitted else "filtered"
        return "filtered" if item_id in self._there and not admitted else "unavailable"


def _not_taken(unplaced: Sequence[Unplaced]) -> list[Unplaced]:
    """Return what earlier builds said: nothing of a slot that has another item."""
    return [each for each in unplaced if each.reason != TAKEN]


def _listed(placed: Sequence[Placed]) -> str:
    return ", ".join(f"{each.action_id!r} in slot {each.slot}" for each in placed) or "nothing"
