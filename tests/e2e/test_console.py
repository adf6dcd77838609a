"""The console as a new user has it: Chromium, the real service, and what is written on the pages."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from support.browser import SAFE, chromium
from support.processes import descendants

from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PICTURES = Path(__file__).parents[2] / "build" / "console"
"""Where pictures of the pages are left, and when each was first painted, if there is such a folder."""
BANDITLOOP = str(Path(sys.executable).parent / "banditloop")
EVERY = bool(os.environ.get("BANDITLOOP_EVERY_PAGE"))
"""Set by make console-test: axe looks at each page in each of three ways; that takes minutes."""
PATIENCE_MS = 60_000
BAD = {"error", "warning"}
REFUSED = re.compile(r"the server responded with a status of 4\d\d")
"""Chromium says of each refusal that it is one."""
HOSTILE = '<script>window.hurt=1</script><img src=x onerror="window.hurt=1">\'&'
UNBROKEN = "x" * 300
ROOM = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SPEC = """
name: shop
sources: [{kind: fresh, name: new}, {kind: trending, name: now, half_life: 6h}]
profile: {items: 50, types: {view: 1}}
learner: {kind: ridge, interactions: [[context, features]]}
exploration: {kind: lints, scale: 0.3, draws: 50}
floor: 0.05
boost: [{when: item.colour == "red", by: 0.1}]
holdout: {fraction: 0.3, policy: uniform}
join: {window_s: 1, default_reward: 0, aggregation: first}
"""
SETTINGS = {
    "BANDITLOOP_ARCHIVE_MAX_AGE_S": "1",
    "BANDITLOOP_CHECKPOINT_INTERVAL_S": "1",
    "BANDITLOOP_REDIS_TIMEOUT_S": "10",
}
USERS, ROUNDS = 40, 5
OF_THE_MOMENT = "figures.ahead_ms"
"""How far the log's clock is from this machine's at the moment of asking."""
CLOSELY = {"sign-in", "policy", "decision"}
"""Pages that axe-core always looks at; make console-test has it look at all."""
WAYS = (("light", 1200), ("dark", 390), ("dark", 1200), ("light", 390))
"""Colours and widths in which a page is looked at: the second unless each is."""


def run(folder: Path, *arguments: str) -> str:
    """What the command prints."""
    done = subprocess.run(
        [BANDITLOOP, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 3}, done.stderr
    return done.stdout


@dataclass(frozen=True)
class House:
    """A service with keys, a day of traffic in it, and what a person knows who looks at it."""

    folder: Path
    url: str
    owner: str
    looker: str
    pid: int

    def call(self, method: str, path: str, **body: Any) -> Any:
        """What the API answers."""
        answer = httpx.request(
            method,
            f"{self.url}/v1{path}",
            headers={"authorization": f"Bearer {self.owner}"},
            json=body or None,
            timeout=60,
        )
        assert answer.is_success, answer.text
        return answer.json()

    def user(self, user_id: str) -> Any:
        """What is held of somebody."""
        return self.call("GET", f"/spaces/shop/users/{user_id}")

    def traffic(self) -> None:
        """Items, one of them hostile; decisions for users who like some more than others."""
        items = [
            {
                "id": f"i{n}",
                "features": {"topic": "sport" if n % 3 else "war", "price": n},
                "metadata": {"title": f"The item of number {n}"},
            }
            for n in range(20)
        ]
        items.append(
            {
                "id": HOSTILE,
                "features": {"topic": HOSTILE, "tag": UNBROKEN},
                "metadata": {"title": HOSTILE, "link": UNBROKEN},
            }
        )
        self.call("POST", "/policies/shop/items", items=items)
        views = [
            {"user_id": f"u{n}", "item_id": f"i{n % 20}", "type": "view"} for n in range(USERS)
        ]
        self.call("POST", "/spaces/shop/activity", events=views)

        for visit in range(ROUNDS):
            requests = [
                {
                    "event_id": f"visit-{visit}-{n}",
                    "user_id": f"u{n}",
                    "context": {"device": "phone" if n % 2 else "desk"},
                }
                for n in range(USERS)
            ]
            answers = self.call("POST", "/policies/shop/rank:batch", requests=requests)["results"]
            earned = [
                {"event_id": each["event_id"], "value": 1.0}
                for each in answers
                if each["chosen"][0]["id"][-1] in "12457"
            ]
            self.call("POST", "/policies/shop/rewards", rewards=earned)

        # What anybody may send.
        path = "/policies/shop/rank"
        self.call("POST", path, event_id=HOSTILE, user_id=HOSTILE, context={HOSTILE: HOSTILE})

    def has_pages(self) -> bool:
        """Whether the console answers."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/console/sign-in", timeout=2).is_success
        return False

    def is_settled(self) -> bool:
        """Whether all windows have closed, and the log is archived."""
        newest = self.call("GET", "/policies/shop/decisions?limit=100")["decisions"]
        counted = self.call("GET", "/policies/shop")["outcomes"].get("decisions", 0)
        return counted > USERS * ROUNDS and all(each["outcome"] != "open" for each in newest)


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it never happened: {what}"
        time.sleep(0.1)
    return result


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "shop.yaml").write_text(SPEC)
    scopes = [
        f"--scope={name}" for name in ("console", "admin", "users", "rank", "reward", "activity")
    ]
    owner = run(folder, "keys", "create", "owner", *scopes, "--keys-file", "keys.yaml").split()[-1]
    looker = run(folder, "keys", "create", "looker", "--scope=console", "--keys-file", "keys.yaml")
    port = free_port()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [BANDITLOOP, "serve", "shop.yaml", "--port", str(port), "--keys-file", "keys.yaml"],
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **SETTINGS},
        )
    try:
        started = House(folder, f"http://127.0.0.1:{port}", owner, looker.split()[-1], process.pid)
        wait_until_ready(started.url, timeout_s=150)
        started.traffic()
        eventually(started.is_settled, "all is learned")
        eventually(started.has_pages, "the console's pages")
        yield started
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=SAFE.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def signed_in(house: House, browser: Browser) -> dict[str, Any]:
    """What a browser keeps whose user has signed in, as a person does."""
    with watched(browser, house) as page:
        page.goto("/console/policies/shop/items")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        keeps_nobody_out(page, "sign-in")
        page.get_by_label("API key").fill(house.owner)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Items")).to_be_visible()
        state = page.context.storage_state()
    assert house.owner not in json.dumps(state)
    return state


