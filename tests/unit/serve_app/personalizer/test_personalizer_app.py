"""Personalizer's protocol over a real ranker: paths, keys, errors, and a first rank."""

import json
import math
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from support.fakes import FakeService, fresh_ranker

from bandits.errors import BanditloopError
from bandits.exploration import EpsilonGreedy
from bandits.log.records import ActivationRecord, RewardRecord, TickRecord
from bandits.vw.config import VwConfig
from policies.items.catalogue import Catalogue
from policies.rules.pages.page import Page
from policies.spec import PolicySpec
from policies.spec.personalizer import PersonalizerSettings
from serve_app.api.api_keys import Key, KeyRing, secret_hash
from serve_app.api.asgi import Api
from serve_app.api.cors import CrossOriginApi
from serve_app.personalizer.app import PersonalizerApi
from serve_app.replica.metrics import Metrics

GOOD = {
    "contextFeatures": [{"user": {"age": 30, "plan": "free"}}, {"hour": 8}],
    "actions": [
        {"id": "news", "features": [{"topic": "politics"}]},
        {"id": "match", "features": [{"topic": "sport", "live": True}]},
    ],
}
SHAPES = ["/personalizer/v1.0", "/personalizer", "/policies/home/personalizer/v1.1-preview.1"]


class Adapter:
    """The adapter called in this process, with everything it stands on at hand."""

    def __init__(self, *names: str, keys: KeyRing | None = None) -> None:
        self.services = {name: FakeService(fresh_ranker(PolicySpec(name))) for name in names}
        self.metrics = Metrics("test")
        api = Api(self.services, self.metrics, _no_metrics, keys)
        self.app = PersonalizerApi(api, api.backend, keys)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://test"
        )

    def entries(self, name: str = "home") -> list:
        return [entry.record for entry in self.services[name].records.entries]

    async def post(self, path: str, body=None, **options) -> httpx.Response:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return await self.http.post(path, content=content, **options)


async def _no_metrics() -> bytes:
    return b""


@pytest.fixture
async def adapter() -> AsyncIterator[Adapter]:
    adapter = Adapter("home")
    yield adapter
    await adapter.http.aclose()


def error_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["message"]
    assert response.headers["x-ms-error-code"] == error["code"]
    return response.status_code, error["code"]


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({**GOOD, "contextFeatures": [{"user": {"age": math.nan}}]}, "contextFeatures[0].user.age"),
        ({**GOOD, "contextFeatures": [{}, {"x": [1, "a"]}]}, "contextFeatures[1].x[1]"),
        ({"actions": [{"id": "a", "features": [{"x": [True]}]}]}, "actions[0].features[0].x"),
        ({**GOOD, "contextFeatures": [{"x": 1e300}]}, "contextFeatures.x"),
        ({**GOOD, "contextFeatures": [{f"f{at}": at for at in range(300)}]}, "contextFeatures"),
        (b'{"actions": [{"id": "a", "features": [{"x": 1}, ', "body"),
    ],
)
async def test_what_is_wrong_with_a_feature_is_named_as_it_was_sent(adapter, body, target):
    answer = await adapter.post("/personalizer/rank", body)
    assert error_of(answer) == (400, "InvalidRankRequest")
    assert answer.json()["error"]["target"] == target
    reward = await adapter.post("/personalizer/events/e/reward", b'{"value": NaN}')
    assert reward.json()["error"]["target"] == "value"


@pytest.mark.parametrize("shape", SHAPES)
async def test_both_shapes_of_url_rank_reward_and_activate(adapter, shape):
    asked = "?api-version=2022-09-01-preview" if "v1" not in shape else ""
    answer = await adapter.post(f"{shape}/rank{asked}", {**GOOD, "eventId": "a/b c"})
    assert answer.status_code == 201
    said = answer.json()
    assert said["eventId"] == "a/b c"
    assert said["rewardActionId"] in {"news", "match"}
    assert said["ranking"][0]["id"] == said["rewardActionId"]
    assert sum(each["probability"] for each in said["ranking"]) == pytest.approx(1, abs=1e-12)

    for what, body in (("reward", {"value": 1}), ("activate", None)):
        answer = await adapter.post(f"{shape}/events/a%2Fb%20c/{what}{asked}", body)
        assert (answer.status_code, answer.content) == (204, b"")
    decided, rewarded, activated = adapter.entries()
    assert decided.context == {"user.age": 30.0, "user.plan": "free", "hour": 8.0}
    assert decided.features == [{"topic": "politics"}, {"topic": "sport", "live": True}]
    assert isinstance(rewarded, RewardRecord)
    assert isinstance(activated, ActivationRecord)
    assert {each.event_id for each in adapter.entries()} == {"a/b c"}


