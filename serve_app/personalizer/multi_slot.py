"""Multi-slot rank, reward and activate: a page whose slots are chosen one after the other.

A slate of the policy: each slot is drawn among the actions that no earlier slot has, and that it
does not exclude. The features of slots are features of the context, under ``slots`` and the slot's
id: what is learned of an action is the same in every slot.
"""

from collections.abc import Sequence

import msgspec

from bandits.errors import DuplicateActionError, InvalidFieldError, LogUnavailableError
from bandits.log.records import ActivationRecord, RewardRecord
from bandits.values import FeatureMap
from policies.requests import SlateRequest
from serve_app.api.routes import Call
from serve_app.api.wire import Answer
from serve_app.personalizer.bodies import (
    MultiSlotRankCall,
    MultiSlotRankResult,
    MultiSlotRewardCall,
    SlotCall,
    SlotResult,
    SlotReward,
)
from serve_app.personalizer.event_ids import logged_event_id, made_event_id
from serve_app.personalizer.features import record_features
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.single_slot import (
    NOTHING,
    actions_of,
    check_id,
    context_of,
    count_decision,
    reward_record,
)

MOST_SLOTS = 50
OF_SLOTS = "slots"
"""What the names of slots' features begin with in the context."""


async def rank_slots(call: Call[MultiSlotRankCall]) -> MultiSlotRankResult:
    """Choose an action for each slot."""
    if call.service.has_one_slot:
        raise RefusedCall(
            400,
            "InvalidMultiSlotApiAccess",
            "the policy that was set decides one slot: set one with --ccb_explore_adf first",
            "arguments",
        )
    sent = call.request
    event_id = made_event_id() if sent.event_id is None else sent.event_id
    actions = actions_of(sent.actions)
    barred = _barred(sent.slots, [action.id for action in actions])
    request = SlateRequest(
        event_id=logged_event_id(event_id),
        context={**context_of(sent.context_features), **_of_slots(sent.slots)},
        actions=actions,
        slots=len(sent.slots),
        defer_activation=bool(sent.defer_activation),
        barred=barred if any(barred) else [],
        baseline=[slot.baseline_action for slot in sent.slots],
    )

    is_new = sent.event_id is None
    record, is_logged = await call.service.rank(request, is_new=is_new, again=True)
    names = [slot.id for slot in sent.slots]
    try:
        await call.service.name_slots(record.event_id, names)
    except LogUnavailableError:
        is_logged = False
    count_decision(call, is_logged=is_logged)

    # A policy whose own rules leave slots empty answers those that it filled.
    shown = zip(names, record.shown(), strict=False)
    return MultiSlotRankResult([SlotResult(*each) for each in shown], event_id)


def _barred(slots: Sequence[SlotCall], actions: Sequence[str]) -> list[list[str]]:
    """Return the actions that each slot excludes.

    Raises:
        InvalidFieldError: the slots are wrong; it names the field.
    """
    if not 0 < len(slots) <= min(MOST_SLOTS, len(actions)):
        raise InvalidFieldError(
            f"a page has 1 to {MOST_SLOTS} slots, and no more than actions ({len(actions)}), not"
            f" {len(slots)}",
            "slots",
        )
    known = set(actions)
    names: set[str] = set()
    baselines: set[str] = set()
    for at, slot in enumerate(slots):
        target, excluded = f"slots[{at}]", slot.excluded_actions or []
        check_id(slot.id, f"{target}.id")
        if slot.id in names:
            raise DuplicateActionError(f"two slots have the id {slot.id!r}", f"{target}.id")
        names.add(slot.id)

        baseline, field = slot.baseline_action, f"{target}.baselineAction"
        if baseline not in known:
            raise InvalidFieldError(f"{baseline!r} is none of the actions", field)
        if baseline in excluded:
            raise InvalidFieldError(f"{baseline!r} is excluded from this slot", field)
        if baseline in baselines:
            raise InvalidFieldError(f"{baseline!r} is the baseline of an earlier slot", field)
        baselines.add(baseline)
        if unknown := [name for name in excluded if name not in known]:
            raise InvalidFieldError(
                f"{unknown[0]!r} is none of the actions", f"{target}.excludedActions"
            )
    return [list(dict.fromkeys(slot.excluded_actions or ())) for slot in slots]


def _of_slots(slots: Sequence[SlotCall]) -> FeatureMap:
    """Return the features of slots as features of the context."""
    features: FeatureMap = {}
    for at, slot in enumerate(slots):
        for name, value in record_features(slot.features or (), f"slots[{at}].features").items():
            features[f"{OF_SLOTS}.{slot.id}.{name}"] = value
    return features


async def reward_slots(call: Call[MultiSlotRewardCall]) -> Answer:
    """Log rewards of slots, of whatever event: all or none."""
    event_id, sent = logged_event_id(call.parameters["event"]), call.request.reward
    for at, each in enumerate(sent):
        check_id(each.slot_id, f"reward[{at}].slotId")

    names = await call.service.slot_names(event_id)
    rewards: list[RewardRecord | ActivationRecord] = [
        _slot_reward(event_id, each, f"reward[{at}].value", names) for at, each in enumerate(sent)
    ]
    await call.service.log(rewards)
    call.backend.metrics.count("reward_events", call.policy, by=len(rewards))
    return NOTHING


def _slot_reward(
    event_id: str, sent: SlotReward, target: str, names: Sequence[str]
) -> RewardRecord:
    """Return a reward as the log has it; one of an unknown slot is logged, and joins nothing."""
    reward = reward_record(event_id, sent.value, target)
    if sent.slot_id in names:
        return msgspec.structs.replace(reward, slot=names.index(sent.slot_id))
    return msgspec.structs.replace(reward, action_id=f"{OF_SLOTS}.{sent.slot_id}")
