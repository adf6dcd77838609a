"""Pages of whatever the API may answer: nothing yet, everything at once, and names with script in them."""

import html
import json
import re
from datetime import UTC, datetime
from functools import reduce

import httpx
import msgspec
import pytest
from support.fakes import FakeLog
from support.logs import archived, decision

from banditloop_client import console_schemas as schemas
from banditloop_client.explain_schemas import (
    ExplainedAction,
    ExplainedTerm,
    Explanation,
    SourceSaid,
)
from banditloop_client.schemas import (
    Chosen,
    PlacedItem,
    PolicyInfo,
    QuotaInfo,
    RefreshInfo,
    RefreshMeasure,
    SignalInfo,
    Trouble,
    UnplacedItem,
)
from banditloop_client.space_schemas import (
    FiledEvent,
    FiledProfile,
    HeldEntry,
    HeldEvent,
    HeldProfile,
    HeldShowing,
    UserExport,
)
from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord, TickRecord
from policies.items.catalogue import Catalogue
from policies.spec import Holdout, PolicySpec
from serve_app.console.site import console_site
from serve_app.console.visits import templates
from simulator.report.gather import read_policy
from simulator.report.make import policy_report_of

HOSTILE = "<script>alert(1)</script>\"'&"
SPEC = PolicySpec("p", join=JoinRule(window_s=2.0), holdout=Holdout(0.3))
NOW = datetime(2026, 11, 29, 20, tzinfo=UTC)
HOME = "/console/policies/p"


async def page_of(answer: object, path: str, status: int = 200, **headers: str) -> httpx.Response:
    """A page, where the API answers everything with one thing."""
    transport = httpx.MockTransport(
        lambda _: httpx.Response(status, content=msgspec.json.encode(answer))
    )
    site = httpx.ASGITransport(console_site("http://api", transport))
    async with httpx.AsyncClient(transport=site, base_url="http://console") as http:
        return await http.get(path, headers=headers)


def numbers(page: httpx.Response) -> list[tuple[str, object]]:
    found = re.findall(r'<data value="([^"]*)" data-of="([^"]*)"', page.text)
    return [(html.unescape(path), json.loads(html.unescape(value))) for value, path in found]


def under(answer: object, path: str) -> object:
    steps = path.split(".")
    return reduce(lambda at, step: at[int(step) if isinstance(at, list) else step], steps, answer)


def check(page: httpx.Response, answer: object, least: int) -> None:
    """The page is whole, its numbers are those that were answered, and nothing runs."""
    assert page.status_code == 200, page.text
    assert page.text.rstrip().endswith("</html>")
    assert "<script>alert" not in page.text
    told = msgspec.to_builtins(answer)
    shown = numbers(page)
    assert len(shown) >= least
    for path, value in shown:
        assert value == under(told, path), path


def report_of(folder, count: int, *, held=0.3, rewards=True) -> object:
    """The report of a log of so many decisions, as the command prints it."""
    log = FakeLog(SPEC)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(count):
        record = decision(
            f"e{number}",
            spec=SPEC.digest,
            catalogue=Catalogue().digest,
            context={"device": ("phone", HOSTILE)[number % 2]},
            user=f"u{number // 2}",
            holdout=number // 2 % 10 < 10 * held,
        )
        log.append(record, at=1000 * number + 10)
        if rewards and number % 3:
            log.append(RewardRecord(f"e{number}", 1.0), at=1000 * number + 20)
    log.append(TickRecord(), at=1000 * count + 10_000)
    archived(folder, log.entries, SPEC, blobs=log.blobs)
    report = policy_report_of("p", read_policy(str(folder), "p"))
    return msgspec.json.decode(msgspec.json.encode(report))


