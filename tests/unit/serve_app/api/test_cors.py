"""Pages of other origins: preflights, what an answer says, and which settings allow it."""

import json

import httpx
import pytest
from pydantic import ValidationError
from support.fakes import FakeService, fresh_ranker

from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing, secret_hash
from serve_app.api.asgi import Api
from serve_app.api.cors import CrossOriginApi
from serve_app.replica.metrics import Metrics
from serve_app.settings import Settings

SHOP = "https://shop.example"
HOME = "/v1/policies/home"
SECRET = "s" * 43
KEY = {"authorization": f"Bearer bl_page_{SECRET}"}
RANKED = {"actions": [{"id": "a"}]}


async def scrape() -> bytes:
    return b""


@pytest.fixture
async def http(tmp_path, request):
    file = tmp_path / "keys.json"
    file.write_text(
        json.dumps({"page": {"hash": secret_hash(SECRET), "scopes": ["reward"], "rate": 5}})
    )
    file.chmod(0o600)
    api = Api({"home": FakeService(fresh_ranker(PolicySpec("home")))}, Metrics("t"), scrape)
    if getattr(request, "param", None) == "keys":
        api._keys = KeyRing(file)
    app = CrossOriginApi(api, frozenset({SHOP, "http://127.0.0.1:3000"}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        yield client


def preflight(http, path: str, method: str = "POST", origin: str = SHOP):
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type",
    }
    return http.request("OPTIONS", path, headers=headers)


@pytest.mark.parametrize("http", ["open", "keys"], indirect=True)
async def test_a_preflight_is_answered_without_a_key(http):
    answer = await preflight(http, f"{HOME}/rank")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    put = await preflight(http, f"{HOME}/catalogue", "PUT")
    assert put.headers["access-control-allow-methods"] == "PUT"


async def test_a_preflight_of_no_route_or_from_another_origin_is_refused(http):
    assert (await preflight(http, "/nothing")).status_code == 404
    other = await preflight(http, f"{HOME}/rank", origin="https://evil.example")
    assert other.status_code == 405
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "Origin"
    plain = await http.request("OPTIONS", f"{HOME}/rank", headers={"origin": SHOP})
    assert plain.status_code == 405


async def test_an_answer_can_be_read_by_pages_of_the_allowed_origins_only(http):
    for origin in (SHOP, "http://127.0.0.1:3000"):
        answer = await http.post(f"{HOME}/rank", json=RANKED, headers={"origin": origin})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
    for origin in ("https://evil.example", f"{SHOP}.evil.example", "http://shop.example", "null"):
        answer = await http.post(f"{HOME}/rank", json=RANKED, headers={"origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"
    without = await http.post(f"{HOME}/rank", json=RANKED)
    assert without.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in without.headers


@pytest.mark.parametrize("http", ["keys"], indirect=True)
async def test_a_page_whose_key_may_only_reward_is_told_what_it_may_not(http):
    headers = {"origin": SHOP, **KEY}
    assert (
        await http.post(f"{HOME}/events/e/reward", json={"value": 1}, headers=headers)
    ).status_code == 202
    assert (await http.post(f"{HOME}/events/e/activate", headers=headers)).status_code == 202
    for method, path in [("POST", f"{HOME}/rank"), ("GET", HOME), ("GET", "/metrics")]:
        refused = await http.request(method, path, headers=headers)
        assert refused.status_code == 403
        assert refused.headers["access-control-allow-origin"] == SHOP
    nobody = await http.post(f"{HOME}/rank", headers={"origin": SHOP})
    assert nobody.status_code == 401
    assert nobody.headers["access-control-allow-origin"] == SHOP
    while (limited := await http.post(f"{HOME}/rewards", headers=headers)).status_code != 429:
        pass
    assert limited.headers["access-control-expose-headers"] == "retry-after"


async def test_every_origin_is_a_star():
    api = CrossOriginApi(Api({}, Metrics("t"), scrape), frozenset({"*"}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://test"
    ) as http:
        answer = await http.get("/livez", headers={"origin": "null"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert (await preflight(http, "/livez", "GET")).status_code == 204


async def test_other_protocols_are_passed_on():
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    api = CrossOriginApi(Api({}, Metrics("t"), scrape), frozenset({"*"}))
    await api({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# The setting


def test_no_origin_is_allowed_unless_the_setting_names_it(monkeypatch):
    monkeypatch.delenv("BANDITLOOP_CORS_ORIGINS", raising=False)
    assert Settings().allowed_origins() == frozenset()
    monkeypatch.setenv("BANDITLOOP_CORS_ORIGINS", f"{SHOP}, http://localhost:3000,https://[::1]:8")
    assert Settings().allowed_origins() == {SHOP, "http://localhost:3000", "https://[::1]:8"}
    assert Settings(cors_origins="*").allowed_origins() == {"*"}


@pytest.mark.parametrize(
    "origins",
    ["shop.example", f"{SHOP}/", f"{SHOP}/path", "https://*.example", "null", "HTTPS://X"],
)
def test_what_is_no_origin_is_refused_by_name(origins):
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=origins)
