"""A decision as the join remembers it, and what is to be taught of it."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from bandits.log.encoded_decisions import Decision, action_hash, placed_of, whole_record
from bandits.log.join_rule import OF_ALL, Aggregation, JoinRule, SignalledRule, aggregate
from bandits.log.join_state import Identity
from bandits.log.records import RewardRecord, slots_between
from bandits.log.versions import SIGNALS_SINCE


class JoinedDecision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A lesson from a decision: the ``rewards`` of its ``slots``.

    In a ``correction`` they are the changes of rewards that were taught before.
    """

    position: str
    record: Decision
    slots: tuple[int, ...]
    rewards: tuple[float, ...]
    correction: bool = False


class RememberedDecision(msgspec.Struct, eq=False, gc=False):
    """A decision whose window is open, or closed for less than another window.

    ``spec``: the digest of the one it was made with, whose ``rule`` counts. ``record``: None where
    it is not kept in memory, and once nothing can be taught of it any more. ``slots``: how many can
    still be taught. ``values``: by slot, the aggregate of its rewards so far. ``seen``: the rewards
    that counted, by their id, or by slot and signal if they have none. ``taught``: by slot, the
    reward that the model holds. ``forgotten_ms``: when a closed one is forgotten; 0 while it is
    open. ``waiting``: rewards that count once it is activated. ``row``: where it is among the older
    decisions; -1 if it is none. ``chosen``: of such a one, the hash of each slot's action, and
    ``placed`` the slot and the hash of each item that was placed on its page. ``parts``: by slot
    and signal, the aggregates that make up ``values`` where signals are weighed. ``came``: by slot
    and signal, what ``aggregate`` keeps of the rewards where it needs them all.
    """

    position: str
    spec: str
    rule: JoinRule
    record: Decision | None
    activated: bool
    slots: int
    values: dict[int, float] = {}
    seen: dict[Identity, None] = {}
    taught: dict[int, float] = {}
    forgotten_ms: int = 0
    waiting: int = 0
    row: int = -1
    chosen: Sequence[int] = ()
    placed: Sequence[tuple[int, int]] = ()
    parts: dict[int, dict[str, float]] | None = None
    came: dict[int, dict[str, list[float]]] | None = None

    def rewards_of(self, slots: Sequence[int]) -> tuple[float, ...]:
        """Return what some slots are to be taught: what each has earned, or what the page has."""
        values, rule = self.values, self.rule
        default, kind = rule.default_reward, rule.page_reward
        if kind is msgspec.UNSET:
            return tuple([values.get(slot, default) for slot in slots])
        earned = [values.get(slot, default) for slot in range(self.slots)]
        return (sum(earned) if kind == "sum" else max(earned),) * len(slots)

    def taught_by(self, slot: int) -> Sequence[int]:
        """Return the slots that a reward of one of them teaches anew."""
        return (slot,) if self.rule.page_reward is msgspec.UNSET else range(self.slots)

    def see(self, identity: Identity) -> None:
        """Note that a reward of this name counts."""
        if self.seen is NOTHING:
            self.seen = {}
        self.seen[identity] = None

    def add_reward(self, slot: int, signal: str, value: float) -> None:
        """Have a reward enter the aggregate of its slot, and of its signal there.

        Args:
            slot: which is rewarded.
            signal: what the reward names; its rule weighs it.
            value: the reward's.
        """
        rule = self.rule
        if self.values is NOTHING:
            self.values = {}
        if not isinstance(rule, SignalledRule):
            before = self.values.get(slot)
            self.values[slot] = self._with_one_more(rule.aggregation, before, slot, signal, value)
            return

        if self.parts is None:
            self.parts = {}
        parts = self.parts.setdefault(slot, {})
        way, before = rule.signals[signal].aggregation, parts.get(signal)
        parts[signal] = self._with_one_more(way, before, slot, signal, value)
        self.values[slot] = rule.total(parts)

    def _with_one_more(
        self, way: Aggregation, before: float | None, slot: int, signal: str, value: float
    ) -> float:
        came = NO_REWARDS
        if way in OF_ALL:
            self.came = self.came or {}
            came = self.came.setdefault(slot, {}).setdefault(signal, [])
        return aggregate(way, before, value, came)

    def teach_no_more(self) -> None:
        """Forget all but that it was there."""
        self.record, self.slots = None, 0
        self.values, self.seen, self.taught = NOTHING, NOTHING, NOTHING
        self.parts = self.came = None


T = TypeVar("T")

NOTHING: dict[Any, Any] = {}
"""The fields of a decision without rewards, or that can teach nothing any more; none is added."""
NO_REWARDS: list[float] = []
"""What is kept of rewards whose aggregate needs none of them again; nothing is added to it."""

Lesson = tuple[tuple[int, ...], tuple[float, ...], bool]
"""Slots, their rewards, and whether it is a correction."""


