"""API keys: who may call what, how often, and what a changed file does to a running replica."""

import asyncio
import json
import os
from contextlib import nullcontext

import httpx
import pytest
from support.fakes import FakeService, fresh_ranker

from bandits.errors import ForbiddenError, RateLimitedError, StartupError, UnauthorizedError
from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing, TokenBucket, presented_key, read_keys, secret_hash
from serve_app.api.asgi import Api
from serve_app.api.endpoints import ROUTES
from serve_app.api.routes import RouteTable, needed_scope, policy_of, space_of
from serve_app.replica.metrics import Metrics

SECRET = "s_-" + "x" * 40
BEARER = b"authorization"


def write(path, **keys) -> None:
    """A keys file; each key has SECRET unless it says otherwise."""
    full = {
        key_id: {"hash": secret_hash(fields.pop("secret", SECRET)), "scopes": ["rank"], **fields}
        for key_id, fields in keys.items()
    }
    path.write_text(json.dumps(full))
    path.chmod(0o600)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys.yaml"
    write(
        path,
        shop={"scopes": ["rank", "reward"]},
        ops={"scopes": ["admin"]},
        one={"scopes": ["rank", "admin"], "policies": ["home"]},
    )
    return path


def bearer(key_id: str, secret: str = SECRET) -> list[tuple[bytes, bytes]]:
    return [(BEARER, f"Bearer bl_{key_id}_{secret}".encode())]


TABLE = RouteTable(ROUTES)


def needed(path: str, method: str = "POST") -> tuple[str | None, str | None]:
    """The scope that a path demands, and the policy it is about."""
    parts = path.split("/")
    return needed_scope(TABLE.find(path, parts), method), policy_of(parts)


def admit(ring: KeyRing, path: str, headers) -> None:
    ring.admit(*needed(path), headers, space=space_of(path.split("/")))


HOME = "/v1/policies/home"


@pytest.mark.parametrize(
    ("path", "scope", "policy"),
    [
        (f"{HOME}/rank", "rank", "home"),
        (f"{HOME}/rank:batch", "rank", "home"),
        (f"{HOME}/rewards", "reward", "home"),
        (f"{HOME}/events/e/reward", "reward", "home"),
        (f"{HOME}/events/e/activate", "reward", "home"),
        (f"{HOME}/catalogue", "admin", "home"),
        ("/v1/spaces/shop/activity", "activity", None),
        ("/v1/spaces/shop", "admin", None),
        (HOME, ("admin", "console"), "home"),
        (f"{HOME}/events/e/explain", "console", "home"),
        (f"{HOME}/report", "console", "home"),
        (f"{HOME}/snapshots/s/pin", "admin", "home"),
        (f"{HOME}/", "admin", "home"),
        (f"{HOME}/rank/", "admin", "home"),
        (f"{HOME}/nothing/rank", "admin", "home"),
        ("/v1/policies", ("admin", "console"), None),
        ("/metrics", "admin", None),
        ("/nothing", "admin", None),
        ("", "admin", None),
        ("/livez", None, None),
        ("/readyz", None, None),
        ("/openapi.json", None, None),
        ("/docs", None, None),
    ],
)
def test_every_route_has_its_scope_and_what_is_not_known_is_for_admins(path, scope, policy):
    assert needed(path) == (scope, policy)


def test_a_key_opens_what_its_scopes_say_and_nothing_else(file):
    ring = KeyRing(file)
    admit(ring, f"{HOME}/rank", bearer("shop"))
    admit(ring, f"{HOME}/events/e/reward", bearer("shop"))
    admit(ring, "/metrics", bearer("ops"))
    admit(ring, "/livez", [])
    for key_id, path in [
        ("shop", "/metrics"),
        ("shop", HOME),
        ("ops", f"{HOME}/rank"),
        ("ops", f"{HOME}/rewards"),
    ]:
        with pytest.raises(ForbiddenError, match="scope"):
            admit(ring, path, bearer(key_id))


def test_a_key_for_one_policy_reaches_no_other_and_no_page_about_all(file):
    ring = KeyRing(file)
    admit(ring, f"{HOME}/rank", bearer("one"))
    for path in ("/v1/policies/other/rank", "/metrics", "/v1/policies"):
        with pytest.raises(ForbiddenError, match="policy"):
            admit(ring, path, bearer("one"))