@pytest.mark.parametrize(
    ("count", "options"),
    [(0, {}), (1, {}), (40, {"rewards": False}), (40, {"held": 0.0}), (400, {})],
    ids=["no decision", "one", "no reward", "nobody held out", "many"],
)
async def test_a_report_has_a_page_whatever_the_log_is_like(tmp_path, count, options):
    report = report_of(tmp_path, count, **options)
    page = await page_of(report, f"{HOME}/report")
    check(page, report, least=2 if count < 2 else 10)
    assert report["verdict"]["code"] in page.text
    assert ("<svg" in page.text) == (count > 1)


async def test_what_a_later_report_says_besides_is_shown_as_well(tmp_path):
    """A part that has no place of its own on the page stands below, by its fields."""
    shadow = {"name": HOSTILE, "value": 0.5, "difference": {"low": None, "high": 1}}
    report = {**report_of(tmp_path, 1), "shadows": [shadow], "agreement": {"share": 0.25}}
    page = await page_of(report, f"{HOME}/report")
    check(page, report, least=4)
    assert "Shadows" in page.text
    assert dict(numbers(page))["agreement.share"] == 0.25


EXPLANATION = Explanation(
    HOSTILE,
    "lints",
    0.05,
    [
        ExplainedAction(
            HOSTILE,
            0.75,
            0,
            1.5,
            0.1,
            0.8,
            [ExplainedTerm([HOSTILE, "b"], 1.0, 0.5, 0.5), ExplainedTerm([], 1.0, 1.0, 1.0)],
            {HOSTILE: SourceSaid(0.5, 1)},
            -0.25,
        ),
        ExplainedAction("plain", 0.25),
    ],
    HOSTILE,
)
CANDIDATES = [
    schemas.DecisionCandidate(
        HOSTILE, 0.75, 0, {HOSTILE: SourceSaid(0.5, 1)}, 0.1, {HOSTILE: [HOSTILE]}
    ),
    schemas.DecisionCandidate("plain", 0.25),
]
EVENT = schemas.DecisionEvent(
    HOSTILE,
    "p",
    "1-1",
    1,
    NOW,
    "rewarded",
    NOW,
    {HOSTILE: HOSTILE, "hour": 3.0, "new": True},
    [Chosen(0, HOSTILE, 0.75)],
    CANDIDATES,
    "s",
    "spec",
    "catalogue",
    0.0,
    "first",
    "artifact",
    HOSTILE,
    erased=True,
    holdout=True,
    deferred=True,
    placed=[PlacedItem(1, HOSTILE)],
    unplaced=[UnplacedItem(2, HOSTILE, "twice")],
    removed=[schemas.RemovedActions(HOSTILE, [HOSTILE], 4)],
    failed={HOSTILE: HOSTILE},
    short=HOSTILE,
    filter=HOSTILE,
    credited=[HOSTILE],
    rewards=[schemas.LoggedReward("1-2", NOW, 1.0, "late", 0, HOSTILE, HOSTILE, HOSTILE)],
    earned=[schemas.EarnedSlot(0, HOSTILE, 1.0), schemas.EarnedSlot(1, "b", None)],
    rewards_read=False,
)
BESIDE = msgspec.structs.replace(
    EVENT,
    chosen=[Chosen(0, "plain", 1.0)],
    candidates=[
        schemas.DecisionCandidate(HOSTILE, 0.0, own=0.625),
        schemas.DecisionCandidate("plain", 1.0, 0, own=0.375),
    ],
    apprentice=schemas.OwnChoice("request", [Chosen(0, HOSTILE, 0.625)]),
)
BARE = msgspec.structs.replace(
    EVENT, outcome="open", erased=False, rewards=[], user=None, candidates=[], rewards_read=True
)
WHY = schemas.ExplainedEvent(
    "1-1", HOSTILE, "p", "s", HOSTILE, "equal", {}, [HOSTILE], [0.75], False, EXPLANATION
)
REFRESH = RefreshInfo(
    "refused",
    1000,
    2000,
    HOSTILE,
    "worse",
    HOSTILE,
    "a",
    [RefreshMeasure("recall", "users", HOSTILE, 10, None, 0.5)],
    {"refused": 1},
)


