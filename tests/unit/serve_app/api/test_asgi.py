"""The HTTP API over a real ranker: bad input has a status, a code and a field, and does no harm."""

import asyncio
import gc
import json
from dataclasses import replace
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from support.fakes import FakeService, FakeSource, FakeSpace, fresh_ranker

from bandits.errors import BanditloopError, LogUnavailableError
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from policies.profiles.known_user import KnownUser
from policies.profiles.options import ProfileOptions
from policies.profiles.user_profile import UNKNOWN_USER
from policies.ranker import Ranker
from policies.rules.pages.page import Page
from policies.rules.placements import Placement
from policies.spec import PolicySpec, RemoteSource
from serve_app.api.asgi import Api
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import openapi_document
from serve_app.api.statuses import STATUS
from serve_app.api.wire import MAX_BODY, BodyLimit
from serve_app.replica.metrics import COUNTERS, Metrics

SPEC = PolicySpec("home")
SOURCED = PolicySpec(
    "sourced", sources=[RemoteSource("cf", "http://x")], signals={"click": 1.0, "hide": -2.0}
)
PAGED = PolicySpec("paged", page=Page(most={"brand": 1}))
PROFILED = PolicySpec("portrait", profile=ProfileOptions(), repeat={"shown": "never"})
PLACED = PolicySpec("front", placements=[Placement("b", 1), Placement("z", 0)])
HOME, PORTRAIT = "/v1/policies/home", "/v1/policies/portrait"
GOOD = {"actions": [{"id": "a"}, {"id": "b"}]}


class Service:
    """The API called in this process, with everything it stands on at hand."""

    def __init__(self) -> None:
        self.home = FakeService(fresh_ranker(SPEC))
        self.source = FakeSource("cf", {})
        self.sourced = FakeService(fresh_ranker(SOURCED, [self.source]))
        self.metrics = Metrics("test")
        self.shop = FakeSpace()
        self.portrait = FakeService(fresh_ranker(PROFILED))
        self.portrait.repeats = True
        paged = FakeService(fresh_ranker(PAGED))
        front = FakeService(fresh_ranker(PLACED))
        policies = self.home, self.sourced, self.portrait, paged, front
        services = {each.ranker.spec.name: each for each in policies}
        spaces = {"shop": self.shop}
        self.api = Api(services, self.metrics, self._scrape, spaces=spaces)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.api), base_url="http://test"
        )

    async def _scrape(self) -> bytes:
        return b"metrics"

    async def post(self, path: str, body, **options) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, **options)

    @property
    def entries(self) -> list:
        return [entry.record for entry in self.home.records.entries]


@pytest.fixture
async def service():
    service = Service()
    yield service
    await service.http.aclose()


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "target"}
    assert error["message"]
    return response.status_code, error["code"], error["target"]


def ranked(**fields) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