def test_a_key_for_one_policy_reaches_the_spaces_that_it_names_and_a_key_for_a_space_no_other(
    tmp_path,
):
    path, scopes = tmp_path / "keys.yaml", ["rank", "activity"]
    write(
        path,
        everything={"scopes": scopes},
        policy={"scopes": scopes, "policies": ["home"]},
        both={"scopes": scopes, "policies": ["home"], "spaces": ["shop"]},
        space={"scopes": scopes, "spaces": ["shop"]},
        reward={"scopes": ["reward"]},
    )
    ring, shop, other = KeyRing(path), "/v1/spaces/shop/activity", "/v1/spaces/other/activity"
    for key_id, reached in {
        "everything": [shop, other, f"{HOME}/rank", "/v1/policies/mail/rank"],
        "policy": [f"{HOME}/rank"],
        "both": [shop, f"{HOME}/rank"],
        "space": [shop, f"{HOME}/rank", "/v1/policies/mail/rank"],
        "reward": [],
    }.items():
        for asked in (shop, other, f"{HOME}/rank", "/v1/policies/mail/rank"):
            refused = pytest.raises(ForbiddenError) if asked not in reached else nullcontext()
            with refused:
                admit(ring, asked, bearer(key_id))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer("shop", "wrong"),
        bearer("shop", ""),
        bearer("shop", SECRET + "x"),
        bearer("nobody"),
        bearer(""),
        [(BEARER, b"")],
        [(BEARER, b"Bearer")],
        [(BEARER, b"Bearer bl_shop")],
        [(BEARER, f"Basic bl_shop_{SECRET}".encode())],
        [(BEARER, f"Bearer shop_{SECRET}".encode())],
        [(BEARER, f"Bearer bl_bl_shop_{SECRET}".encode())],
        [(BEARER, b"Bearer bl_shop_\xff\xfe")],
        [(BEARER, b"Bearer bl_shop_" + secret_hash(SECRET).encode())],
        bearer("shop", "wrong") + bearer("shop"),
    ],
)
def test_what_is_not_a_known_key_is_refused(file, headers):
    with pytest.raises(UnauthorizedError):
        admit(KeyRing(file), f"{HOME}/rank", headers)


def test_the_hash_of_an_unknown_id_is_nobodys_secret(file):
    """A preimage of the hash that unknown ids are compared with would still open nothing."""
    ring = KeyRing(file)
    ring._keys = {}
    with pytest.raises(UnauthorizedError):
        admit(ring, f"{HOME}/rank", bearer("shop"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer KEY"),
        (b"authorization", b"bearer  KEY "),
        (b"x-api-key", b"KEY"),
        (b"ocp-apim-subscription-key", b" KEY"),
    ],
)
def test_the_key_comes_in_one_of_three_headers(name, value):
    assert presented_key([(b"host", b"x"), (name, value)]) == "KEY"


# Rates


def test_a_bucket_lets_a_second_of_requests_through_at_once_and_then_the_rate():
    bucket = TokenBucket(4.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0.0] * 4
    assert bucket.take(100.0) == pytest.approx(0.25)
    assert bucket.take(100.25) == 0.0
    assert bucket.take(100.25) > 0
    passed = sum(bucket.take(100.25 + i / 100) == 0.0 for i in range(1, 1001))
    assert passed == pytest.approx(40, abs=1)
    # a long rest saves no more than a second
    assert [bucket.take(1e6) for _ in range(5)].count(0.0) == 4


def test_a_slow_rate_still_lets_one_through_and_says_how_long_to_wait():
    bucket = TokenBucket(0.1, now=0.0)
    assert bucket.take(0.0) == 0.0
    assert bucket.take(4.0) == pytest.approx(6.0)
    assert bucket.take(10.0) == 0.0


def test_a_rate_is_shared_by_the_replicas_and_keys_do_not_share_theirs(file):
    write(file, a={"rate": 6}, b={"rate": 6})
    ring = KeyRing(file, replicas=3)
    for _ in range(2):
        admit(ring, f"{HOME}/rank", bearer("a"))
    with pytest.raises(RateLimitedError) as refused:
        admit(ring, f"{HOME}/rank", bearer("a"))
    assert refused.value.retry_after_s == 1
    admit(ring, f"{HOME}/rank", bearer("b"))


def test_a_refused_key_does_not_use_up_anybodys_rate(file):
    write(file, a={"rate": 1})
    ring = KeyRing(file)
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            admit(ring, f"{HOME}/rank", bearer("a", "guess"))
    admit(ring, f"{HOME}/rank", bearer("a"))


# Rotation


def test_keys_are_rotated_without_a_restart(file):
    ring = KeyRing(file)
    write(file, shop={}, shop2={"secret": "new"})
    assert ring.refresh()
    admit(ring, f"{HOME}/rank", bearer("shop"))
    admit(ring, f"{HOME}/rank", bearer("shop2", "new"))
    write(file, shop2={"secret": "new"})
    assert ring.refresh()
    assert not ring.refresh()
    admit(ring, f"{HOME}/rank", bearer("shop2", "new"))
    with pytest.raises(UnauthorizedError):
        admit(ring, f"{HOME}/rank", bearer("shop"))


def test_a_change_of_the_file_gives_nobody_a_fresh_rate(file):
    write(file, a={"rate": 1})
    ring = KeyRing(file)
    admit(ring, f"{HOME}/rank", bearer("a"))
    write(file, a={"rate": 1}, b={})
    assert ring.refresh()
    with pytest.raises(RateLimitedError):
        admit(ring, f"{HOME}/rank", bearer("a"))
    write(file, a={"rate": 2})
    assert ring.refresh()
    admit(ring, f"{HOME}/rank", bearer("a"))


