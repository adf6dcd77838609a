"""A web page of another origin, in a real browser, decides and rewards by the snippet we ship."""

import functools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn
from support.browser import Page, browser
from support.fakes import FakeService, FakeSpace, fresh_ranker

from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing, secret_hash
from serve_app.api.asgi import Api
from serve_app.api.cors import CrossOriginApi
from serve_app.host.environment import free_port
from serve_app.replica.metrics import Metrics

ROOT = Path(__file__).parents[2]
SNIPPET = ROOT / "clients" / "javascript" / "banditloop.js"
GUIDE = ROOT / "docs" / "how-to" / "call-from-a-web-page.md"
SECRET = "s" * 43
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><p id="shown"></p>
<script type="module">
import {{ banditloop }} from "./banditloop.js";
const shop = banditloop({{ url: "{url}", policy: "home", key: {key} }});
window.shop = shop;
const decision = await shop.rank([{{ id: "red" }}, {{ id: "blue", features: {{ price: 2 }} }}],
                                 {{ user_id: "u1", context: {{ hour: 9 }} }});
document.getElementById("shown").textContent = decision.chosen[0].id;
await shop.show(decision);
window.decision = decision;
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A folder as a web site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def served(api) -> Iterator[str]:
    """The API under a real server."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def scrape() -> bytes:
    return b""


class Shop:
    """A policy whose key is in a page: what the log has of what the page did."""

    def __init__(self, folder: Path, scopes: list[str]) -> None:
        keys = folder / "keys.json"
        keys.write_text(json.dumps({"page": {"hash": secret_hash(SECRET), "scopes": scopes}}))
        keys.chmod(0o600)
        self.policy = FakeService(fresh_ranker(PolicySpec("home")))
        self.space = FakeSpace()
        self.api = Api(
            {"home": self.policy},
            Metrics("test"),
            scrape,
            KeyRing(keys),
            spaces={"home": self.space},
        )

    def records(self, kind: type) -> list:
        return [e.record for e in self.policy.records.entries if isinstance(e.record, kind)]


def write_page(folder: Path, url: str, key: str | None = f"bl_page_{SECRET}") -> Path:
    web = folder / "web"
    web.mkdir(exist_ok=True)
    shutil.copy(SNIPPET, web)
    (web / "bye.html").write_text('<link rel="icon" href="data:,">')
    (web / "index.html").write_text(PAGE.format(url=url, key=json.dumps(key)))
    return web


def test_a_page_ranks_shows_and_rewards_even_while_it_is_left(page, tmp_path):
    shop = Shop(tmp_path, ["rank", "reward", "activity"])
    web = tmp_path / "web"
    web.mkdir()
    with site(web) as origin, served(CrossOriginApi(shop.api, frozenset({origin}))) as url:
        write_page(tmp_path, url)
        page.problems.clear()
        page.open(f"{origin}/index.html", "window.decision")
        (decision,) = shop.records(DecisionRecord)
        assert page.problems == []
        assert page.evaluate("document.getElementById('shown').textContent") in {"red", "blue"}
        assert page.evaluate("window.decision.event_id") == decision.event_id
        assert [each.event_id for each in shop.records(ActivationRecord)] == [decision.event_id]
        assert page.evaluate("shop.reward(decision, 1.5).then(answer => answer.status)") == 202

        asked = "shop.did('ann', 'red', 'view', {value: 2}).then(answer => answer.status)"
        assert page.evaluate(asked) == 202
        (event,) = shop.space.events
        assert (event.user_id, event.item_id, event.type, event.value) == ("ann", "red", "view", 2)
        assert event.id is not None

        # The visitor clicks, and is gone in the same moment.
        page.evaluate(
            "void shop.reward(decision, 2, {reward_id: 'last'}), location.href='/bye.html'"
        )
        eventually(lambda: len(shop.records(RewardRecord)) == 2)
    rewards = shop.records(RewardRecord)
    assert [each.value for each in rewards] == [1.5, 2.0]
    assert {each.event_id for each in rewards} == {decision.event_id}
    assert rewards[1].reward_id == "last"


def test_the_page_of_the_guide_shows_an_offer_and_rewards_a_click(page, tmp_path):
    shop = Shop(tmp_path, ["rank", "reward"])
    (guide,) = re.findall(r"```html\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    web = tmp_path / "web"
    web.mkdir()
    shutil.copy(SNIPPET, web)
    with site(web) as origin, served(CrossOriginApi(shop.api, frozenset({origin}))) as url:
        mine = guide.replace("https://rank.example", url).replace("bl_page_…", f"bl_page_{SECRET}")
        assert url in mine
        assert SECRET in mine
        (web / "guide.html").write_text(f'<link rel="icon" href="data:,">{mine}')
        page.problems.clear()
        page.open(f"{origin}/guide.html", "document.getElementById('offer').onclick")
        assert page.problems == []
        shown = page.evaluate("document.getElementById('offer').textContent")
        assert shown in {"Red shoes", "Blue shoes"}
        page.evaluate("document.getElementById('offer').click()")
        eventually(lambda: bool(shop.records(RewardRecord)))
        assert page.problems == []
    (decision,), (reward,) = shop.records(DecisionRecord), shop.records(RewardRecord)
    assert [each.event_id for each in shop.records(ActivationRecord)] == [decision.event_id]
    assert (reward.event_id, reward.value) == (decision.event_id, 1.0)


@pytest.mark.parametrize("refused", ["origin", "scope", "service"])
def test_a_page_that_gets_no_decision_shows_the_first_action_and_nothing_is_logged(
    page, tmp_path, refused
):
    shop = Shop(tmp_path, ["reward"] if refused == "scope" else ["rank", "reward"])
    web = tmp_path / "web"
    web.mkdir()
    with site(web) as origin:
        allowed = frozenset({"https://other.example" if refused == "origin" else origin})
        with served(CrossOriginApi(shop.api, allowed)) as url:
            write_page(tmp_path, "http://127.0.0.1:9" if refused == "service" else url)
            page.open("about:blank#", "location.hash === ''")
            page.problems.clear()
            page.call("Page.navigate", url=f"{origin}/index.html")
            eventually(lambda: page.evaluate("!!window.decision"))
            assert page.evaluate("document.getElementById('shown').textContent") == "red"
            assert page.evaluate("window.decision.event_id") is None
            assert page.problems
    assert not shop.policy.records.entries