BAD_RANKS = {
    "not JSON": (b"{", 400, "malformed_json", "body"),
    "nothing": (b"", 400, "malformed_json", "body"),
    "text after it": (ranked() + b"x", 400, "malformed_json", "body"),
    "NaN": (b'{"context": {"x": NaN}}', 400, "malformed_json", "body"),
    "Infinity": (b'{"context": {"x": Infinity}}', 400, "malformed_json", "body"),
    "invalid UTF-8": (b'{"event_id": "\xff"}', 400, "malformed_json", "body"),
    "half a surrogate": (b'{"event_id": "\\ud800"}', 400, "malformed_json", "body"),
    "an array": (b"[]", 422, "invalid_field", "body"),
    "null": (b"null", 422, "invalid_field", "body"),
    "deep nesting of an unknown field": (b'{"x":' * 50_000, 422, "invalid_field", "x"),
    "deep nesting of a feature": (
        b'{"context": {"x":' + b"[" * 100_000,
        400,
        "malformed_json",
        "body",
    ),
    "a huge number": (b'{"context": {"x": 1e999}}', 422, "non_finite_number", "context.x"),
    "a long number": (
        b'{"context": {"x": 1' + b"0" * 400 + b"}}",
        422,
        "non_finite_number",
        "context.x",
    ),
    "a number beyond the limit": (
        ranked(context={"x": 1.1e19}),
        422,
        "non_finite_number",
        "context.x",
    ),
    "a number that overflows": (
        ranked(context={"x": -1e300}),
        422,
        "non_finite_number",
        "context.x",
    ),
    "a score that overflows": (
        b'{"actions": [{"id": "a", "scores": {"cf": 1e39}}]}',
        422,
        "non_finite_number",
        "actions[0].scores.cf",
    ),
    "a wrong type": (ranked(slots="two"), 422, "invalid_field", "slots"),
    "a wrong type inside": (
        b'{"actions": [{"id": "a"}, {"id": 5}]}',
        422,
        "invalid_field",
        "actions[1].id",
    ),
    "an unknown field": (ranked(colour="red"), 422, "invalid_field", "colour"),
    "an unknown field inside": (
        b'{"actions": [{"id": "a", "x": 1}]}',
        422,
        "invalid_field",
        "actions[0].x",
    ),
    "a missing id": (b'{"actions": [{}]}', 422, "invalid_field", "actions[0].id"),
    "no slots": (ranked(slots=0), 422, "invalid_field", "slots"),
    "too many slots": (ranked(slots=51), 422, "invalid_field", "slots"),
    "more slots than actions": (ranked(slots=3), 422, "invalid_field", "slots"),
    "no actions": (ranked(actions=[]), 422, "empty_actions", "actions"),
    "no actions and no sources": (b'{"user_id": "u"}', 422, "empty_actions", "actions"),
    "an empty action id": (
        ranked(actions=[{"id": "a"}, {"id": ""}]),
        422,
        "invalid_field",
        "actions[1].id",
    ),
    "a repeated action id": (
        ranked(actions=[{"id": "a"}] * 2),
        422,
        "duplicate_action",
        "actions[1].id",
    ),
    "too many actions": (
        ranked(actions=[{"id": str(i)} for i in range(1001)]),
        422,
        "too_many_actions",
        "actions",
    ),
    "an empty event id": (ranked(event_id=""), 422, "invalid_event_id", "event_id"),
    "a long event id": (ranked(event_id="x" * 257), 422, "invalid_event_id", "event_id"),
    "all excluded": (ranked(exclude=["a", "b"]), 409, "no_candidates", "exclude"),
    "a body over 1 MiB": (ranked(event_id="x" * MAX_BODY), 413, "body_too_large", "body"),
}


@pytest.mark.parametrize(
    ("body", "status", "code", "target"), BAD_RANKS.values(), ids=BAD_RANKS.keys()
)
async def test_a_bad_rank_request_is_refused_by_name_and_the_next_is_answered(
    service, body, status, code, target
):
    assert error_of(await service.post(f"{HOME}/rank", body)) == (status, code, target)
    assert not service.entries
    assert (await service.post(f"{HOME}/rank", GOOD)).status_code == 200


async def test_a_good_rank_request_is_answered_and_logged(service):
    body = {
        **GOOD,
        "event_id": "é/1",
        "slots": 2,
        "return_pmf": True,
        "user_id": "alice",
        "context": {"x": 1},
    }
    response = await service.post(f"{HOME}/rank", body)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert (answer["event_id"], answer["policy"], answer["snapshot_id"]) == ("é/1", "home", "s0")
    assert answer["logged"] is True
    (record,) = service.entries
    assert [c["id"] for c in answer["chosen"]] == [record.action_ids[k] for k in record.chosen]
    assert [c["slot"] for c in answer["chosen"]] == [0, 1]
    assert [c["propensity"] for c in answer["chosen"]] == [
        float(record.pmfs()[s, k]) for s, k in enumerate(record.chosen)
    ]
    assert [p["id"] for p in answer["pmf"]] == ["a", "b"]
    assert sum(p["probability"] for p in answer["pmf"]) == pytest.approx(1.0, abs=1e-12)
    assert "pmf" not in (await service.post(f"{HOME}/rank", GOOD)).json()


async def test_an_answer_says_why_where_that_is_asked(service):
    body = {**GOOD, "event_id": "why", "slots": 2, "context": {"x": 1.0}, "explain": True}
    answer = (await service.post(f"{HOME}/rank", body)).json()
    first, second = answer["explanation"]["actions"]
    assert [first["slot"], second["slot"]] == [0, 1]
    assert [first["id"], second["id"]] == [each["id"] for each in answer["chosen"]]
    assert first["score"] == sum(term["adds"] for term in first.get("terms", []))
    assert "explanation" not in (await service.post(f"{HOME}/rank", GOOD)).json()

    batch = {"requests": [{**GOOD, "explain": True}, GOOD]}
    results = (await service.post(f"{HOME}/rank:batch", batch)).json()["results"]
    assert ["explanation" in each for each in results] == [True, False]