@pytest.mark.parametrize("damage", ["{", "[]", "shop: {hash: x}", "gone", "open"])
def test_a_broken_file_leaves_the_previous_keys_and_is_counted_once(file, damage):
    ring = KeyRing(file)
    if damage == "gone":
        file.unlink()
    elif damage == "open":
        write(file, other={})
        file.chmod(0o606)
    else:
        file.write_text(damage)
    assert not ring.refresh()
    assert not ring.refresh()
    assert ring.failures == 1
    admit(ring, f"{HOME}/rank", bearer("shop"))
    file.unlink(missing_ok=True)
    write(file, other={})
    ring.refresh()
    with pytest.raises(UnauthorizedError):
        admit(ring, f"{HOME}/rank", bearer("shop"))


async def test_a_running_replica_follows_its_file(file, monkeypatch):
    monkeypatch.setattr("serve_app.api.api_keys.CHECK_S", 0.001)
    ring = KeyRing(file)
    task = asyncio.create_task(ring.follow())
    write(file, fresh={})
    for _ in range(2000):
        await asyncio.sleep(0.001)
        if "fresh" in ring._keys:
            break
    task.cancel()
    admit(ring, f"{HOME}/rank", bearer("fresh"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shop: {hash: abc, scopes: [rank]}", "hash"),
        (f"shop: {{hash: {'a' * 64}, scopes: [root]}}", "root"),
        (f"shop: {{hash: {'a' * 64}, scopes: [rank], rate: 0}}", "rate"),
        (f"shop: {{hash: {'a' * 64}, scopes: [rank], colour: red}}", "colour"),
        (f"Shop_1: {{hash: {'a' * 64}, scopes: [rank]}}", "key"),
        (f"shop: bl_shop_{SECRET}", "object"),
        (f"shop: {{hash: {SECRET}, scopes: [rank]}}", "hash"),
        (f"'bl_shop_{SECRET}", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_never_quoted(file, text, says):
    file.write_text(text)
    with pytest.raises(StartupError, match=says) as refused:
        read_keys(file)
    assert SECRET not in str(refused.value)
    assert refused.value.target == "keys_file"


def test_no_file_is_an_error_and_an_empty_one_has_no_keys(tmp_path):
    with pytest.raises(StartupError, match="No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert read_keys(tmp_path / "empty") == {}


# Over HTTP


class Service:
    """The API with keys, called in this process."""

    def __init__(self, file) -> None:
        home = FakeService(fresh_ranker(PolicySpec("home")))
        self.metrics = Metrics("test")
        self.api = Api({"home": home}, self.metrics, self._scrape, KeyRing(file))
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.api), base_url="http://test"
        )

    async def _scrape(self) -> bytes:
        return b"metrics"


GOOD = {"actions": [{"id": "a"}]}


async def test_401_403_and_429_have_their_errors_and_their_headers(file):
    write(file, shop={"scopes": ["rank"], "rate": 1})
    http = Service(file).http
    key = f"bl_shop_{SECRET}"
    missing = await http.post(f"{HOME}/rank", json=GOOD)
    assert (missing.status_code, missing.json()["error"]["code"]) == (401, "unauthorized")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert (
        await http.post(f"{HOME}/rank", json=GOOD, headers={"X-Api-Key": key})
    ).status_code == 200
    limited = await http.post(f"{HOME}/rank", json=GOOD, headers={"Ocp-Apim-Subscription-Key": key})
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
    assert int(limited.headers["retry-after"]) >= 1
    forbidden = await http.get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "forbidden")
    for answer in (missing, limited, forbidden):
        assert SECRET not in answer.text


async def test_without_a_key_nobody_learns_which_policies_there_are(file):
    http = Service(file).http
    answers = [await http.post(f"/v1/policies/{name}/rank", json=GOOD) for name in ("home", "none")]
    assert answers[0].content == answers[1].content
    assert answers[0].status_code == 401


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz/learning", "/openapi.json", "/docs"]
)
async def test_what_a_probe_and_a_reader_need_is_open(file, path):
    assert (await Service(file).http.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/policies/home%2Frank",
        "/v1%2Fpolicies/home",
        "//v1/policies/home",
        "/livez/",
        "/livez/../metrics",
        "/%2e/",
    ],
)
async def test_no_spelling_of_a_path_gets_around_the_key(file, path):
    assert (await Service(file).http.get(path)).status_code == 401


async def test_an_encoded_route_needs_the_scope_of_the_route(file):
    """What is decided from the path and what is routed by it are the same parts."""
    http = Service(file).http
    ops = {"X-Api-Key": f"bl_ops_{SECRET}"}
    assert (await http.post("/v1/policies/home/%72ank", json=GOOD, headers=ops)).status_code == 403


def test_the_signature_sees_a_file_that_was_replaced_within_one_tick(file):
    """Same size, same mtime, another inode."""
    ring = KeyRing(file)
    before = file.stat()
    other = file.with_name("other")
    write(
        other,
        shop={"scopes": ["rank", "reward"], "secret": "new"},
        ops={"scopes": ["admin"]},
        one={"scopes": ["rank", "admin"], "policies": ["home"]},
    )
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert ring.refresh()
    admit(ring, f"{HOME}/rank", bearer("shop", "new"))
