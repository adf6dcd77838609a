"""The console over a real API in this process: what it shows, to whom, and what a browser may do with it."""

import re
from contextlib import asynccontextmanager

import httpx
import pytest
from support.fakes import FakeService, FakeSpace, fresh_ranker

from policies.requests import Item
from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing, secret_hash
from serve_app.api.asgi import Api
from serve_app.console.site import console_site
from serve_app.replica.metrics import Metrics

SECRET = "s" * 43
OPS, SHOP, USERS = (f"bl_{name}_{SECRET}" for name in ("ops", "shop", "people"))
KEYS = f"""
ops: {{hash: {secret_hash(SECRET)}, scopes: [admin]}}
shop: {{hash: {secret_hash(SECRET)}, scopes: [rank]}}
people: {{hash: {secret_hash(SECRET)}, scopes: [users], policies: [home], spaces: [home]}}
"""
HOSTILE = "<script>alert(1)</script>\"'&"
PAGES = (
    "/console/",
    "/console/policies/home",
    "/console/policies/home/items",
    "/console/policies/home/item?item_id=known",
    "/console/policies/home/try",
    "/console/users",
    "/console/user?space=home&user_id=ann",
    "/console/erase?space=home&user_id=ann",
    "/console/sign-in",
)


class Shop:
    """A service's API and what it was told, and browsers that look at its console."""

    def __init__(self, keys: KeyRing | None = None) -> None:
        async def scrape() -> bytes:
            return b""

        self.service, self.space = FakeService(fresh_ranker(PolicySpec("home"))), FakeSpace()
        metrics = Metrics("test")
        api = Api({"home": self.service}, metrics, scrape, keys, spaces={"home": self.space})
        self.site = console_site("http://api", httpx.ASGITransport(api))

    @asynccontextmanager
    async def browser(self, **headers: str):
        """One that keeps cookies and says where a form comes from."""
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.site),
            base_url="http://console",
            headers={"origin": "http://console", **headers},
        ) as http:
            yield http


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def guarded(tmp_path) -> Shop:
    """A shop that demands keys."""
    path = tmp_path / "keys.yaml"
    path.write_text(KEYS)
    return Shop(KeyRing(path))


def token_of(page: httpx.Response) -> str:
    return re.search(r'name="token" value="(\w+)"', page.text)[1]


async def sign_in(http: httpx.AsyncClient, key: str, back: str = "") -> httpx.Response:
    form = {"token": token_of(await http.get("/console/sign-in")), "key": key, "next": back}
    return await http.post("/console/sign-in", data=form)


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_whole_and_lets_no_script_of_others_run(shop, path):
    async with shop.browser() as http:
        page = await http.get(path)
    assert page.status_code == 200
    assert page.text.rstrip().endswith("</html>")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    # what the policy would keep from running is not there in the first place
    assert not re.search(r"<script(?! src=)|<style| on\w+=| style=", page.text)


async def test_static_files_are_kept_until_they_change(shop):
    async with shop.browser() as http:
        page = await http.get("/console/")
        links = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)
        assert len(links) == 3
        for link in links:
            file = await http.get(link)
            assert file.status_code == 200
            assert "immutable" in file.headers["cache-control"]


async def test_without_a_slash_one_gets_there_too(shop):
    async with shop.browser() as http:
        assert (await http.get("/console")).headers["location"] == "/console/"


async def test_it_stands_at_its_prefix_whoever_mounts_it(shop):
    """Serve says in root_path where an application is."""
    transport = httpx.ASGITransport(shop.site, root_path="/console")
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as http:
        assert (await http.get("/console/users")).status_code == 200


async def test_who_has_not_signed_in_is_asked_for_a_key_and_comes_back(guarded):
    wanted = "/console/policies/home/items?text=a b"
    async with guarded.browser() as http:
        asked = await http.get(wanted)
        assert asked.status_code == 303
        form = await http.get(asked.headers["location"])
        back = re.search(r'name="next" value="([^"]*)"', form.text)[1]
        assert back == "/console/policies/home/items?text=a%20b"
        done = await sign_in(http, OPS, back)
        assert (done.status_code, done.headers["location"]) == (303, back)
        assert (await http.get(back)).status_code == 200


async def test_a_part_of_a_page_sends_the_whole_page_to_where_a_key_is_asked_for(guarded):
    async with guarded.browser(**{"hx-request": "true"}) as http:
        answer = await http.get("/console/policies/home/state")
        assert answer.headers["hx-redirect"].startswith("/console/sign-in?next=")


async def test_a_key_stays_with_the_service(guarded):
    """The browser has a name for it, which no script reads and no other site's page sends."""
    async with guarded.browser() as http:
        done = await sign_in(http, OPS)
        cookie = done.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/console"} <= set(cookie.split("; "))
        assert "secure" not in cookie
        assert SECRET not in cookie
        for path in PAGES:
            assert SECRET not in (await http.get(path)).text


async def test_behind_https_the_cookie_comes_by_nothing_else(guarded):
    async with guarded.browser(**{"x-forwarded-proto": "https"}) as http:
        assert "; Secure" in (await http.get("/console/sign-in")).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "bl_ops_" + "x" * 43, "nonsense", "bl_ops_ä\n"])
async def test_a_key_that_is_not_known_signs_nobody_in(guarded, key):
    async with guarded.browser() as http:
        refused = await sign_in(http, key)
        assert refused.status_code == 401
        assert 'role="alert"' in refused.text
        assert (await http.get("/console/")).status_code == 303


