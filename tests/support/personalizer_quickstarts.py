"""The calls of the quickstarts and samples that Microsoft has published for Personalizer's clients, in their order.

What is changed in such a program is its endpoint and its key.
"""

import asyncio
import random
import uuid
from typing import Any

from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.ai.personalizer.aio import PersonalizerAdministrationClient as AsyncAdministration
from azure.ai.personalizer.aio import PersonalizerClient as AsyncClient
from azure.cognitiveservices.personalizer import PersonalizerClient as OlderClient
from azure.cognitiveservices.personalizer.models import RankableAction, RankRequest
from azure.core.credentials import AzureKeyCredential
from msrest.authentication import CognitiveServicesCredentials

MEALS = {
    "soup": {"vegetarian": True, "price": 4.5, "served": ["warm"]},
    "salad": {"vegetarian": True, "price": 6.0, "served": ["cold"]},
    "steak": {"vegetarian": False, "price": 14.0, "served": ["warm"]},
}
VIDEOS = [
    {"id": "deep-sea", "features": [{"kind": "documentary", "minutes": 50}, {"likedBy": "40-49"}]},
    {"id": "heist", "features": [{"kind": "movie", "minutes": 118}, {"likedBy": "20-29"}]},
]
VIEWER = [
    {"now": {"day": "friday", "time": "night", "weather": "snow"}},
    {"viewer": {"paying": True, "favourite": "movie", "hoursOnSite": 0.4}},
]


def grocery(endpoint: str, key: str, cycles: int = 3) -> None:
    """The quickstart of azure-cognitiveservices-personalizer: rank, look at the answer, reward."""
    client = OlderClient(endpoint, CognitiveServicesCredentials(key))
    for cycle in range(cycles):
        context = [
            {"customer": random.Random(cycle).choice(["ann", "bob"])},
            {"timeOfDay": "evening", "device": {"mobile": True}},
        ]
        actions = []
        for meal, features in MEALS.items():
            described = {**features, "served": features["served"][0]}
            actions.append(
                RankableAction(id=meal, features=[described, {"taste": {"salty": True}}])
            )
        event = str(uuid.uuid4())
        request = RankRequest(actions=actions, context_features=context, event_id=event)
        response = client.rank(rank_request=request)
        assert response.event_id == event
        assert response.reward_action_id in MEALS
        assert {ranked.id for ranked in response.ranking} == set(MEALS)
        assert sum(ranked.probability for ranked in response.ranking) > 0.999
        client.events.reward(event_id=event, value=1.0)

    excluding = RankRequest(
        actions=actions, context_features=context, excluded_actions=["steak"], defer_activation=True
    )
    response = client.rank(excluding)
    assert response.reward_action_id != "steak"
    client.events.activate(response.event_id)
    client.events.reward(event_id=response.event_id, value=0.5)


def videos(endpoint: str, credential: Any, **options: Any) -> None:
    """The samples of azure-ai-personalizer, of one slot and of several, as they are called synchronously."""
    client = PersonalizerClient(endpoint, credential, **options)
    response = client.rank({"actions": VIDEOS, "contextFeatures": VIEWER})
    assert response.get("rewardActionId") in {"deep-sea", "heist"}
    client.reward(response.get("eventId"), {"value": 1.0})

    page = client.rank_multi_slot(_page())
    assert [slot.get("id") for slot in page.get("slots")] == ["Main Video", "Side Bar"]
    rewards = {"reward": [{"slotId": "Main Video", "value": 1.0}]}
    client.reward_multi_slot(page.get("eventId"), rewards)
    client.close()


async def videos_async(endpoint: str, credential: Any) -> None:
    """The same samples, asynchronous."""
    async with AsyncClient(endpoint, credential) as client:
        response = await client.rank({"actions": VIDEOS, "contextFeatures": VIEWER})
        await client.reward(response.get("eventId"), {"value": 1.0})
        page = await client.rank_multi_slot(_page())
        await client.activate_multi_slot(page.get("eventId"))
        await client.reward_multi_slot(
            page.get("eventId"), {"reward": [{"slotId": "Side Bar", "value": 0.5}]}
        )


def administration(endpoint: str, key: str) -> dict[str, Any]:
    """What the README of the administration client calls; the configuration."""
    with PersonalizerAdministrationClient(endpoint, AzureKeyCredential(key)) as client:
        configuration = client.get_service_configuration()
        assert "cb_explore_adf" in client.get_policy()["arguments"]
        assert client.get_model_properties()["lastModifiedTime"]
        assert list(client.list_evaluations()) == []
        assert client.get_log_properties()["dateRange"]["from"]
    return asyncio.run(_configuration(endpoint, key, configuration))


async def _configuration(endpoint: str, key: str, expected: dict[str, Any]) -> dict[str, Any]:
    async with AsyncAdministration(endpoint, AzureKeyCredential(key)) as client:
        configuration = await client.get_service_configuration()
        assert configuration == expected
        assert [each async for each in client.list_feature_importances()] == []
    return configuration


def _page() -> dict[str, Any]:
    return {
        "slots": [
            {
                "id": "Main Video",
                "baselineAction": "deep-sea",
                "features": [{"Size": "Large", "Position": "Top"}],
            },
            {
                "id": "Side Bar",
                "baselineAction": "heist",
                "features": [{"Size": "Small", "Position": "Right"}],
            },
        ],
        "actions": [*VIDEOS, {"id": "concert", "features": [{"kind": "music"}]}],
        "contextFeatures": VIEWER,
    }
