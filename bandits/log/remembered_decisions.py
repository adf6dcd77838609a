"""A decision as the join remembers it, and what is to be taught of it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from bandits.log.join_rule import JoinRule
from bandits.log.join_state import OpenState
from bandits.log.records import DecisionRecord, RewardRecord


class JoinedDecision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A lesson from a decision: the ``rewards`` of its ``slots``.

    In a ``correction`` they are the changes of rewards that were taught before.
    """

    position: str
    record: DecisionRecord
    slots: tuple[int, ...]
    rewards: tuple[float, ...]
    correction: bool = False


class RememberedDecision(msgspec.Struct, eq=False, gc=False):
    """A decision whose window is open, or closed for less than another window.

    ``record``: None once nothing can be taught of it any more. ``values``: by slot, the aggregate
    of its rewards so far. ``seen``: the rewards that counted, by their id, or by slot if they have
    none. ``taught``: by slot, the reward that the model holds. ``waiting``: rewards that count once
    it is activated.
    """

    position: str
    record: DecisionRecord | None
    rule: JoinRule
    number: int
    activated: bool
    values: dict[int, float] = {}
    seen: dict[int | str, None] = {}
    taught: dict[int, float] = {}
    forgotten_ms: int = 0
    waiting: int = 0


NOTHING: dict[Any, Any] = {}
"""What a decision without its record has: nothing is added to it any more."""


def teach_slots(
    decision: RememberedDecision, slots: Sequence[int], out: list[JoinedDecision]
) -> None:
    """Bring the model's knowledge of some slots to their aggregates, or to the default.

    What is new is taught, and what was taught with another reward is corrected by the difference.

    Args:
        decision: one that still has its record; its ``taught`` is brought up to date.
        slots: those to bring up to date, each once.
        out: gets what is to be taught, then what is to be corrected, appended where there is any.
    """
    assert decision.record is not None  # noqa: S101 - taught only while it is remembered
    default, taught = decision.rule.default_reward, decision.taught

    # The usual case: nothing of it was taught before.
    if not taught:
        rewards = tuple(decision.values.get(slot, default) for slot in slots)
        if rewards:
            decision.taught = dict(zip(slots, rewards, strict=True))
            out.append(JoinedDecision(decision.position, decision.record, tuple(slots), rewards))
        return

    wanted = {slot: decision.values.get(slot, default) for slot in slots}
    fresh = tuple(slot for slot in slots if slot not in taught)
    changed = tuple(slot for slot in slots if slot in taught and taught[slot] != wanted[slot])
    deltas = tuple(wanted[slot] - taught[slot] for slot in changed)
    taught.update(wanted)

    if fresh:
        out.append(
            JoinedDecision(
                decision.position, decision.record, fresh, tuple(wanted[slot] for slot in fresh)
            )
        )
    if changed:
        out.append(
            JoinedDecision(decision.position, decision.record, changed, deltas, correction=True)
        )


def state_of(event_id: str, decision: RememberedDecision) -> OpenState:
    """Return what a checkpoint holds of a decision: all but its record, which the log has.

    Args:
        event_id: the decision's name, which its rewards carry.
        decision: copied, so that what happens to it later does not change the result.
    """
    return OpenState(
        event_id,
        decision.position,
        decision.number,
        decision.activated,
        dict(decision.values),
        list(decision.seen),
        dict(decision.taught),
        decision.forgotten_ms,
        decision.waiting,
    )


def count_slots(decision: RememberedDecision) -> int:
    """Return how many slots can still be taught."""
    return 0 if decision.record is None else len(decision.record.chosen)


def slot_of(decision: DecisionRecord, reward: RewardRecord) -> int | None:
    """Return the slot a reward is for; None when it names an action or slot that was not chosen.

    Args:
        decision: the record of what was chosen, slot by slot.
        reward: it names an action, a slot or both; without either it is for slot 0.
    """
    if reward.action_id is None:
        slot = reward.slot or 0
        return slot if slot < len(decision.chosen) else None
    for slot, index in enumerate(decision.chosen):
        if decision.action_ids[index] == reward.action_id and reward.slot in (None, slot):
            return slot
    return None