async def test_a_page_that_is_shorter_than_asked_for_says_why(service):
    actions = [{"id": each, "features": {"brand": "x"}} for each in "ab"]
    response = await service.post("/v1/policies/paged/rank", {"actions": actions, "slots": 50})
    answer = response.json()
    assert [each["slot"] for each in answer["chosen"]] == [0]
    assert answer["short"] == "none of the 1 actions that are left may follow, by page.most.brand"
    assert "short" not in (await service.post(f"{HOME}/rank", GOOD)).json()


async def test_an_answer_says_whether_what_is_known_of_the_user_was_heeded(service):
    async def said(**fields) -> list:
        answer = (await service.post(f"{PORTRAIT}/rank", ranked(**fields))).json()
        return [answer.get("profile"), answer.get("repeat")]

    # Of a policy without profiles, nothing.
    plain = await service.post(f"{HOME}/rank", ranked(user_id="u", visit_id="v"))
    assert not {"profile", "repeat"} & plain.json().keys()

    service.portrait.known = KnownUser("p", UNKNOWN_USER)
    assert await said(user_id="u") == [True, True]
    service.portrait.known = KnownUser("p", whole=False)
    assert await said(user_id="u") == [False, False]
    assert await said(visit_id="v") == [None, False]
    service.portrait.known = KnownUser()
    assert await said(visit_id="v") == [None, True]
    service.portrait.known = None
    assert await said() == [None, None]
    assert service.metrics.counts["profiles_unread", "portrait"] == 2


async def test_an_answer_says_what_stands_on_the_page_without_a_draw(service):
    body = {"actions": [{"id": name} for name in "abc"], "return_pmf": True, "slots": 3}
    path = "/v1/policies/front/rank"
    answer = (await service.post(path, body)).json()
    assert answer["placed"] == [{"slot": 1, "id": "b"}]
    assert answer["unplaced"] == [{"slot": 0, "id": "z", "reason": "not_sent"}]
    assert [each["slot"] for each in answer["chosen"]] == [0, 2]
    assert [each["id"] for each in answer["pmf"]] == ["a", "c"]

    # A page on which all is placed; and one of several that are asked for at once.
    whole = {"actions": [{"id": "b"}, {"id": "z"}], "slots": 2, "return_pmf": True}
    batch = (await service.post(f"{path}:batch", {"requests": [whole, body]})).json()["results"]
    assert (batch[0]["chosen"], batch[0]["pmf"]) == ([], [])
    assert batch[0]["placed"] == [{"slot": 0, "id": "z"}, {"slot": 1, "id": "b"}]
    assert batch[1]["unplaced"] == answer["unplaced"]
    assert not {"placed", "unplaced"} & (await service.post(f"{HOME}/rank", GOOD)).json().keys()


async def test_a_thousand_actions_and_256_bytes_are_still_accepted(service):
    body = {"event_id": "x" * 256, "actions": [{"id": str(i)} for i in range(1000)]}
    assert (await service.post(f"{HOME}/rank", body)).status_code == 200


async def test_a_declared_length_over_the_limit_is_refused_unread(service):
    response = await service.post(
        f"{HOME}/rank", b"{}", headers={"content-length": str(MAX_BODY + 1)}
    )
    assert error_of(response) == (413, "body_too_large", "body")


async def test_a_body_in_pieces_is_counted_while_it_comes(service):
    async def pieces():
        for _ in range(20):
            yield b" " * 100_000

    response = await service.http.post(f"{HOME}/rank", content=pieces())
    assert error_of(response) == (413, "body_too_large", "body")


async def test_a_body_that_comes_too_slowly_is_not_waited_for(service):
    routes = service.api.table.find(f"{HOME}/rank", f"{HOME}/rank".split("/")).routes
    routes["POST"] = replace(routes["POST"], limit=BodyLimit(within_s=0.05))
    let_go = asyncio.Event()

    async def slowly():
        yield b"{"
        await let_go.wait()

    response = await service.http.post(f"{HOME}/rank", content=slowly())
    assert error_of(response) == (408, "body_timeout", "body")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["1" * 5000, "9" * 20])
