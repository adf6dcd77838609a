"""The table of Personalizer's operations: their paths, what each needs, and what does it."""

from types import NoneType
from typing import Any

from banditloop_client.schemas import Endpoint
from serve_app.personalizer import bodies
from serve_app.personalizer.multi_slot import activate_slots, rank_slots, reward_slots
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.personalizer.single_slot import activate_event, rank_single, reward_single

OPERATIONS: tuple[PersonalizerRoute[Any, Any], ...] = (
    PersonalizerRoute(
        Endpoint("POST", "/rank", bodies.RankCall, bodies.RankResult, 201),
        "Choose one of the actions",
        scope="rank",
        handler=rank_single,
        refusal="InvalidRankRequest",
        plain=bodies.PlainRankCall,
    ),
    PersonalizerRoute(
        Endpoint("POST", "/events/{event}/reward", bodies.RewardCall, NoneType, 204),
        "Reward an event",
        scope="reward",
        handler=reward_single,
        refusal="InvalidRewardRequest",
    ),
    PersonalizerRoute(
        Endpoint("POST", "/events/{event}/activate", NoneType, NoneType, 204),
        "Activate a deferred event",
        scope="reward",
        handler=activate_event,
        refusal="InvalidEventIdToActivate",
    ),
    PersonalizerRoute(
        Endpoint(
            "POST", "/multislot/rank", bodies.MultiSlotRankCall, bodies.MultiSlotRankResult, 201
        ),
        "Choose an action for each slot of a page",
        scope="rank",
        handler=rank_slots,
        refusal="InvalidRankRequest",
    ),
    PersonalizerRoute(
        Endpoint(
            "POST", "/multislot/events/{event}/reward", bodies.MultiSlotRewardCall, NoneType, 204
        ),
        "Reward slots of an event",
        scope="reward",
        handler=reward_slots,
        refusal="InvalidRewardRequest",
    ),
    PersonalizerRoute(
        Endpoint("POST", "/multislot/events/{event}/activate", NoneType, NoneType, 204),
        "Activate a deferred event, with all of its slots",
        scope="reward",
        handler=activate_slots,
        refusal="InvalidEventIdToActivate",
    ),
)