def lessons_of(decision: RememberedDecision, slots: Sequence[int]) -> list[Lesson]:
    """Bring the model's knowledge of some slots to their aggregates, or to the default.

    What is new is taught, and what was taught with another reward is corrected by the difference.

    Args:
        decision: one of which something can be taught; its ``taught`` is brought up to date.
        slots: those to bring up to date, each once.

    Returns:
        What is to be taught, then what is to be corrected, where there is any.
    """
    taught, rewards = decision.taught, decision.rewards_of(slots)

    # The usual case: nothing of it was taught before.
    if not taught:
        if not rewards:
            return []
        decision.taught = dict(zip(slots, rewards, strict=True))
        return [(tuple(slots), rewards, False)]

    wanted = dict(zip(slots, rewards, strict=True))
    fresh = tuple(slot for slot in slots if slot not in taught)
    changed = tuple(slot for slot in slots if slot in taught and taught[slot] != wanted[slot])
    deltas = tuple(wanted[slot] - taught[slot] for slot in changed)
    taught.update(wanted)

    lessons: list[Lesson] = []
    if fresh:
        lessons.append((fresh, tuple(wanted[slot] for slot in fresh), False))
    if changed:
        lessons.append((changed, deltas, True))
    return lessons


def teach_slots(
    decision: RememberedDecision,
    slots: Sequence[int],
    out: list[JoinedDecision] | None,
    record_of: Callable[[RememberedDecision], Decision],
) -> None:
    """Bring the model's knowledge of some slots up to date; see ``lessons_of``.

    Args:
        decision: one of which something can be taught.
        slots: those to bring up to date, each once.
        out: gets what is to be taught, appended; None if all of it was taught before.
        record_of: reads the record of a decision that has none in memory.
    """
    lessons = lessons_of(decision, slots)
    if lessons and out is not None:
        record = decision.record or record_of(decision)
        for lesson in lessons:
            out.append(JoinedDecision(decision.position, record, *lesson))


def teach_at_close(
    decision: RememberedDecision,
    out: list[JoinedDecision] | None,
    record_of: Callable[[RememberedDecision], Decision],
) -> None:
    """Teach a decision that closes, of which nothing was taught and nothing will be corrected.

    Args:
        decision: one of which something can be taught.
        out: gets what is to be taught, appended; None if all of it was taught before.
        record_of: reads the record of a decision that has none in memory.
    """
    if out is None or not decision.slots:
        return
    slots: tuple[int, ...] = (0,) if decision.slots == 1 else tuple(range(decision.slots))
    record = decision.record or record_of(decision)
    out.append(JoinedDecision(decision.position, record, slots, decision.rewards_of(slots)))


def as_read(reward: RewardRecord, fold: int) -> RewardRecord:
    """Return a reward as builds of a version of the fold read it."""
    if fold >= SIGNALS_SINCE:
        return reward
    return msgspec.structs.replace(reward, signal=None)


def slot_of(decision: Decision, reward: RewardRecord) -> int | None:
    """Return the slot a reward is for; None when it names an action or slot that was not chosen.

    A slot that holds a placed item is none of those that were drawn: it is -1 - its place on the
    page.

    Args:
        decision: the record of what was chosen, slot by slot.
        reward: it names an action, a slot of the page or both; without either it is for slot 0.
    """
    if placed := placed_of(decision):
        record = whole_record(decision)
        chosen = [record.action_ids[index] for index in record.chosen]
        items = [(each.slot, each.action_id) for each in placed]
        return _on_page(chosen, items, reward.slot, reward.action_id)
    if reward.action_id is None:
        slot = reward.slot or 0
        return slot if slot < decision.slots else None

    record = whole_record(decision)
    for slot, index in enumerate(record.chosen):
        if record.action_ids[index] == reward.action_id and reward.slot in (None, slot):
            return slot
    return None


def slot_by_hash(decision: RememberedDecision, reward: RewardRecord) -> int | None:
    """Return the slot a reward is for, as ``slot_of``, of a decision without its record."""
    if decision.placed:
        named = None if reward.action_id is None else action_hash(reward.action_id)
        return _on_page(decision.chosen, decision.placed, reward.slot, named)
    if reward.action_id is None:
        slot = reward.slot or 0
        return slot if slot < decision.slots else None
    named = action_hash(reward.action_id)
    for slot, action in enumerate(decision.chosen):
        if action == named and reward.slot in (None, slot):
            return slot
    return None


def _on_page(
    chosen: Sequence[T], placed: Sequence[tuple[int, T]], slot: int | None, action: T | None
) -> int | None:
    """Return the slot of a page that a reward is for, as ``slot_of``.

    Args:
        chosen: what was drawn, in order: each stands in the next slot that nothing is placed in.
        placed: slots of the page, and what is placed there.
        slot: the one that the reward names.
        action: the action that it names.
    """
    if slot is None and action is None:
        slot = 0
    for at, item in placed:
        if slot in (None, at) and action in (None, item):
            return -1 - at
    pages = slots_between([at for at, _ in placed], len(chosen))
    for drawn, (at, item) in enumerate(zip(pages, chosen, strict=True)):
        if slot in (None, at) and action in (None, item):
            return drawn
    return None