async def test_a_length_nobody_can_count_is_too_large(service, length):
    response = await service.post(f"{HOME}/rank", b"{}", headers={"content-length": length})
    assert error_of(response) == (413, "body_too_large", "body")


DEEP = 100_000


@pytest.mark.parametrize(
    ("method", "path", "before"),
    [
        ("POST", "rank", b""),
        ("POST", "rank", b'{"actions": '),
        ("POST", "rank", b'{"actions": [{"id": "a", "features": {"x": '),
        ("POST", "rank:batch", b""),
        ("POST", "rank:batch", b'{"requests": '),
        ("POST", "rank:batch", b'{"requests": ['),
        ("POST", "events/e/reward", b'{"value": '),
        ("POST", "rewards", b'{"rewards": '),
        ("PUT", "catalogue", b'{"items": [{"id": "a", "features": {"x": '),
    ],
)
@pytest.mark.parametrize(
    "deep", [b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP], ids=["[", "{", "[]"]
)
async def test_nesting_is_refused_at_any_depth(service, method, path, before, deep):
    response = await service.http.request(method, f"{HOME}/{path}", content=before + deep)
    assert response.status_code in {400, 422}
    assert error_of(response)[1] in {"malformed_json", "invalid_field"}
    assert (await service.post(f"{HOME}/rank", GOOD)).status_code == 200


async def test_a_user_nobody_knows_and_a_user_without_candidates(service):
    rank = "/v1/policies/sourced/rank"
    answer = await service.post(rank, {"user_id": "x"})
    assert error_of(answer) == (409, "no_candidates", "actions"), "there is no item yet"

    service.source.scores = {"h": 1.0}
    nobody = {"user_id": "x", "exclude": ["h"]}
    assert error_of(await service.post(rank, nobody)) == (404, "unknown_user", "user_id")
    assert error_of(await service.post(rank, {**nobody, "history": ["i"]})) == (
        409,
        "no_candidates",
        "exclude",
    )
    service.source.failing = True
    assert error_of(await service.post(rank, {"user_id": "x"})) == (502, "source_failed", "sources")
    service.source.failing, service.source.scores = False, {"i": 1.0}
    assert (await service.post(rank, {"user_id": "x"})).json()["chosen"][0]["id"] == "i"


async def test_without_a_snapshot_rank_says_when_to_come_back(service):
    service.home.ranker = Ranker(SPEC, [], salt=b"s")
    response = await service.post(f"{HOME}/rank", GOOD)
    assert error_of(response) == (503, "not_ready", None)
    assert int(response.headers["retry-after"]) > 0
    ready = await service.http.get("/readyz")
    assert (ready.status_code, ready.json()["waiting_for"]) == (503, ["home"])


@pytest.mark.parametrize(
    ("body", "status", "code", "target"),
    [
        (b"{", 400, "malformed_json", "body"),
        (b"{}", 422, "invalid_field", "value"),
        (b'{"value": "1"}', 422, "invalid_field", "value"),
        (b'{"value": null}', 422, "invalid_field", "value"),
        (b'{"value": 1e999}', 422, "non_finite_number", "value"),
        (b'{"value": -1e13}', 422, "non_finite_number", "value"),
        (b'{"value": NaN}', 400, "malformed_json", "body"),
        (b'{"value": 1, "slot": -1}', 422, "invalid_field", "slot"),
        (b'{"value": 1, "slot": 1' + b"0" * 40 + b"}", 422, "invalid_field", "slot"),
        (b'{"value": 1, "slot": 1.5}', 422, "invalid_field", "slot"),
        (b'{"value": 1, "reward": 1}', 422, "invalid_field", "reward"),
        (b'{"value": 1, "reward_id": 7}', 422, "invalid_field", "reward_id"),
    ],
)
async def test_a_bad_reward_is_refused_by_name(service, body, status, code, target):
    assert error_of(await service.post(f"{HOME}/events/e/reward", body)) == (status, code, target)
    assert not service.entries


async def test_a_reward_for_an_event_nobody_has_seen_is_accepted(service):
    response = await service.post(
        f"{HOME}/events/unseen/reward", {"value": 1, "reward_id": "r", "slot": 2}
    )
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    assert service.entries == [RewardRecord("unseen", 1.0, "r", 2)]