@pytest.mark.parametrize(
    ("path", "answer", "least"),
    [
        ("decisions", schemas.DecisionsPage([]), 0),
        (
            "decisions",
            schemas.DecisionsPage(
                [
                    schemas.DecisionSummary(
                        HOSTILE, "1-1", NOW, [Chosen(0, HOSTILE, 0.5)], "open", holdout=True
                    ),
                    schemas.DecisionSummary(
                        "b", "1-2", NOW, [], "rewarded", 2.5, [PlacedItem(0, HOSTILE)]
                    ),
                ],
                "1-1",
            ),
            2,
        ),
        (f"decision?event_id={HOSTILE.replace('&', '%26')}", EVENT, 12),
        ("decision?event_id=a", BARE, 4),
        ("decision?event_id=a", BESIDE, 12),
        ("why?event_id=a", WHY, 15),
        (
            "why?event_id=a",
            msgspec.structs.replace(WHY, verified="gone", explanation=None),
            0,
        ),
        ("snapshots", schemas.SnapshotsResponse(None, None, []), 0),
        (
            "snapshots",
            schemas.SnapshotsResponse(
                "a",
                "b",
                [
                    schemas.SnapshotSummary("a", "1-1", NOW, 5, 100, served=True, checkpoint=True),
                    schemas.SnapshotSummary("b", "1-0", NOW, 3, 100, pinned=True),
                    schemas.SnapshotSummary("c", corrupt=True),
                ],
            ),
            4,
        ),
        ("sources", schemas.SourcesResponse([]), 0),
        (
            "sources",
            schemas.SourcesResponse(
                [
                    schemas.SourceState(HOSTILE, "remote", 3, Trouble(HOSTILE, 1.0)),
                    schemas.SourceState("b", "fresh"),
                ],
                "a",
                "b",
                Trouble(HOSTILE, 1.0),
                REFRESH,
            ),
            4,
        ),
        (
            "findings",
            {
                "trusted": False,
                "decisions": 3,
                "unchecked": [HOSTILE],
                "findings": [
                    {
                        "check": "draws",
                        "severity": "failure",
                        "message": HOSTILE,
                        "cause": HOSTILE,
                        "action": HOSTILE,
                        "figures": {HOSTILE: HOSTILE, "rows": 3},
                    }
                ],
            },
            2,
        ),
    ],
)
async def test_a_page_of_nothing_and_one_of_everything(path, answer, least):
    page = await page_of(answer, f"{HOME}/{path}")
    check(page, answer, least)
    assert '<span class="which">p</span>' in page.text, "whose page it is"
    if HOSTILE in str(msgspec.to_builtins(answer)):
        assert "&lt;script&gt;" in page.text


