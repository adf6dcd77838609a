"""What a console asks a replica: light things it answers itself, the others it hands over."""

import httpx
import msgspec
import pytest
from support.fakes import FakeService, FakeSource, fresh_ranker

from bandits.errors import OfficeGoneError
from policies.spec import PolicySpec, RemoteSource
from serve_app.api.api_keys import KeyRing, secret_hash
from serve_app.api.asgi import Api
from serve_app.api.wire import JSON
from serve_app.replica.metrics import Metrics

HOME = "/v1/policies/home"
BODY = {"context": {"hour": 3}, "actions": [{"id": "a"}, {"id": "<b>"}], "event_id": "e1"}
SOURCES = [RemoteSource("cf", "http://x"), RemoteSource("new", "http://y")]


class Errands:
    """An office that says what it was asked."""

    def __init__(self) -> None:
        self.gone = False

    async def answer(self, errand, policy, asked):
        if self.gone:
            raise OfficeGoneError("it does not answer", "console")
        return 200, msgspec.json.encode([errand, policy, asked]), JSON


class Console:
    """The API, with its office."""

    def __init__(self, keys: KeyRing | None = None, **options) -> None:
        self.source = FakeSource("cf", {"a": 2.0, "b": 1.0})
        self.home = FakeService(fresh_ranker(PolicySpec("home", sources=SOURCES), [self.source]))
        api = Api({"home": self.home}, Metrics("test"), self._scrape, keys, **options)
        transport = httpx.ASGITransport(api)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def _scrape(self) -> bytes:
        return b""


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_preview_is_what_rank_answers_next_and_is_not_logged():
    console = Console()
    shown = (await console.http.post(f"{HOME}/preview", json=BODY)).json()
    assert console.home.records.entries == []
    ranked = await console.http.post(f"{HOME}/rank", json={**BODY, "explain": True})
    assert len(console.home.records.entries) == 1
    assert shown["chosen"] == ranked.json()["chosen"]
    assert shown["explanation"] == ranked.json()["explanation"]  # of two actions, so of all
    assert {each["id"] for each in shown["candidates"]} == {"a", "<b>"}
    assert sum(each["probability"] for each in shown["candidates"]) == pytest.approx(1)
    [drawn] = [each for each in shown["candidates"] if each["slot"] is not None]
    assert drawn["id"] == shown["chosen"][0]["id"]


async def test_a_preview_refuses_what_rank_refuses():
    http = Console().http
    for body, status, code in [
        ({**BODY, "slots": 3}, 422, "invalid_field"),
        ({"actions": []}, 422, "empty_actions"),
        ({"colour": 1}, 422, "invalid_field"),
        ({**BODY, "event_id": ""}, 422, "invalid_event_id"),
    ]:
        ranked = await http.post(f"{HOME}/rank", json=body)
        shown = await http.post(f"{HOME}/preview", json=body)
        assert shown.json() == ranked.json()
        assert code_of(shown) == (status, code)
    assert code_of(await http.post(f"{HOME}/preview", content=b"{")) == (400, "malformed_json")


async def test_sources_are_told_with_their_failures():
    console = Console()
    console.source.failing = True
    assert code_of(await console.http.post(f"{HOME}/preview", json={"user_id": "ann"})) == (
        502,
        "source_failed",
    )
    told = (await console.http.get(f"{HOME}/sources")).json()
    assert [(each["name"], each["kind"], each["failures"]) for each in told["sources"]] == [
        ("cf", "remote", 1),
        ("new", "remote", 0),
    ]
    assert told["refresh"] is None


async def test_what_takes_long_is_handed_over_with_all_that_was_asked():
    console = Console(office=Errands())
    asked = {
        "/decisions?limit=3&user_id=ann%20b": {"limit": 3, "before": "", "user_id": "ann b"},
        "/events/a%2Fb": {"event_id": "a/b", "entry": ""},
        "/events/e/explain?entry=1-0": {"event_id": "e", "entry": "1-0"},
        "/report?since=24h": {"since": "24h"},
        "/doctor": {},
        "/snapshots": {},
    }
    for path, told in asked.items():
        errand, policy, had = (await console.http.get(HOME + path)).json()
        assert (policy, had) == ("home", told)
        assert errand in path or errand == "event"
    assert (await console.http.post(f"{HOME}/snapshots/s1/rollback")).json()[::2] == [
        "rollback",
        {"snapshot_id": "s1"},
    ]
    for path in ("/decisions?limit=0", "/decisions?limit=101", "/decisions?x=1", "/report?until=1"):
        assert code_of(await console.http.get(HOME + path)) == (422, "invalid_field")


async def test_without_an_office_the_rest_answers_and_the_code_says_why():
    off, gone = Console(), Errands()
    gone.gone = True
    for console, code in ((off, "console_off"), (Console(office=gone), "office_gone")):
        answer = await console.http.get(f"{HOME}/report")
        assert code_of(answer) == (503, code)
        assert answer.headers["retry-after"] == "1"
        assert (await console.http.post(f"{HOME}/rank", json=BODY)).status_code == 200
        assert (await console.http.post(f"{HOME}/preview", json=BODY)).status_code == 200


async def test_a_key_of_scope_console_reads_and_changes_nothing(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"eye: {{hash: {secret_hash('s')}, scopes: [console]}}\n")
    file.chmod(0o600)
    http = Console(KeyRing(file), office=Errands()).http
    http.headers["authorization"] = "Bearer bl_eye_s"
    for path in ("", "/decisions", "/events/e", "/report", "/doctor", "/sources", "/snapshots"):
        assert (await http.get(HOME + path)).status_code == 200, path
    assert (await http.get("/v1/policies")).status_code == 200
    assert (await http.post(f"{HOME}/preview", json=BODY)).status_code == 200
    for method, path in [
        ("POST", f"{HOME}/rank"),
        ("POST", f"{HOME}/snapshots/s/pin"),
        ("DELETE", f"{HOME}/snapshots/s/pin"),
        ("POST", f"{HOME}/snapshots/s/rollback"),
        ("PUT", f"{HOME}/items/a"),
        ("GET", "/metrics"),
    ]:
        assert code_of(await http.request(method, path, json=BODY)) == (403, "forbidden"), path