@pytest.mark.parametrize("event_id", ["a/b", "a%2Fb", "é", "a b", "a?b", "a#b", "..x", "events"])
async def test_any_event_id_can_be_in_a_path(service, event_id):
    path = f"{HOME}/events/{quote(event_id, safe='')}"
    assert (await service.post(f"{path}/reward", {"value": 1})).status_code == 202
    assert (await service.post(f"{path}/activate", b"")).status_code == 202
    assert service.entries == [RewardRecord(event_id, 1.0), ActivationRecord(event_id)]


@pytest.mark.parametrize("action", ["reward", "activate"])
async def test_a_bad_event_id_in_a_path_is_refused(service, action):
    for event_id in ("", "x" * 257):
        response = await service.post(f"{HOME}/events/{event_id}/{action}", {"value": 1})
        assert error_of(response) == (422, "invalid_event_id", "event_id")


async def test_a_reward_names_a_signal_that_the_spec_weighs(service):
    path = "/v1/policies/sourced"
    sent = {"value": 1, "signal": "hide"}
    assert (await service.post(f"{path}/events/e/reward", sent)).status_code == 202
    reward = service.sourced.records.entries[-1].record
    assert reward == RewardRecord("e", 1.0, signal="hide")

    bad = {"event_id": "e", "value": 1, "signal": "share"}
    response = await service.post(f"{path}/rewards", {"rewards": [{**bad, "signal": "click"}, bad]})
    assert error_of(response) == (422, "unknown_signal", "rewards[1].signal")
    assert "click, hide" in response.json()["error"]["message"]
    other = await service.post(f"{HOME}/events/e/reward", sent)
    assert error_of(other) == (422, "unknown_signal", "signal")
    assert "has no signals; leave the field out" in other.json()["error"]["message"]


async def test_many_rewards_are_accepted_as_one_or_not_at_all(service):
    good = {"event_id": "e", "value": 1}
    response = await service.post(
        f"{HOME}/rewards", {"rewards": [good, {**good, "action_id": "a"}]}
    )
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    for bad, code, target in [
        ({"event_id": "", "value": 1}, "invalid_event_id", "rewards[1].event_id"),
        ({"event_id": "e", "value": 1e300}, "non_finite_number", "rewards[1].value"),
        ({"event_id": "e", "value": 1, "slot": -1}, "invalid_field", "rewards[1].slot"),
        ({"event_id": "e"}, "invalid_field", "rewards[1].value"),
    ]:
        response = await service.post(f"{HOME}/rewards", {"rewards": [good, bad]})
        assert error_of(response) == (422, code, target)
    assert len(service.entries) == 2


VIEW = {"user_id": "u", "item_id": "a", "type": "view"}


async def test_what_users_did_is_taken_one_by_one_or_a_thousand_at_once(service):
    url = "/v1/spaces/shop/activity"
    answer = await service.post(url, {"events": [VIEW, {**VIEW, "id": "own", "value": 2}]})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "ids": ["made-0", "own"]})
    assert [(event.id, event.value, event.time) for event in service.shop.events] == [
        (None, None, None),
        ("own", 2.0, None),
    ]
    assert service.metrics.counts["activity_events", "shop"] == 2
    assert (await service.post(url, VIEW)).json() == {"accepted": 1, "ids": ["made-0"]}

    assert (await service.post(url, {"events": [VIEW] * 1000})).status_code == 202
    for events in ([], [VIEW] * 1001):
        refused = error_of(await service.post(url, {"events": events}))
        assert refused == (422, "too_many_events", "events")


@pytest.mark.parametrize(
    ("event", "target"),
    [
        ({}, "events[0].user_id"),
        ({**VIEW, "user": "x"}, "events[0].user"),
        ({**VIEW, "value": "much"}, "events[0].value"),
        ({**VIEW, "time": "2026-01-01T00:00:00"}, "events[0].time"),
        ({**VIEW, "time": 1_700_000_000}, "events[0].time"),
    ],
)
async def test_activity_that_is_none_is_refused_by_its_field(service, event, target):
    answer = await service.post("/v1/spaces/shop/activity", {"events": [event]})
    assert error_of(answer) == (422, "invalid_field", target)
    assert service.shop.events == []