@contextlib.contextmanager
def watched(browser: Browser, house: House, **options: Any) -> Iterator[Page]:
    """A page of a browser; its console has nothing to say at the end, but what was refused."""
    context: BrowserContext = browser.new_context(base_url=house.url, **options)
    context.set_default_timeout(PATIENCE_MS)
    page, said = context.new_page(), []
    page.on("console", lambda message: message.type in BAD and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    assert page.evaluate("window.hurt") is None, "a script ran that a caller had sent"
    assert [each for each in said if not REFUSED.search(each)] == []
    context.close()


@pytest.fixture
def page(house: House, browser: Browser, signed_in: dict[str, Any]) -> Iterator[Page]:
    with watched(browser, house, storage_state=signed_in) as opened:
        yield opened


expect.set_options(timeout=PATIENCE_MS)


def numbers(page: Page, within: str = "main") -> list[tuple[str, float, str]]:
    """The numbers that a page shows: where each stands in the answer, as it is there, as it is read."""
    return [
        (path, json.loads(value), text)
        for path, value, text in page.locator(f"{within} data[data-of]").evaluate_all(
            "all => all.map(e => [e.dataset.of, e.value, e.textContent])"
        )
    ]


def under(answer: Any, path: str) -> Any:
    """What stands at a path of an answer."""
    steps = path.split(".")
    return reduce(lambda at, step: at[int(step) if isinstance(at, list) else step], steps, answer)


def as_read(text: str) -> float:
    """The number that a person reads."""
    plain = text.replace(",", "").removesuffix("%")
    return float(plain) / (100 if text.endswith("%") else 1)


def check_numbers(page: Page, answer: Any, least: int, within: str = "main") -> None:
    """Each number of a page is that of the answer, and what a person reads is that, rounded."""
    shown = numbers(page, within)
    assert len(shown) >= least, shown
    for path, value, text in shown:
        if path.endswith(OF_THE_MOMENT):
            continue
        assert value == under(answer, path), path
        if text[-1].isdigit() or text.endswith("%"):
            assert as_read(text) == pytest.approx(value, rel=0.01, abs=6e-4), (path, text, value)


def keeps_nobody_out(page: Page, name: str) -> None:
    """axe-core finds nothing serious on a page, and nothing of it is wider than a phone."""
    expect(page.locator(".wait")).to_have_count(0)
    for scheme, width in WAYS if EVERY else WAYS[1:2]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        if EVERY or name in CLOSELY:
            found = Axe().run(page).response["violations"]
            serious = [
                (each["id"], [node["target"] for node in each["nodes"]])
                for each in found
                if each["impact"] in {"serious", "critical"}
            ]
            assert serious == [], (name, scheme)
        assert page.evaluate(ROOM) <= 0, name
        if PICTURES.is_dir():
            page.screenshot(path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True)
    if PICTURES.is_dir():
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        with (PICTURES / "first-paint.txt").open("a") as file:
            file.write(f"{name} {page.evaluate(paint):.0f} ms\n")


# What a new user does. The first tests look, the last ones change something.


def test_whether_all_is_well(page: Page):
    page.goto("/console/")
    expect(page.get_by_role("heading", name="1 policy")).to_be_visible()
    card = page.get_by_role("region", name="shop")
    expect(card.locator("dl").get_by_text("ok", exact=True)).to_be_visible()
    expect(card.get_by_text("learned", exact=True)).to_be_visible()
    expect(card.get_by_text("no item has item.colour")).to_be_visible()
    keeps_nobody_out(page, "overview")


def test_what_the_policy_is_worth_and_the_numbers_are_those_of_the_command(
    house: House, page: Page
):
    page.goto("/console/")
    page.get_by_role("link", name="shop", exact=True).click()
    expect(page.get_by_role("heading", name="Uplift over the holdout")).to_be_visible()
    expect(page.get_by_text("What to do:").first).to_be_visible()
    expect(page.get_by_role("img", name="mean rewards over time")).to_be_visible()

    report = json.loads(run(house.folder, "report", "shop", "--json"))
    check_numbers(page, report, least=30, within="#worth")
    assert page.locator("#worth").inner_text().count(report["verdict"]["message"]) == 1
    keeps_nobody_out(page, "policy")


def test_only_what_was_lately(page: Page):
    """The report of that time is asked for; what a report says is looked at above."""
    asked = []
    page.route(
        "**/report?*", lambda route: (asked.append(route.request.url), route.fulfill(body=""))
    )
    page.goto("/console/policies/shop?since=7d")
    page.get_by_role("link", name="24h").click()
    expect(page.get_by_role("link", name="24h")).to_have_attribute("aria-current", "page")
    expect(page.get_by_label("Since")).to_have_value("24h")
    eventually(lambda: page.evaluate("1") and len(asked) == 2, "the report was asked for")
    assert asked[1].endswith("/report?since=24h")


def test_what_somebody_was_shown(page: Page):
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Decisions", exact=True).click()
    page.get_by_label("Of one user").fill("u3")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("for the user u3")).to_be_visible()
    for visit in range(ROUNDS):
        expect(page.get_by_role("link", name=f"visit-{visit}-3", exact=True)).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(ROUNDS + 1)
    keeps_nobody_out(page, "decisions")


