"""Multi-slot rank, reward and activate: a page whose slots are chosen one after the other.

Each slot is drawn among the actions that no earlier slot has, and that it does not exclude. Where
no slot has features, the page is one decision of the policy, a slate. Where one has, each slot is a
decision of its own, whose context has the slot's features, too: so what is learned of an action may
depend on where it stands. A page of a policy that has rules for pages is a slate in any case, and
the features of its slots are features of the context, under the slot's id.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from banditloop_client.schemas import ActionRequest, RankRequest
from bandits.errors import DuplicateActionError, InvalidFieldError, LogUnavailableError
from bandits.log.records import ActivationRecord, RewardRecord
from bandits.values import FeatureMap
from policies.decisions.barred_slots import BarredSlots, admitted_by_slot
from policies.encoding import check_features
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
from serve_app.personalizer.event_ids import logged_event_id, made_event_id, slot_event_id
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
"""What the names of slots' features begin with in the context of a slate."""
OF_SLOT = "slot"
"""What those of its own begin with in the context of a slot that is a decision of its own."""
APART = ""
"""What stands before the names that are kept of slots which are decisions of their own: no slot is
called so."""


class _Page(NamedTuple):
    """A page that is asked for.

    ``features``: of each slot; ``barred``: the actions that each excludes.
    """

    event_id: str
    context: FeatureMap
    actions: list[ActionRequest]
    slots: Sequence[SlotCall]
    features: list[FeatureMap]
    barred: list[list[str]]
    deferred: bool


class _KeptSlots(NamedTuple):
    """What is kept of a page's slots: their names, and whether each is a decision of its own."""

    names: list[str]
    apart: bool


# Rank


async def rank_slots(call: Call[MultiSlotRankCall]) -> MultiSlotRankResult:
    """Choose an action for each slot."""
    if call.service.has_one_slot:
        raise RefusedCall(
            400,
            "InvalidMultiSlotApiAccess",
            "the policy that was set decides one slot: set one with --ccb_explore_adf first",
            "arguments",
        )
    sent, is_new = call.request, call.request.event_id is None
    event_id = made_event_id() if sent.event_id is None else sent.event_id
    page = _page_of(sent, logged_event_id(event_id))

    apart = call.service.parts_pages and await _is_apart(call, page, is_new=is_new)
    decide = _rank_apart if apart else _rank_slate
    shown, is_logged = await decide(call, page, is_new=is_new)

    names = [slot.id for slot in page.slots]
    try:
        await call.service.name_slots(page.event_id, [APART, *names] if apart else names)
    except LogUnavailableError:
        is_logged = False
    count_decision(call, is_logged=is_logged)

    # A policy whose own rules leave slots empty answers those that it filled.
    answer = [SlotResult(*each) for each in zip(names, shown, strict=False)]
    return MultiSlotRankResult(answer, event_id)


async def _is_apart(call: Call[MultiSlotRankCall], page: _Page, *, is_new: bool) -> bool:
    """Return whether each slot is a decision of its own: as it was where the id has answered."""
    if not is_new:
        with contextlib.suppress(LogUnavailableError):
            kept = await _kept(call, page.event_id)
            if kept.names:
                return kept.apart
    return any(page.features)


async def _rank_slate(
    call: Call[MultiSlotRankCall], page: _Page, *, is_new: bool
) -> tuple[list[str], bool]:
    """Decide all slots at once; return their actions, and whether that is known to be logged."""
    of_slots = {
        f"{OF_SLOTS}.{slot.id}.{name}": value
        for slot, own in zip(page.slots, page.features, strict=True)
        for name, value in own.items()
    }
    request = SlateRequest(
        event_id=page.event_id,
        context={**page.context, **of_slots},
        actions=page.actions,
        slots=len(page.slots),
        defer_activation=page.deferred,
        barred=page.barred if any(page.barred) else [],
        baseline=[slot.baseline_action for slot in page.slots],
    )
    record, is_logged = await call.service.rank(request, is_new=is_new, again=True)
    return record.shown(), is_logged