@pytest.mark.parametrize("event", ["events", "reward", "activate", "multislot", "v1.0"])
async def test_an_event_may_have_a_name_of_a_path(adapter, event):
    """Only a path without any id is one of an empty id."""
    for shape in SHAPES:
        for what, body in (("reward", {"value": 1}), ("activate", None)):
            answer = await adapter.post(f"{shape}/events/{event}/{what}", body)
            assert (answer.status_code, answer.content) == (204, b""), f"{shape} {what}"
        answer = await adapter.post(f"{shape}/multislot/events/{event}/activate")
        assert answer.status_code == 204
        empty = await adapter.post(f"{shape}/multislot/events/activate")
        assert error_of(empty) == (400, "InvalidEventIdToActivate")
    assert {each.event_id for each in adapter.entries()} == {event}


@pytest.mark.parametrize("kind", [RuntimeError, StopAsyncIteration, KeyError, BanditloopError])
async def test_what_nobody_foresaw_has_a_body_of_the_protocol(adapter, monkeypatch, kind):
    """Of an error without a status of its own too; it says nothing of what is inside."""

    async def failing(*_, **__):
        raise kind("a secret")

    monkeypatch.setattr(adapter.services["home"], "rank", failing)
    answer = await adapter.post("/personalizer/rank", GOOD)
    assert error_of(answer) == (500, "InternalServerError")
    assert "retry-after" not in answer.headers
    assert kind is BanditloopError or "secret" not in answer.text


async def test_what_is_not_personalizers_is_our_own_apis(adapter):
    for path in ("/livez", "/policies/home", "/policies/home/rank", "/personalizer"):
        answer = await adapter.http.get(path)
        assert "x-ms-error-code" not in answer.headers, path


NOT_SO = {
    "no such operation": ("/personalizer/v1.0/ranks", GOOD, 404, "ResourceNotFound"),
    "no such policy": ("/policies/none/personalizer/rank", GOOD, 404, "ResourceNotFound"),
    "no JSON": ("/personalizer/v1.0/rank", b"{", 400, "InvalidRankRequest"),
    "NaN": ("/personalizer/v1.0/events/e/reward", b'{"value": NaN}', 400, "InvalidRewardRequest"),
    "an empty event id": ("/personalizer/v1.0/events/reward", b"{}", 400, "InvalidRewardRequest"),
    "none of any": ("/personalizer/events//activate", None, 400, "InvalidEventIdToActivate"),
    "a large body": ("/personalizer/rank", b" " * (2 << 20), 400, "PayloadSizeExceeded"),
}


@pytest.mark.parametrize("name", NOT_SO)
async def test_bad_requests_have_the_protocols_status_and_code(adapter, name):
    path, body, *expected = NOT_SO[name]
    answer = await adapter.post(path, body)
    assert error_of(answer) == tuple(expected)
    assert "retry-after" not in answer.headers
    assert adapter.entries() == []


async def test_a_page_of_an_allowed_origin_may_call_it_too(adapter):
    shop = "https://shop.example"
    app = CrossOriginApi(adapter.app, frozenset({shop}))
    headers = {"origin": shop, "access-control-request-method": "POST"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        for shape in SHAPES:
            for what in ("rank", "events/a%2Fb/reward", "multislot/rank"):
                asked = await http.request("OPTIONS", f"{shape}/{what}", headers=headers)
                assert (asked.status_code, asked.content) == (204, b"")
                assert asked.headers["access-control-allow-methods"] == "POST"
        answer = await http.post(f"{SHAPES[0]}/rank", json=GOOD, headers={"origin": shop})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == shop


async def test_an_answer_says_why_only_where_the_configuration_asks_for_it(adapter):
    """What the features of an action add sums to its score, under the names that were sent."""
    assert "inferenceExplanation" not in (await adapter.post(f"{SHAPES[0]}/rank", GOOD)).json()

    spec = PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -q :: --noconstant"),
        exploration=EpsilonGreedy(0.2),
        personalizer=PersonalizerSettings(explains=True),
    )
    service = adapter.services["home"] = FakeService(fresh_ranker(spec))
    adapter.app._backend.services["home"] = service
    service.records.configure(spec, at=1)
    service.records.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(20):
        said = (await adapter.post(f"{SHAPES[0]}/rank", {**GOOD, "eventId": f"e{number}"})).json()
        if said["rewardActionId"] == "match":
            await adapter.post(f"{SHAPES[0]}/events/e{number}/reward", {"value": 1})
    service.records.append(TickRecord(), at=10_000_000)
    service.ranker.serve("s1", service.records.fold().snapshot())

    said = (await adapter.post(f"{SHAPES[0]}/rank", {**GOOD, "eventId": "why"})).json()
    explain = service.explaining()
    record = next(each for each in adapter.entries() if getattr(each, "event_id", "") == "why")
    scores = {each.id: each.score for each in explain(record).actions}
    why = {each["id"]: each["features"] for each in said["inferenceExplanation"]}
    assert scores.keys() == why.keys() == {"news", "match"}
    for name, features in why.items():
        total = sum(each["score"] for each in features)
        assert total == pytest.approx(scores[name], abs=1e-9)
    assert {each["name"] for each in why["match"]} == {
        *("id", "topic", "live", "user.age", "user.plan", "hour"),
    }


