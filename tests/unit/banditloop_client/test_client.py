"""The client against a real server: what it sends again is what it sent."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from banditloop_client import exchange
from banditloop_client.client import (
    AsyncClient,
    Client,
    wait_until_ready,
)
from banditloop_client.errors import ServiceError
from banditloop_client.exchange import BACKOFF_S, LONGEST_S, backoff_s
from banditloop_client.schemas import (
    LIVE,
    POLICIES,
    ActionRequest,
    ErrorBody,
    Health,
    Item,
    ItemsVersion,
    RankRequest,
    RewardEvent,
)

RANKED = {
    "event_id": "e",
    "policy": "home",
    "snapshot_id": "s",
    "logged": True,
    "chosen": [{"slot": 0, "id": "a", "propensity": 0.5}],
}
DROP = None
"""An answer that closes the connection instead."""


class Server(ThreadingHTTPServer):
    """Gives its ``answers`` one after another, the last for ever, while ``open``.

    Remembers what it was asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[tuple[int, object] | None] = []
        self.asked: list[tuple[str, dict]] = []
        self.open = threading.Event()
        self.open.set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, json.loads(body or b"{}")))
        self.answer()

    do_PUT = do_PATCH = do_POST  # noqa: N815

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {}))
        self.answer()

    do_DELETE = do_GET  # noqa: N815

    def answer(self) -> None:
        self.server.open.wait(10)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is DROP:
            self.close_connection = True
            return
        status, content = answer
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        """Silence."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(exchange, "BACKOFF_S", 0.001)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sync(server: Server, call: str, *args, **fields):
    with Client(server.url) as client:
        return getattr(client, call)(*args, **fields)


def asynchronous(server: Server, call: str, *args, **fields):
    async def run():
        async with AsyncClient(server.url) as client:
            return await getattr(client, call)(*args, **fields)

    return asyncio.run(run())


@pytest.fixture(params=[sync, asynchronous])
def call(request) -> Callable:
    return request.param


def error(code: str, target: str | None = None) -> dict:
    return {"error": {"code": code, "message": "m", "target": target}}


def test_a_rank_is_retried_with_the_same_event_id(server, call):
    server.answers = [(503, error("not_ready")), DROP, (502, b"bad gateway"), (200, RANKED)]
    answer = call(server, "rank", ["a", ActionRequest("b", {"x": 1.0})], user_id="u")
    assert answer.chosen[0].id == "a"
    bodies = [body for _, body in server.asked]
    assert len(bodies) == 4
    assert bodies[0] == {
        "event_id": bodies[0]["event_id"],
        "user_id": "u",
        "actions": [{"id": "a"}, {"id": "b", "features": {"x": 1.0}}],
    }
    assert all(body == bodies[0] for body in bodies)
    assert len(bodies[0]["event_id"]) == 32


def test_a_reward_is_retried_with_the_same_reward_id(server, call):
    server.answers = [(503, error("log_unavailable")), (202, {"accepted": 1})]
    call(server, "reward", "a/b", 1.5, slot=1, signal="click")
    (path, first), (_, second) = server.asked
    assert path == "/v1/policies/home/events/a%2Fb/reward"
    assert first == second
    assert len(first["reward_id"]) == 32
    assert (first["value"], first["slot"], first["signal"]) == (1.5, 1, "click")


def test_two_calls_have_two_ids_and_given_ids_are_kept(server, call):
    server.answers = [(200, RANKED)]
    call(server, "rank", ["a"])
    call(server, "rank", ["a"])
    call(server, "rank", ["a"], event_id="mine")
    ids = [body["event_id"] for _, body in server.asked]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    server.answers = [(202, {"accepted": 1})]
    call(server, "reward", "e", 1.0, reward_id="mine")
    assert server.asked[-1][1]["reward_id"] == "mine"


def test_a_refusal_is_not_retried_and_says_what_is_wrong(server, call):
    server.answers = [(422, error("duplicate_action", "actions[1].id"))]
    with pytest.raises(ServiceError) as refused:
        call(server, "rank", ["a", "a"])
    assert len(server.asked) == 1
    assert (refused.value.status, refused.value.service_code) == (422, "duplicate_action")
    assert refused.value.target == "actions[1].id"


def test_retries_end(server, call):
    server.answers = [(503, error("log_unavailable"))]
    with pytest.raises(ServiceError) as refused:
        call(server, "reward", "e", 1.0)
    assert refused.value.service_code == "log_unavailable"
    assert len(server.asked) == 4


def test_an_answer_that_is_not_the_services_own_is_an_error_with_its_status(server, call):
    server.answers = [(418, b"<html>")]
    with pytest.raises(ServiceError) as refused:
        call(server, "rank", ["a"])
    assert (refused.value.status, refused.value.service_code) == (418, "http_error")


async def test_after_an_outage_with_many_waiting_the_client_answers_again(server):
    """Nothing that timed out while it waited for a connection may hold one."""
    server.answers = [(200, RANKED)]

    async def attempt(client: AsyncClient) -> bool:
        with contextlib.suppress(ServiceError):
            await client.rank(["a"])
            return True
        return False

    async with AsyncClient(server.url, retries=1, timeout_s=0.2, connections=4) as client:
        server.open.clear()
        assert not any(await asyncio.gather(*(attempt(client) for _ in range(200))))
        server.open.set()
        # a slow machine may time out once more; a connection that is held, always
        async with asyncio.timeout(10):
            while not all(await asyncio.gather(*(attempt(client) for _ in range(8)))):
                pass


def test_nobody_at_home_is_an_error_too(server, call):
    server.answers = [DROP]
    with pytest.raises(ServiceError) as refused:
        call(server, "rank", ["a"])
    assert (refused.value.status, refused.value.service_code) == (0, "unreachable")


def test_many_rewards_and_activations_go_where_they_belong(server, call):
    server.answers = [(202, {"accepted": 2})]
    call(server, "rewards", [RewardEvent("e", 1.0, "r1"), RewardEvent("f", 2.0, "r2")])
    call(server, "activate", "e")
    assert [path for path, _ in server.asked] == [
        "/v1/policies/home/rewards",
        "/v1/policies/home/events/e/activate",
    ]
    assert [reward["reward_id"] for reward in server.asked[0][1]["rewards"]] == ["r1", "r2"]


def test_each_item_of_a_batch_has_its_own_answer_and_all_are_retried_with_their_event_ids(
    server, call
):
    refused = error("empty_actions", "requests[1].actions")
    server.answers = [(503, error("not_ready")), (200, {"results": [RANKED, refused, RANKED]})]
    requests = [RankRequest(user_id="u"), RankRequest(actions=[]), RankRequest(event_id="mine")]
    first, second, third = call(server, "batch", requests)
    assert (first.event_id, third.chosen[0].id) == ("e", "a")
    assert second == ErrorBody("empty_actions", "m", "requests[1].actions")
    (path, sent), (_, again) = server.asked
    assert path == "/v1/policies/home/rank:batch"
    assert sent == again
    ids = [item["event_id"] for item in sent["requests"]]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"


def test_a_slate_is_a_rank_of_several_slots(server, call):
    chosen = [{"slot": k, "id": name, "propensity": 0.5} for k, name in enumerate("ab")]
    server.answers = [(200, {**RANKED, "chosen": chosen})]
    answer = call(server, "rank", ["a", "b"], slots=2, defer_activation=True)
    assert [each.id for each in answer.chosen] == ["a", "b"]
    assert (server.asked[0][1]["slots"], server.asked[0][1]["defer_activation"]) == (2, True)


def test_a_catalogue_is_put_and_its_digest_comes_back(server, call):
    server.answers = [(200, {"catalogue": "d", "items": 1})]
    answer = call(server, "replace_catalogue", [Item("a", {"x": 1.0})])
    assert (answer.catalogue, answer.items) == ("d", 1)
    assert server.asked == [
        (
            "/v1/policies/home/catalogue",
            {"items": [{"id": "a", "features": {"x": 1.0}, "metadata": {}}]},
        )
    ]


def test_items_are_put_changed_looked_up_and_removed(server, call):
    made = {"version": "1-0~d", "items": 2}
    item = {"id": "a/1", "features": {"x": 1.0}, "metadata": {}}
    server.answers = [(200, made)] * 4
    answers = [
        call(server, "put_items", [Item("b", hidden=True)]),
        call(server, "put_item", "a/1", features={"x": 1.0}),
        call(server, "patch_item", "a/1", features={"x": None}, hidden=None),
        call(server, "delete_item", "a/1"),
    ]
    assert answers == [ItemsVersion("1-0~d", 2)] * 4
    server.answers = [(200, {"version": "v", "item": item})]
    assert call(server, "item", "a/1") == Item("a/1", {"x": 1.0})
    page = {"version": "v", "total": 5, "items": [item], "next": "a/1"}
    server.answers = [(200, page)] * 2
    answer = call(server, "items", after="a&b", limit=1, contains="ä b")
    assert (answer.total, answer.items[0].id, answer.next) == (5, "a/1", "a/1")
    call(server, "items")
    like = {"id": "a/1", "source": "als", "items": [{"id": "b", "score": 0.5}]}
    server.answers = [(200, like)]
    assert call(server, "similar", "a/1", source="als", limit=3).items[0].score == 0.5

    home = "/v1/policies/home/items"
    assert server.asked[:3] == [
        (home, {"items": [{"id": "b", "features": {}, "metadata": {}, "hidden": True}]}),
        (f"{home}/a%2F1", {"features": {"x": 1.0}, "metadata": {}}),
        (f"{home}/a%2F1", {"features": {"x": None}, "hidden": None}),
    ]
    assert [path for path, _ in server.asked[3:]] == [
        f"{home}/a%2F1",
        f"{home}/a%2F1",
        f"{home}?after=a%26b&limit=1&contains=%C3%A4+b",
        home,
        f"{home}/a%2F1/similar?source=als&limit=3",
    ]


def test_a_policy_and_all_of_them_can_be_asked_for_and_what_is_new_is_no_harm(server, call):
    info = {
        "policy": "home",
        "ready": True,
        "snapshot_id": "s",
        "position": "1-0",
        "learned": 3,
        "items": 2,
        "sources": [],
        "spec": {"name": "home"},
        "outcomes": {"joined": 3},
        "source_troubles": {"cf": {"reason": "timeout", "at_s": 1.5}},
        "of_a_later_version": 1,
    }
    server.answers = [(200, info)]
    answer = call(server, "status")
    assert (answer.learned, answer.source_troubles["cf"].reason) == (3, "timeout")
    server.answers = [(200, {"policies": ["home", "news"]})]
    assert call(server, "policies") == ["home", "news"]
    assert [path for path, _ in server.asked] == ["/v1/policies/home", "/v1/policies"]


def test_any_endpoint_can_be_called(server, call):
    server.answers = [(200, {"status": "ok"})]
    assert call(server, "call", LIVE, None) == Health("ok")
    server.answers = [(200, {"policies": []})]
    assert call(server, "call", POLICIES, None).policies == []
    assert [path for path, _ in server.asked] == ["/livez", "/v1/policies"]


def test_waiting_until_ready_waits_and_gives_up_in_words(server):
    server.answers = [(503, b""), (200, b"{}")]
    wait_until_ready(server.url, timeout_s=5)
    assert len(server.asked) == 2
    server.answers = [(503, b"")]
    with pytest.raises(ServiceError, match="not ready"):
        wait_until_ready(server.url, timeout_s=0.15)


def test_a_key_is_sent_with_every_attempt_and_none_without_one(server, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Handler, "log_request", lambda self, *_: seen.append(self.headers.get("authorization"))
    )
    server.answers = [(503, error("not_ready")), (200, RANKED)]
    with Client(server.url, api_key="bl_a_b") as client:
        client.rank(["a"])

    async def run():
        async with AsyncClient(server.url, api_key="bl_c_d") as client:
            await client.rank(["a"])

    asyncio.run(run())
    with Client(server.url) as client:
        client.rank(["a"])
    assert seen == ["Bearer bl_a_b", "Bearer bl_a_b", "Bearer bl_c_d", None]


def test_clients_turned_away_together_do_not_come_back_together_and_none_waits_for_long():
    waits = [[backoff_s(attempt) for _ in range(50)] for attempt in range(30)]
    for attempt, several in enumerate(waits):
        longest = min(LONGEST_S, BACKOFF_S * 2**attempt)
        assert longest / 2 <= min(several) < max(several) <= longest
        assert max(several) - min(several) > longest / 4