def test_what_came_of_a_decision_and_why_it_is_so(house: House, page: Page):
    """The terms of each score add up on the page."""
    newest = house.call("GET", "/policies/shop/decisions?limit=100")["decisions"]
    names = [each["event_id"] for each in newest if not each["holdout"]]
    name = next(each for each in names if each.startswith("visit") and each[-1] in "02468")
    page.goto("/console/policies/shop/decisions")
    page.get_by_label("By its event_id").fill(name)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_text("desk", exact=True)).to_be_visible()
    expect(page.get_by_text("byte for byte")).to_be_visible()

    event = house.call("GET", f"/policies/shop/events/{name}")
    why = house.call("GET", f"/policies/shop/events/{name}/explain?entry={event['entry']}")
    check_numbers(page, {**why, **event}, least=20)
    shown = {path: value for path, value, _ in numbers(page)}
    for at in range(2):
        prefix = f"explanation.actions.{at}."
        adds = [v for path, v in shown.items() if re.fullmatch(rf"{prefix}terms\.\d+\.adds", path)]
        assert sum(adds) == pytest.approx(shown[f"{prefix}score"], abs=1e-9)
    keeps_nobody_out(page, "decision")


def test_without_a_script_every_page_is_there(house: House, browser: Browser, signed_in):
    with watched(browser, house, storage_state=signed_in, java_script_enabled=False) as page:
        page.goto("/console/policies/shop/decisions?user_id=u2")
        page.get_by_role("link", name="visit-").last.click()
        page.get_by_role("link", name="Show why").click()
        expect(page.get_by_text("Verified").or_(page.get_by_text("No model"))).to_be_visible()