async def test_a_page_of_a_policy_with_rules_for_pages_is_one_decision(adapter):
    """Features of its slots are of the context then; without such rules each slot is decided by itself."""
    page = {
        **GOOD,
        "slots": [
            {"id": "top", "baselineAction": "news", "features": [{"size": "large"}]},
            {"id": "side", "baselineAction": "match"},
        ],
    }
    ruled = PolicySpec("home", page=Page(most={"topic": 1}))
    for spec, places in ((ruled, ["p"]), (PolicySpec("home"), ["p/slots/top", "p/slots/side"])):
        service = FakeService(fresh_ranker(spec))
        adapter.app._backend.services["home"] = adapter.services["home"] = service
        answer = await adapter.post(f"{SHAPES[1]}/multislot/rank", {**page, "eventId": "p"})
        assert (answer.status_code, len(answer.json()["slots"])) == (201, 2)
        assert [each.event_id for each in adapter.entries()] == places
        name = "slots.top.size" if spec is ruled else "slot.size"
        assert adapter.entries()[0].context[name] == "large"


async def test_another_method_is_told_which_there_is(adapter):
    answer = await adapter.http.get("/personalizer/v1.0/rank")
    assert error_of(answer) == (405, "MethodNotAllowed")
    assert answer.headers["allow"] == "POST"


async def test_a_service_whose_log_is_down_takes_no_reward_and_says_so(adapter):
    adapter.services["home"].records.available = False
    answer = await adapter.post("/personalizer/v1.0/events/e/reward", {"value": 1})
    assert error_of(answer) == (503, "OperationNotAllowed")
    assert "retry-after" not in answer.headers


def key(**fields) -> Key:
    return Key(secret_hash("secret"), **{"scopes": ["rank"], **fields})


async def test_a_key_is_needed_where_there_are_keys_and_says_which_policy_is_meant(tmp_path):
    """Of several policies a key that reaches only one means that; else the path has to say."""
    keys = tmp_path / "keys.json"
    made = {
        "all": key(),
        "shop": key(policies=["shop"]),
        "rare": key(rate=0.001, policies=["shop"]),
    }
    made["both"] = key(policies=["home", "shop"])
    keys.write_bytes(msgspec.json.encode(made))
    adapter = Adapter("home", "shop", keys=KeyRing(keys))

    async def ask(name: str | None, path: str = "/personalizer/v1.0/rank") -> httpx.Response:
        headers = {"Ocp-Apim-Subscription-Key": f"bl_{name}_secret"} if name else {}
        return await adapter.post(path, GOOD, headers=headers)

    assert error_of(await ask(None)) == (401, "401")
    assert error_of(await ask("nobody")) == (401, "401")
    assert (await ask("shop")).status_code == 201
    assert len(adapter.entries("shop")) == 1
    assert error_of(await ask("all")) == (404, "ResourceNotFound")
    assert error_of(await ask("both")) == (404, "ResourceNotFound")
    home = "/policies/home/personalizer/rank"
    assert (await ask("all", home)).status_code == 201
    assert error_of(await ask("shop", home)) == (403, "InvalidApiAccess")
    assert error_of(await ask("shop", "/personalizer/v1.0/events/e/activate")) == (
        403,
        "InvalidApiAccess",
    )
    assert len(adapter.entries("home")) == 1

    assert (await ask("rare")).status_code == 201
    limited = await ask("rare")
    assert error_of(limited) == (429, "429")
    assert int(limited.headers["retry-after"]) > 0
    await adapter.http.aclose()