async def _rank_apart(
    call: Call[MultiSlotRankCall], page: _Page, *, is_new: bool
) -> tuple[list[str], bool]:
    """Decide slot by slot; return their actions, and whether all are known to be logged."""
    ids = [action.id for action in page.actions]
    contexts = [_in_slot(page.context, own) for own in page.features]
    for at, context in enumerate(contexts):
        check_features(context, f"slots[{at}].features")

    bars = BarredSlots(admitted_by_slot(page.barred, ids))
    chosen: list[int] = []
    are_logged = True
    for slot, context in zip(page.slots, contexts, strict=True):
        offsets = bars.after(chosen)
        barred = [] if offsets is None else np.flatnonzero(np.isnan(offsets)).tolist()
        request = RankRequest(
            event_id=slot_event_id(page.event_id, slot.id),
            context=context,
            actions=page.actions,
            exclude=[ids[at] for at in sorted({*chosen, *barred})],
            defer_activation=page.deferred,
            baseline=slot.baseline_action,
        )
        record, is_logged = await call.service.rank(request, is_new=is_new, again=True)
        chosen.append(ids.index(record.shown()[0]))
        are_logged &= is_logged
    return [ids[at] for at in chosen], are_logged


def _in_slot(context: FeatureMap, own: FeatureMap) -> FeatureMap:
    return {**context, **{f"{OF_SLOT}.{name}": value for name, value in own.items()}}


def _page_of(sent: MultiSlotRankCall, event_id: str) -> _Page:
    """Return what is asked.

    Raises:
        InvalidInputError: a field is wrong; it names it.
    """
    actions = actions_of(sent.actions)
    return _Page(
        event_id,
        context_of(sent.context_features),
        actions,
        sent.slots,
        [
            record_features(slot.features or (), f"slots[{at}].features")
            for at, slot in enumerate(sent.slots)
        ],
        _barred(sent.slots, [action.id for action in actions]),
        bool(sent.defer_activation),
    )


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


# What comes of it


async def reward_slots(call: Call[MultiSlotRewardCall]) -> Answer:
    """Log rewards of slots, of whatever event: all or none."""
    event_id, sent = logged_event_id(call.parameters["event"]), call.request.reward
    for at, each in enumerate(sent):
        check_id(each.slot_id, f"reward[{at}].slotId")

    kept = await _kept(call, event_id)
    rewards: list[RewardRecord | ActivationRecord] = [
        _slot_reward(event_id, each, f"reward[{at}].value", kept) for at, each in enumerate(sent)
    ]
    await call.service.log(rewards)
    call.backend.metrics.count("reward_events", call.policy, by=len(rewards))
    return NOTHING


async def activate_slots(call: Call[None]) -> Answer:
    """Log that a deferred event was shown, with all of its slots, whatever event."""
    event_id = logged_event_id(call.parameters["event"])
    kept = await _kept(call, event_id)
    own = [slot_event_id(event_id, name) for name in kept.names] if kept.apart else [event_id]
    await call.service.log([ActivationRecord(each) for each in own])
    return NOTHING


def _slot_reward(event_id: str, sent: SlotReward, target: str, kept: _KeptSlots) -> RewardRecord:
    """Return a reward as the log has it; one of an unknown slot is logged, and joins nothing."""
    reward = reward_record(event_id, sent.value, target)
    if sent.slot_id not in kept.names:
        return msgspec.structs.replace(reward, action_id=f"{OF_SLOTS}.{sent.slot_id}")
    if kept.apart:
        return msgspec.structs.replace(reward, event_id=slot_event_id(event_id, sent.slot_id))
    return msgspec.structs.replace(reward, slot=kept.names.index(sent.slot_id))


async def _kept(call: Call[Any], event_id: str) -> _KeptSlots:
    """Return what is kept of the slots of a page; nothing where it is not known."""
    names = await call.service.slot_names(event_id)
    apart = names[:1] == [APART]
    return _KeptSlots(names[1:] if apart else names, apart)