async def test_a_session_ends_and_its_name_is_worth_nothing_afterwards(guarded):
    async with guarded.browser() as http:
        await sign_in(http, OPS)
        kept = dict(http.cookies)
        form = {"token": token_of(await http.get("/console/"))}
        assert (await http.post("/console/sign-out", data=form)).status_code == 303
        http.cookies.clear()
        http.cookies.update(kept)
        assert (await http.get("/console/")).status_code == 303


async def test_signing_in_gives_a_session_another_name(guarded):
    """A name that somebody else put into the browser before is not the one with the key."""
    async with guarded.browser() as http:
        await http.get("/console/sign-in")
        before = dict(http.cookies)
        await sign_in(http, OPS)
        assert dict(http.cookies) != before


@pytest.mark.parametrize(
    "back", ["https://elsewhere.example/", "//elsewhere.example", "/console/\\x", "/docs"]
)
async def test_after_signing_in_nobody_is_sent_elsewhere(guarded, back):
    async with guarded.browser() as http:
        assert (await sign_in(http, OPS, back)).headers["location"] == "/console/"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"origin": "https://elsewhere.example"}, "right"),
        ({"origin": "null"}, "right"),
        ({"origin": "", "sec-fetch-site": "cross-site"}, "right"),
        ({"sec-fetch-site": "same-site"}, "right"),
        ({}, "wrong"),
        ({}, ""),
    ],
)
async def test_a_form_that_another_site_sends_changes_nothing(shop, headers, token):
    async with shop.browser() as http:
        right = token_of(await http.get("/console/erase?space=home&user_id=ann"))
        form = {"space": "home", "user_id": "ann", "again": "ann"}
        form["token"] = {"right": right, "wrong": "0" * 64, "": ""}[token]
        refused = await http.post("/console/erase", data=form, headers=headers)
        assert refused.status_code == 403
        assert "Nothing was changed" in refused.text
        assert shop.space.erased == []

        form["token"] = right
        assert (await http.post("/console/erase", data=form)).status_code == 303
        assert shop.space.erased == ["ann"]


async def test_the_token_of_another_session_is_none(shop):
    async with shop.browser() as one, shop.browser() as other:
        foreign = token_of(await one.get("/console/sign-in"))
        await other.get("/console/sign-in")
        form = {"token": foreign, "space": "home", "user_id": "ann", "again": "ann"}
        assert (await other.post("/console/erase", data=form)).status_code == 403


async def test_a_user_is_erased_only_when_the_id_is_typed_again(shop):
    async with shop.browser() as http:
        form = {"token": token_of(await http.get("/console/erase?space=home&user_id=ann"))}
        form |= {"space": "home", "user_id": "ann", "again": "anne"}
        refused = await http.post("/console/erase", data=form)
        assert refused.status_code == 422
        assert "nobody was erased" in refused.text
    assert shop.space.erased == []


async def test_a_form_that_is_too_long_is_not_read(shop):
    async with shop.browser() as http:
        refused = await http.post("/console/erase", content=b"x" * (3 << 20))
    assert refused.status_code == 413


async def test_a_key_without_the_scope_is_told_which_it_lacks(guarded):
    async with guarded.browser() as http:
        await sign_in(http, SHOP)
        refused = await http.get("/console/policies/home")
        assert refused.status_code == 403
        assert "has rank" in refused.text
        assert (await http.get("/console/user?space=home&user_id=ann")).status_code == 403


async def test_a_key_of_one_policy_asks_for_it_by_name(guarded):
    async with guarded.browser() as http:
        await sign_in(http, USERS)
        page = await http.get("/console/")
        assert "Which policy?" in page.text
        assert (await http.get("/console/go?policy=home")).headers["location"].endswith("/home")
        assert (await http.get("/console/user?space=home&user_id=ann")).status_code == 200


async def test_what_is_not_there_is_said_to_be_not_there(shop):
    async with shop.browser() as http:
        for path in ("policies/none", "policies/home/item?item_id=none", "user?space=no&user_id=u"):
            page = await http.get(f"/console/{path}")
            assert page.status_code == 404
            assert "There is no such thing" in page.text


async def test_a_service_that_does_not_answer_is_said_not_to_answer():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    site = console_site("http://api", httpx.MockTransport(refuse))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(site), base_url="http://console"
    ) as http:
        page = await http.get("/console/")
    assert page.status_code == 502
    assert "does not answer" in page.text


async def test_script_in_an_id_or_a_feature_is_text(shop, monkeypatch):
    """Whatever callers name their things, a page shows it and runs none of it."""
    item = Item(HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE})

    async def items(query):
        return shop_page(item)

    monkeypatch.setattr(shop.service, "items", items)
    async with shop.browser() as http:
        for path in (
            "policies/home/items",
            f"policies/home/items?text={HOSTILE}",
            "policies/<script>/items",
            f"policies/{HOSTILE}/items",
            f"user?space=home&user_id={HOSTILE}",
            f"erase?space={HOSTILE}&user_id={HOSTILE}",
            f"sign-in?next=/console/{HOSTILE}",
            f"policies/home/try?user_id={HOSTILE}",
        ):
            name, _, asked = f"/console/{path}".partition("?")
            params = dict([asked.split("=", 1)]) if asked.count("=") == 1 else None
            page = await http.get(name if params else f"/console/{path}", params=params)
            assert "<script>" not in page.text, path
            assert "&lt;script&gt;" in page.text, path
            assert not re.search(r'="[^"]*<script', page.text), path


def shop_page(item: Item):
    from banditloop_client.schemas import ItemsPage  # noqa: PLC0415

    return ItemsPage("v", 1, [item])