async def test_users_are_merged_or_named_as_wrong(service):
    url = "/v1/spaces/shop/users/merge"
    answer = await service.post(url, {"user_id": "cookie", "into": "alice"})
    assert (answer.status_code, answer.json()) == (200, {"into": "alice", "pseudonyms": 2})
    assert service.shop.merged == [("cookie", "alice")]

    for body, code, target in [
        ({"user_id": "cookie"}, "invalid_field", "into"),
        ({"user_id": "", "into": "alice"}, "invalid_user_id", "user_id"),
        ({"user_id": "cookie", "into": "x" * 257}, "invalid_user_id", "into"),
    ]:
        assert error_of(await service.post(url, body)) == (422, code, target)
    assert len(service.shop.merged) == 1


async def test_a_user_is_erased_whatever_the_id(service):
    for user_id in ("ann", "merge", "a/b", "d\u00fcrer"):
        answer = await service.http.delete(f"/v1/spaces/shop/users/{quote(user_id, safe='')}")
        assert answer.status_code == 202
        assert answer.json() == {
            "erasure": "known",
            "state": "running",
            "asked": "2026-01-02T00:00:00Z",
            "completed": None,
            "waiting_for": ["home.0"],
            "keyed_logs": ["mail"],
        }
    assert service.shop.erased == ["ann", "merge", "a/b", "d\u00fcrer"]
    assert (await service.http.get("/v1/spaces/shop/erasures/known")).json() == answer.json()

    unknown = await service.http.get("/v1/spaces/shop/erasures/other")
    assert error_of(unknown) == (404, "unknown_erasure", "erasure")
    long = await service.http.delete(f"/v1/spaces/shop/users/{'x' * 257}")
    assert error_of(long) == (422, "invalid_user_id", "user_id")
    assert len(service.shop.erased) == 4


@pytest.mark.parametrize(
    ("body", "status", "code", "target"),
    [
        (b"", 400, "malformed_json", "body"),
        (b"{", 400, "malformed_json", "body"),
        (b"[]", 422, "invalid_field", "body"),
        (b"{}", 422, "invalid_field", "user_id"),
        (b'{"events": null}', 422, "invalid_field", "events"),
        ({**VIEW, "events": [VIEW]}, 422, "invalid_field", "user_id"),
        ({**VIEW, "value": "much"}, 422, "invalid_field", "value"),
        ({**VIEW, "item_id": "none"}, 404, "unknown_item", "item_id"),
        ({"events": [VIEW, {**VIEW, "item_id": "none"}]}, 404, "unknown_item", "events[1].item_id"),
    ],
)
async def test_one_event_is_a_body_of_its_own(service, body, status, code, target):
    answer = await service.post("/v1/spaces/shop/activity", body)
    assert error_of(answer) == (status, code, target)


async def test_all_that_is_held_of_a_user_is_answered(service):
    answer = await service.http.get("/v1/spaces/shop/users/alice%2F%40")
    assert (answer.status_code, answer.json()["user_id"]) == (200, "alice/@")
    answer = await service.http.get(f"/v1/spaces/shop/users/{'x' * 257}")
    assert error_of(answer) == (422, "invalid_user_id", "user_id")


async def test_a_space_that_nobody_serves_is_not_found(service):
    for path in ("/v1/spaces/home/activity", "/v1/spaces/home/nothing"):
        answer = await service.post(path, {"events": [VIEW]})
        assert error_of(answer) == (404, "unknown_space", "space")
    answer = await service.post("/v1/spaces/shop/nothing", {})
    assert error_of(answer) == (404, "not_found", "path")


async def test_when_the_log_is_down_rank_answers_and_rewards_are_refused(service):
    service.home.records.available = False
    answer = await service.post(f"{HOME}/rank", GOOD)
    assert (answer.status_code, answer.json()["logged"]) == (200, False)
    for path, body in [
        (f"{HOME}/events/e/reward", {"value": 1}),
        (f"{HOME}/events/e/activate", b""),
        (f"{HOME}/rewards", {"rewards": [{"event_id": "e", "value": 1}]}),
    ]:
        response = await service.post(path, body)
        assert error_of(response)[:2] == (503, "log_unavailable")
        assert int(response.headers["retry-after"]) > 0
    service.home.records.available = True
    assert (await service.post(f"{HOME}/rank", GOOD)).json()["logged"] is True


