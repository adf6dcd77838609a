"""Rank, reward and activate: one action of a list.

What is served is a decision of the policy. Only the bodies are Personalizer's.
"""

import time
import uuid
from collections.abc import Sequence
from itertools import compress
from typing import Any, cast

from banditloop_client.schemas import ActionRequest, RankRequest
from bandits.errors import (
    DuplicateActionError,
    InvalidFieldError,
    NonFiniteNumberError,
    TooManyActionsError,
)
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from bandits.values import MAX_NUMBER, FeatureMap
from serve_app.api.routes import Call
from serve_app.api.wire import JSON, Answer
from serve_app.personalizer.bodies import (
    PlainAction,
    PlainRankCall,
    RankableAction,
    RankCall,
    RankedAction,
    RankResult,
    RewardCall,
)
from serve_app.personalizer.event_ids import MAX_ID, logged_event_id, made_event_id
from serve_app.personalizer.explained import inference_explanation
from serve_app.personalizer.features import NAMELESS, FeatureObjects, record_features

SentAction = RankableAction | PlainAction
MOST_ACTIONS = 50
NOTHING: Answer = (204, b"", JSON)
"""What is answered where there is nothing to say."""


# Rank


async def rank_single(call: Call[RankCall | PlainRankCall]) -> RankResult:
    """Choose one of the actions."""
    sent = call.request
    event_id = made_event_id() if sent.event_id is None else sent.event_id
    excluded = sent.excluded_actions or ()
    request = RankRequest(
        event_id=logged_event_id(event_id),
        context=context_of(sent.context_features),
        actions=actions_of(sent.actions),
        exclude=list(excluded),
        defer_activation=bool(sent.defer_activation),
    )
    _check_some_left(request.actions or (), excluded)

    is_new = sent.event_id is None
    explain = call.service.explaining() if call.service.explains_unasked else None
    record, is_logged = await call.service.rank(request, is_new=is_new, again=True)
    count_decision(call, is_logged=is_logged)
    why = None if explain is None else inference_explanation(explain(record))
    return RankResult(ranked(sent.actions, record), event_id, record.shown()[0], why)


def ranked(
    sent: Sequence[RankableAction | PlainAction], record: DecisionRecord
) -> list[RankedAction]:
    """Return the actions as they are answered.

    What could not be chosen stays where it was sent, with probability 0. The others fill the places
    that are left: the likeliest first, of those alike the first that was sent; then the chosen one
    changes places with the first.

    Args:
        sent: all actions.
        record: the decision among those that could be chosen.
    """
    ids = record.action_ids
    pmf = memoryview(record.pmf).cast("d").tolist() if record.chosen else []
    order = sorted(range(len(pmf)), key=pmf.__getitem__, reverse=True)
    if pmf:
        at = order.index(record.chosen[0])
        order[0], order[at] = order[at], order[0]

    if len(pmf) == len(sent):
        return [RankedAction(ids[k], pmf[k]) for k in order]
    could = set(ids)
    places = compress(range(len(sent)), (action.id in could for action in sent))
    answer = [RankedAction(action.id, 0.0) for action in sent]
    for place, k in zip(places, order, strict=False):
        answer[place] = RankedAction(ids[k], pmf[k])
    return answer


def context_of(sent: FeatureObjects | None) -> FeatureMap:
    """Return the context of a request as a record has it; without any it is empty.

    Raises:
        InvalidInputError: a feature is wrong; it names it.
    """
    if sent is None:
        return {}
    if None in sent:
        place = f"contextFeatures[{sent.index(None)}]"
        raise InvalidFieldError("features are objects, not null", place)
    return record_features(sent, "contextFeatures")


def actions_of(
    sent: Sequence[SentAction],
) -> list[ActionRequest]:
    """Return the actions of a request as our own has them.

    Raises:
        InvalidInputError: there are none or too many, or one is wrong; it names the field.
    """
    if not 0 < len(sent) <= MOST_ACTIONS:
        raise TooManyActionsError(
            f"a request has 1 to {MOST_ACTIONS} actions, not {len(sent)}", "actions"
        )
    names = [action.id for action in sent]
    sizes = {*map(len, names)}
    if len({*names}) < len(names) or not 0 < min(sizes) <= max(sizes) <= MAX_ID:
        _check_ids(names)
    if isinstance(sent[0], PlainAction):
        return _plain_actions(cast("Sequence[PlainAction]", sent), names)  # then all are
    return [
        ActionRequest(action.id, _features_of(action, at))  # type: ignore[arg-type] # none is plain
        for at, action in enumerate(sent)
    ]


def _plain_actions(sent: Sequence[PlainAction], names: Sequence[str]) -> list[ActionRequest]:
    found: list[FeatureMap] = [action.features[0] for action in sent]  # type: ignore[misc] # fewer kinds
    nameless = [at for at, features in enumerate(found) if "" in features]
    if nameless:
        raise InvalidFieldError(NAMELESS, f"actions[{nameless[0]}].features[0]")
    return [*map(ActionRequest, names, found)]


def _features_of(action: RankableAction, at: int) -> FeatureMap:
    features = action.features
    if not features or (None in features and features.count(None) == len(features)):
        raise InvalidFieldError(
            "an action has at least one object of features", f"actions[{at}].features"
        )
    return record_features(features, "actions[%d].features", at)


def _check_ids(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for at, name in enumerate(names):
        check_id(name, f"actions[{at}].id")
        if name in seen:
            raise DuplicateActionError(f"two actions have the id {name!r}", f"actions[{at}].id")
        seen.add(name)


def check_id(name: str, target: str) -> None:
    """Refuse an id that is empty or too long.

    Args:
        name: the id.
        target: its path in the request.
    """
    if not 0 < len(name) <= MAX_ID:
        raise InvalidFieldError(f"an id has 1 to {MAX_ID} characters", target)


def _check_some_left(actions: Sequence[ActionRequest], excluded: Sequence[str]) -> None:
    if excluded and {action.id for action in actions} <= set(excluded):
        raise InvalidFieldError("every action is excluded: leave one", "excludedActions")


def count_decision(call: Call[Any], *, is_logged: bool) -> None:
    """Count a decision that is answered.

    Args:
        call: the request.
        is_logged: whether it is known to be logged.
    """
    metrics = call.backend.metrics
    metrics.count("decisions", call.policy, "true" if is_logged else "false")
    metrics.observe(call.policy, time.perf_counter() - call.started)


# What comes of it


async def reward_single(call: Call[RewardCall]) -> Answer:
    """Log a reward, of whatever event."""
    record = reward_record(logged_event_id(call.parameters["event"]), call.request.value, "value")
    await call.service.log([record])
    call.backend.metrics.count("reward_events", call.policy, by=1)
    return NOTHING


def reward_record(event_id: str, value: float, target: str) -> RewardRecord:
    """Return a reward as the log has it: under a name of its own, since each that is sent counts.

    Args:
        event_id: as the log has it.
        value: the reward.
        target: where it stands in the request.

    Raises:
        NonFiniteNumberError: it is too large.
    """
    if not abs(value) <= MAX_NUMBER:
        raise NonFiniteNumberError(f"a reward is a number up to {MAX_NUMBER:g}", target)
    return RewardRecord(event_id, value, reward_id=uuid.uuid4().hex)


async def activate_event(call: Call[None]) -> Answer:
    """Log that a deferred event was shown, whatever event."""
    await call.service.log([ActivationRecord(logged_event_id(call.parameters["event"]))])
    return NOTHING