def test_a_request_that_is_only_tried(house: House, page: Page):
    before = house.call("GET", "/policies/shop/decisions")["decisions"][0]
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Try a request", exact=True).click()
    page.get_by_label("User id").fill("u5")
    page.get_by_label("Context").fill('{"device": "phone"')
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_role("alert")).to_contain_text("context")
    expect(page.get_by_label("User id")).to_have_value("u5")

    page.get_by_label("Context").fill('{"device": "phone"}')
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_role("heading", name="It would be")).to_be_visible()
    expect(page.get_by_role("cell", name="0", exact=True).first).to_be_visible()
    assert house.call("GET", "/policies/shop/decisions")["decisions"][0] == before
    keeps_nobody_out(page, "try")


def test_which_source_fails(page: Page):
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Sources", exact=True).click()
    row = page.get_by_role("row", name="trending")
    expect(row).to_contain_text("now")
    expect(row).to_contain_text("none")
    keeps_nobody_out(page, "sources")


def test_an_item_is_found_by_a_part_of_its_title(page: Page):
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Items", exact=True).click()
    page.get_by_label("Id, title or other").fill("number 17")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row")).to_have_count(2)
    keeps_nobody_out(page, "items")
    page.get_by_role("link", name="i17").click()
    expect(page.get_by_role("heading", name="i17")).to_be_visible()
    expect(page.get_by_role("row", name="price")).to_contain_text("17")
    keeps_nobody_out(page, "item")


def test_whether_the_log_can_be_trusted(house: House, page: Page):
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Doctor", exact=True).click()
    expect(page.get_by_text("The log can be trusted")).to_be_visible()
    found = house.call("GET", "/policies/shop/doctor")  # what the command has printed
    check_numbers(page, found, least=1)
    keeps_nobody_out(page, "doctor")
    text = page.locator("#findings").inner_text()
    assert all(each["message"] in text for each in found["findings"])


@pytest.mark.parametrize(
    ("path", "asked", "least"),
    [
        ("/", "/policies/shop", 3),
        ("/policies/shop/decisions", "/policies/shop/decisions?limit=100", 20),
        ("/policies/shop/items", "/policies/shop/items", 1),
        ("/policies/shop/sources", "/policies/shop/sources", 2),
        ("/policies/shop/snapshots", "/policies/shop/snapshots", 4),
        ("/user?space=shop&user_id=u2", "/spaces/shop/users/u2", 1),
    ],
)
def test_the_numbers_of_every_other_page_are_those_of_the_api(house, page, path, asked, least):
    """The report's, the doctor's and a decision's are looked at above."""

    def shown() -> Any:
        before = house.call("GET", asked)
        page.goto(f"/console{path}")
        expect(page.locator(".wait")).to_have_count(0)
        return before if before == house.call("GET", asked) else None

    check_numbers(page, eventually(shown, "nothing changed meanwhile"), least)