async def test_a_decision_whose_name_has_spaces_is_opened_from_the_list():
    """What was typed is trimmed; what a list names is exactly that."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(httpx.URL(request.url).path)
        return httpx.Response(200, content=msgspec.json.encode(BARE))

    site = httpx.ASGITransport(console_site("http://api", httpx.MockTransport(answer)))
    async with httpx.AsyncClient(transport=site, base_url="http://console") as http:
        for more in ("&entry=1-1", ""):
            await http.get(f"{HOME}/decision?event_id=%20a%20{more}")
    assert [path.rsplit("/", 1)[1] for path in asked] == [" a ", "a"]


TROUBLED = PolicyInfo(
    policy="p",
    ready=False,
    snapshot_id=None,
    position=None,
    learned=0,
    items=3,
    sources=[HOSTILE],
    spec={},
    outcomes={"decisions": 7},
    source_troubles={HOSTILE: Trouble(HOSTILE, 1.5)},
    learning="stalled",
    reason=HOSTILE,
    artifact_trouble=Trouble(HOSTILE, 1.5),
    refresh=RefreshInfo("failed", 1, 2, message=HOSTILE),
    signals={HOSTILE: SignalInfo(2, 0.5)},
    quotas={HOSTILE: QuotaInfo(0.1, 0.2, 1.0, capped=True)},
    rule_troubles={"boost[0].when": HOSTILE},
)


@pytest.mark.parametrize("headers", [{"hx-request": "true"}, {}], ids=["its part", "the page"])
async def test_everything_that_is_wrong_with_a_policy_is_named(headers):
    """Also in the part of its page that is asked for again every few seconds."""
    path = f"{HOME}/state" if headers else HOME
    page = await page_of(TROUBLED, path, **headers)
    assert page.status_code == 200, page.text
    assert page.text.count('class="note ') == 7
    assert "boost[0].when" in page.text
    assert "<script>alert" not in page.text
    told = msgspec.to_builtins(TROUBLED)
    assert all(value == under(told, path) for path, value in numbers(page))


async def test_all_that_is_held_of_a_user_is_on_their_page():
    events = [HeldEvent(HOSTILE, HOSTILE, NOW)]
    held = UserExport(
        "s",
        "u",
        NOW,
        ["ab"],
        3,
        HeldProfile(False, events, [HeldShowing(HOSTILE, NOW)], {HOSTILE: {HOSTILE: 7}}),
        [FiledProfile(HOSTILE, [FiledEvent(HOSTILE, None, None, 9.0)])],
        [HeldEntry("activity", "1-0", NOW, "activity", {HOSTILE: HOSTILE})],
        more=True,
        keyed_logs=[HOSTILE],
    )
    page = await page_of(held, "/console/user?space=s&user_id=u")
    assert page.status_code == 200, page.text
    assert "<script>alert" not in page.text
    assert sorted(value for _, value in numbers(page)) == [3, 7, 9]


def test_every_template_imports_the_macros_that_it_uses():
    """What it is imported into may be asked for with other macros, or none."""
    env, lacking = templates(), {}
    texts = {name: env.loader.get_source(env, name)[0] for name in env.list_templates()}
    macros = set().union(*(re.findall(r"import \S+ as (\w+)", text) for text in texts.values()))
    assert {"parts", "state"} <= macros
    for name, text in texts.items():
        used = {macro for macro in macros if re.search(rf"\b{macro}\.\w+\(", text)}
        if lacks := used.difference(re.findall(r"import \S+ as (\w+)", text)):
            lacking[name] = lacks
    assert lacking == {}


def test_no_table_widens_its_page():
    """Each scrolls by itself: what somebody sent may be longer than a phone is wide."""
    env = templates()
    texts = {name: env.loader.get_source(env, name)[0] for name in env.list_templates()}
    tables = {name: text.count("<table") for name, text in texts.items() if "<table" in text}
    assert len(tables) >= 9
    alone = r"\{% call (?:parts\.)?wide\([^%]*%\}\s*<table"
    assert tables == {name: len(re.findall(alone, texts[name])) for name in tables}


async def test_each_slot_of_a_listed_page_is_on_one_line_with_its_propensity():
    """An id that is longer than the line is cut there, and whole where one points at it."""
    slots = [Chosen(slot, f"{slot}-{HOSTILE * 20}", 0.25) for slot in range(3)]
    listed = schemas.DecisionSummary("e", "1-1", NOW, slots, "open")
    page = await page_of(schemas.DecisionsPage([listed]), f"{HOME}/decisions")
    lines = re.findall(r'<div class="cut" title="([^"]*)">', page.text)
    assert [html.unescape(line) for line in lines] == [each.id for each in slots]
    assert [value for _, value in numbers(page)] == [0.25] * 3


async def test_a_part_that_takes_long_is_asked_for_again():
    """The page says so meanwhile; to whoever asked for a whole page, that the service is busy."""
    error = {"error": {"code": "still_working", "message": "ask again", "target": None}}
    part = await page_of(error, f"{HOME}/report?since=24h", 503, **{"hx-request": "true"})
    assert part.status_code == 200
    assert f'hx-get="{HOME}/report?since=24h"' in part.text
    whole = await page_of(error, f"{HOME}/report?since=24h", 503)
    assert whole.status_code == 503
    assert "Try again" in whole.text