async def test_each_item_of_a_batch_has_its_own_answer(service):
    items = [GOOD, {"actions": []}, {**GOOD, "event_id": "second"}, {"colour": 1}, 5]
    response = await service.post(f"{HOME}/rank:batch", {"requests": items})
    results = response.json()["results"]
    assert response.status_code == 200
    assert results[2]["event_id"] == "second"
    assert [r["error"]["target"] for r in results if "error" in r] == [
        "requests[1].actions",
        "requests[3].colour",
        "requests[4]",
    ]
    assert [r["error"]["code"] for r in results if "error" in r] == [
        "empty_actions",
        "invalid_field",
        "invalid_field",
    ]
    assert sum(isinstance(entry, DecisionRecord) for entry in service.entries) == 2


async def test_a_batch_has_at_most_a_thousand_items(service):
    response = await service.post(f"{HOME}/rank:batch", {"requests": [{}] * 1001})
    assert error_of(response) == (422, "too_many_actions", "requests")
    assert (await service.post(f"{HOME}/rank:batch", {"requests": []})).json() == {"results": []}
    assert error_of(await service.post(f"{HOME}/rank:batch", b'{"requests": [{}, {]}'))[0] == 400


async def test_a_catalogue_can_be_replaced(service):
    body = json.dumps({"items": [{"id": "a", "features": {"x": 1}}]})
    response = await service.http.put(f"{HOME}/catalogue", content=body)
    assert (response.status_code, response.json()["items"]) == (200, 1)
    for bad, code, target in [
        (b'{"items": [{"id": "a"}, {"id": "a"}]}', "invalid_item_id", "items[1].id"),
        (
            b'{"items": [{"id": "a", "features": {"x": 1e999}}]}',
            "non_finite_number",
            "items[0].features.x",
        ),
        (b'{"items": [{}]}', "invalid_field", "items[0].id"),
    ]:
        refused = await service.http.put(f"{HOME}/catalogue", content=bad)
        assert error_of(refused) == (422, code, target)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/policies/nobody", 404, "unknown_policy"),
        ("POST", "/v1/policies/nobody/rank", 404, "unknown_policy"),
        ("POST", f"{HOME}/nothing", 404, "not_found"),
        ("POST", f"{HOME}/events/e", 405, "method_not_allowed"),
        ("POST", f"{HOME}/events/a/b/reward", 404, "not_found"),
        ("GET", f"{HOME}/rank", 405, "method_not_allowed"),
        ("PUT", f"{HOME}/rank:batch", 405, "method_not_allowed"),
        ("GET", f"{HOME}/events/e/reward", 405, "method_not_allowed"),
        ("DELETE", f"{HOME}/events/e/activate", 405, "method_not_allowed"),
        ("GET", f"{HOME}/rewards", 405, "method_not_allowed"),
        ("POST", f"{HOME}/catalogue", 405, "method_not_allowed"),
        ("POST", HOME, 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
    ],
)
async def test_no_such_route_or_method(service, method, path, status, code):
    assert error_of(await service.http.request(method, path))[:2] == (status, code)


async def test_what_can_be_read_can_be_read(service):
    named = {"policies": ["front", "home", "paged", "portrait", "sourced"]}
    assert (await service.http.get("/v1/policies")).json() == named
    info = (await service.http.get(HOME)).json()
    assert (info["policy"], info["ready"], info["spec"]["name"]) == ("home", True, "home")
    assert (await service.http.get("/livez")).json()["status"] == "ok"
    assert (await service.http.get("/readyz")).status_code == 200
    assert (await service.http.get("/metrics")).content == b"metrics"
    assert b"/openapi.json" in (await service.http.get("/docs")).content


async def test_requests_are_counted_by_route_also_when_they_fail(service):
    await service.post(f"{HOME}/rank", GOOD)
    await service.post(f"{HOME}/rank", b"{")
    await service.post(f"{HOME}/{'x' * 50}", b"{")
    counts = {key[1:]: n for key, n in service.metrics.counts.items() if key[0] == "requests"}
    assert counts == {("rank", "200"): 1, ("rank", "400"): 1, ("other", "404"): 1}
    for name, *labels in service.metrics.counts:
        assert len(labels) == len(COUNTERS[name][1])


async def test_an_error_nobody_thought_of_is_still_an_error_in_json(service, caplog):
    async def broken(request):
        raise ZeroDivisionError("secret detail")

    service.home.rank = broken
    response = await service.post(f"{HOME}/rank", GOOD)
    assert error_of(response) == (500, "error", None)
    assert "secret" not in response.text
    assert (await service.http.get("/livez")).status_code == 200