@pytest.mark.parametrize("path", ["decision?event_id=never", "item?item_id=never"])
def test_what_was_never_there(page: Page, path: str):
    page.goto(f"/console/policies/shop/{path}")
    expect(page.get_by_role("heading", name="There is no such thing")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("404")
    keeps_nobody_out(page, "missing")


def test_script_that_callers_sent_is_text_everywhere(page: Page):
    """Each page on which an id, a feature or a user id of theirs stands, no wider than a phone."""
    page.set_viewport_size({"width": 390, "height": 800})
    asked = {"event_id": HOSTILE, "item_id": HOSTILE, "user_id": HOSTILE, "space": "shop"}
    for path, names in {
        "policies/shop/decisions": ("user_id",),
        "policies/shop/decision": ("event_id",),
        "policies/shop/items": (),
        "policies/shop/item": ("item_id",),
        "policies/shop/try": ("user_id",),
        "user": ("space", "user_id"),
        "erase": ("space", "user_id"),
    }.items():
        query = urlencode({name: asked[name] for name in names})
        page.goto(f"/console/{path}?{query}")
        if path.endswith("decision"):
            expect(page.get_by_text("Verified").or_(page.get_by_text("No model"))).to_be_visible()
        if path.endswith("try"):
            page.get_by_role("button", name="Try it").click()
            expect(page.get_by_role("heading", name="It would be")).to_be_visible()
            expect(page.get_by_label("User id")).to_have_value(HOSTILE)
        else:
            expect(page.get_by_text(HOSTILE).first).to_be_visible()
        assert page.evaluate("window.hurt") is None, path
        assert page.evaluate(ROOM) <= 0, path


def test_a_key_that_may_only_look(house: House, browser: Browser):
    with watched(browser, house) as page:
        page.goto("/console/")
        page.get_by_label("API key").fill(house.looker)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="shop", exact=True).click()
        page.get_by_role("link", name="Snapshots", exact=True).click()
        page.get_by_role("link", name="Pin").first.click()
        page.get_by_role("button", name="Pin it").click()
        expect(page.get_by_role("alert")).to_contain_text("needs the scope admin")
        page.goto("/console/user?space=shop&user_id=u1")
        expect(page.get_by_role("alert")).to_contain_text("needs the scope users")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()


def test_one_model_is_kept_and_let_go_again(house: House, page: Page):
    page.goto("/console/policies/shop")
    page.get_by_role("link", name="Snapshots", exact=True).click()
    page.get_by_role("link", name="Pin").last.click()
    page.get_by_role("button", name="Pin it").click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    pinned = house.call("GET", "/policies/shop/snapshots")["pinned"]
    expect(page.get_by_text(f"Pinned: {pinned[:12]}")).to_be_visible()
    keeps_nobody_out(page, "snapshots")
    page.get_by_role("button", name="Unpin").click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    assert house.call("GET", "/policies/shop/snapshots")["pinned"] is None


def test_an_earlier_model_is_gone_back_to(house: House, page: Page):
    page.goto("/console/policies/shop/snapshots")
    oldest = page.get_by_role("link", name="Roll back").last
    named = str(oldest.get_attribute("aria-label")).split()[-1]
    oldest.click()
    expect(page.get_by_role("heading", name=f"Go back to snapshot {named}?")).to_be_visible()
    keeps_nobody_out(page, "rollback")
    page.get_by_role("link", name="Leave it as it is").click()
    page.get_by_role("link", name=f"Roll back to {named}").click()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_contain_text("Done")


def test_a_user_is_given_what_is_held_of_them_and_erased(house: House, page: Page):
    page.goto("/console/")
    page.get_by_role("link", name="Users", exact=True).click()
    keeps_nobody_out(page, "users")
    page.get_by_label("Space").fill("shop")
    page.get_by_label("User id").fill("u1")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("cell", name="view").first).to_be_visible()
    keeps_nobody_out(page, "user")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as a file").click()
    held = json.loads(Path(download.value.path()).read_text())
    assert held == house.user("u1")
    counts = held["profile"]["counts"]["topic"]
    assert sum(counts.values()) == len(held["profile"]["events"]) > 0
    table = page.get_by_role("table").filter(has_text="category")
    expect(table).to_contain_text(f"{next(iter(counts))} {next(iter(counts.values()))}")

    page.get_by_role("link", name="Erase").click()
    keeps_nobody_out(page, "erase")
    page.get_by_label("Type the user id").fill("u1")
    page.get_by_role("button", name="Erase this user").click()
    expect(page.get_by_role("heading", name="Erased")).to_be_visible()
    keeps_nobody_out(page, "erased")
    page.goto("/console/user?space=shop&user_id=u1")
    expect(page.get_by_role("alert")).to_contain_text("nothing is known of this user")


def test_the_console_may_die_and_rank_does_not_notice(house: House):
    """The process of the pages is killed; decisions are answered on, and another takes its place."""
    offices = [
        pid for pid, name in descendants(house.pid).items() if "ServeReplica:console" in name
    ]
    assert offices, descendants(house.pid)
    for pid in offices:
        os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        assert house.call("POST", "/policies/shop/rank", actions=[{"id": "a"}])["logged"]
    eventually(house.has_pages, "the pages are back", 120)