async def test_a_write_that_fails_is_no_error_that_nobody_has_read(service, caplog):
    """Where the answer cannot be made, nobody is left who would wait for the log."""
    loop, unread = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, said: unread.append(said["message"]))
    for is_over in (True, False):
        logging = loop.create_future()
        if is_over:
            logging.set_exception(LogUnavailableError("not known"))
        service.home.begin = lambda _, logging=logging: (None, logging)
        assert error_of(await service.post(f"{HOME}/rank", GOOD))[0] == 500
        assert logging.done()

        del logging, service.home.begin
        caplog.clear()
        gc.collect()
        assert not unread


def all_errors(kind: type[BanditloopError] = BanditloopError):
    for child in kind.__subclasses__():
        yield child
        yield from all_errors(child)


def test_every_error_has_a_status_and_its_own_code():
    kinds = set(all_errors())
    assert kinds == set(STATUS)
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(400 <= status <= 599 for status in STATUS.values())


# The OpenAPI document

DOCUMENT = json.loads(openapi_document(ROUTES, "1.2.3"))


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_the_document_is_served(service):
    served = (await service.http.get("/openapi.json")).json()
    assert served["paths"] == DOCUMENT["paths"]


def test_the_document_is_openapi_3_1():
    """What the specification demands of it; its schemas are JSON Schema 2020-12."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert set(DOCUMENT) <= {
        "openapi",
        "info",
        "paths",
        "components",
        "security",
        "servers",
        "tags",
    }
    assert DOCUMENT["info"] == {"title": "banditloop", "version": "1.2.3"}
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert method in {"get", "put", "post", "patch", "delete"}
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert all(
                p["in"] == ("path" if p["required"] else "query") for p in operation["parameters"]
            )
            assert set(operation["responses"]) <= {
                "200",
                "202",
                *(str(status) for status in STATUS.values()),
            }
            assert all("description" in answer for answer in operation["responses"].values())
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


OPEN = {"/livez", "/readyz", "/healthz/learning", "/openapi.json", "/docs"}


def test_the_document_says_which_routes_need_a_key_and_how_they_refuse():
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {name for each in DOCUMENT["security"] for name in each} == set(schemes)
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            is_open = operation.get("security") == []
            assert is_open == (path in OPEN)
            assert {"401", "403", "429"}.isdisjoint(operation["responses"]) == is_open
            assert ("408" in operation["responses"]) == ("requestBody" in operation)


def test_every_reference_of_the_document_leads_somewhere():
    names = DOCUMENT["components"]["schemas"]
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in names


async def test_every_route_of_the_document_exists_and_every_route_of_the_service_is_in_it(service):
    for path, item in DOCUMENT["paths"].items():
        named = {"event_id": "e", "item_id": "known", "user_id": "ann", "erasure": "known"}
        named["snapshot_id"] = "s"
        url = path.format(policy="home", space="shop", **named)
        for method in item:
            response = await service.http.request(method.upper(), url, content=b"{}")
            assert response.status_code not in {404, 405}, (method, path)
    documented = {(m.upper(), path) for path, item in DOCUMENT["paths"].items() for m in item}
    assert documented == {(route.endpoint.method, route.endpoint.path) for route in ROUTES}


async def test_answers_are_what_the_document_says(service):
    def check(answer, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)

    request = {**GOOD, "context": {"a": 1, "b": "x", "c": True, "d": ["y"]}, "return_pmf": True}
    request["explain"] = True
    check(request, "RankRequest")
    check((await service.post(f"{HOME}/rank", request)).json(), "RankResponse")
    check(
        (await service.post(f"{HOME}/rank:batch", {"requests": [GOOD, {}]})).json(),
        "RankBatchResponse",
    )
    check((await service.post(f"{HOME}/rank", b"{")).json(), "ErrorResponse")
    check((await service.post(f"{HOME}/events/e/reward", {"value": 1})).json(), "Accepted")
    check((await service.http.get(HOME)).json(), "PolicyInfo")
    with pytest.raises(jsonschema.ValidationError):
        check({**GOOD, "colour": "red"}, "RankRequest")


async def test_other_protocols_are_let_go_and_the_lifespan_is_answered(service):
    api, sent = Api({}, Metrics("x"), service._scrape), []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    await api({"type": "websocket"}, receive, send)
    await api({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
