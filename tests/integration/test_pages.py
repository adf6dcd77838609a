"""Every page of the product opens in a real browser without a failure, and shows what it should."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from support.browser import Page, browser
from support.fakes import FakeService, fresh_ranker

from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import openapi_document
from serve_app.cli import main as cli
from serve_app.host.environment import free_port
from serve_app.replica.metrics import Metrics
from simulator.replay.page import html_page as html_of
from simulator.replay.report import NO_LOWER_END, EvaluationReport, LogSummary, SearchSummary, Trial


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_said_before(page):
    page.problems.clear()


# /docs

SPEC = PolicySpec("home")


@contextmanager
def served(api) -> Iterator[str]:
    """The API under a real server."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


async def scrape() -> bytes:
    return b"metrics 1\n"


def test_the_documentation_shows_every_operation_and_every_schema(page):
    """At /metrics, whose type is no JSON, an exception ended the page."""
    api = Api({"home": FakeService(fresh_ranker(SPEC))}, Metrics("test"), scrape)
    document = json.loads(openapi_document(ROUTES, "1"))
    with served(api) as url:
        page.open(f"{url}/docs", "document.querySelectorAll('#schemas details').length")
    assert page.problems == []
    operations = [
        (method.upper(), path) for path, each in document["paths"].items() for method in each
    ]
    assert len(operations) > 10
    rows = "[...document.querySelectorAll('#paths details')]"
    assert page.evaluate(
        f"{rows}.map(e=>[e.querySelector('.m').textContent,e.querySelector('code').textContent])"
    ) == [list(each) for each in operations]
    bodies = page.evaluate(f"{rows}.map(e=>e.textContent)")
    for (method, path), said in zip(operations, bodies, strict=True):
        operation = document["paths"][path][method.lower()]
        for status, response in operation["responses"].items():
            assert f"{status}:" in said
            assert response["description"] in said
            for kind, content in response.get("content", {}).items():
                schema = content.get("schema", {})
                assert (
                    schema.get("$ref", kind).split("/")[-1] in said
                    or json.dumps(schema)[1:5] in said
                )
    names = page.evaluate(
        "[...document.querySelectorAll('#schemas summary')].map(e=>e.textContent)"
    )
    assert names == list(document["components"]["schemas"])
    page.evaluate(f"{rows}.forEach(e=>e.open=true)")
    page.evaluate("document.querySelector('#paths a').click()")  # from an operation to a schema
    assert page.evaluate("document.querySelectorAll('#schemas details[open]').length") == 1
    assert page.problems == []


@pytest.mark.parametrize(
    "change",
    [
        lambda each: each["responses"]["200"].pop("content"),
        lambda each: each["responses"]["200"]["content"].update({"text/csv": {}}),
        lambda each: each["responses"]["200"].update(
            content={"image/png": {"schema": {"type": "string"}}}
        ),
        lambda each: each.pop("summary"),
        lambda each: each.pop("parameters", None),
        lambda each: each.update(
            requestBody={"content": {"text/plain": {}, "application/json": {"schema": True}}}
        ),
        lambda each: each["responses"].clear(),
    ],
)
def test_the_documentation_takes_whatever_openapi_allows(page, change):
    document = json.loads(openapi_document(ROUTES, "1"))
    for operations in document["paths"].values():
        for each in operations.values():
            if "200" in each["responses"]:
                change(each)
    document["paths"]["/livez"]["description"] = "of the path, not of a method"
    api = Api({}, Metrics("test"), scrape)
    api.backend.document = json.dumps(document).encode()
    with served(api) as url:
        page.open(f"{url}/docs", "document.querySelectorAll('#schemas details').length")
    assert page.problems == []
    assert page.evaluate("document.querySelectorAll('#paths details').length") >= 13


def test_a_document_that_does_not_come_is_said(page):
    """The page says so, and so does the test's own look at the console: it is not blind."""
    api = Api({}, Metrics("test"), scrape)
    api.backend.document = b"{"
    with served(api) as url:
        page.open(f"{url}/docs", "document.getElementById('paths').textContent.includes('Error')")
    assert "SyntaxError" in page.text()
    assert any("SyntaxError" in each for each in page.problems)


# replay's page

NASTY = "<img src=x onerror=alert(1)>&[x]"
ROWS = {
    "many": [
        (n, 1_732_000_000 + 600 * n, "abc"[n % 3], (0.5, 0.3, 0.2)[n % 3], n % 7 / 6)
        for n in range(900)
    ],
    "few": [(n, 1_732_000_000, "ab"[n % 2], 0.5, 1.0) for n in range(4)],
    "one": [(0, 1_732_000_000, "a", 1.0, 0.0)],
    "large": [(n, 1_732_000_000 + n, "abc"[n % 3], 1e-6, 1e9 * (n % 2)) for n in range(50)],
}
COLUMNS = (
    "{event_id: id, time: now, action: shown, actions: of, propensity: p, reward: click,"
    " context: [s]}"
)


def report_of(folder, rows, *arguments: str):
    """A replay's page, made by the command; its path."""
    lines = [f"{n},{1000 * at},{a},a|b|c,{p},{r},{n // 3}" for n, at, a, p, r in rows]
    (folder / "log.csv").write_text("\n".join(["id,now,shown,of,p,click,s", *lines]) + "\n")
    table = folder / "t.csv"
    table.write_text("action,probability\na,0.2\nb,0.3\nc,0.5\n")
    path = folder / "page.html"
    log = [
        "replay",
        "--log",
        str(folder / "log.csv"),
        "--format",
        "csv",
        "--columns",
        COLUMNS,
        "--html",
        str(path),
    ]
    cli.app([*log, *arguments], standalone_mode=False)
    return path


def looks_well(page: Page, path, *said: str) -> None:
    """Nothing failed, nothing is drawn nowhere, and it fits the window; all of this is said."""
    page.open(path.as_uri())
    assert page.problems == []
    text = page.text()
    for each in said:
        assert each in text
    assert "NaN" not in text
    nowhere = (
        "[...document.querySelectorAll('svg,svg"
        " *')].filter(e=>[...e.attributes].some(a=>/nan|inf/i.test(a.value)))"
    )
    assert page.evaluate(f"{nowhere}.map(e=>e.outerHTML)") == []
    outside = (
        "[...document.querySelectorAll('svg')].flatMap(s=>{const w=s.viewBox.baseVal;return"
        " [...s.querySelectorAll("
        "'rect,circle,polyline,line')].filter(e=>{const b=e.getBBox();return b.x<w.x-1||b.y<w.y-1||"
        "b.x+b.width>w.x+w.width+1||b.y+b.height>w.y+w.height+1}).map(e=>e.outerHTML)})"
    )
    assert page.evaluate(outside) == []
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("rows", ROWS)
def test_the_page_of_a_replay(page, tmp_path, rows):
    policy = f"{{kind: table, name: '{NASTY}', path: {tmp_path}/t.csv}}"
    path = report_of(tmp_path, ROWS[rows], "--policy", "uniform", "--policy", policy)
    looks_well(
        page, path, NASTY, "uniform", "logging", "snips", "switch_dr", f"{len(ROWS[rows]):,} rows"
    )


@pytest.mark.parametrize("method", ["progressive", "rejection"])
def test_the_page_of_a_policy_that_learned(page, tmp_path, method):
    (tmp_path / "home.yaml").write_text(
        "name: home\nlearner: {kind: ridge}\nexploration: {kind: lints}\n"
    )
    arguments = [
        "--policy",
        str(tmp_path / "home.yaml"),
        "--method",
        method,
        *["--bound", "5"] * (method == "rejection"),
    ]
    looks_well(page, report_of(tmp_path, ROWS["many"], *arguments), "home", method, "as it learned")
    assert page.evaluate("document.querySelectorAll('polyline').length") == 1


def test_the_page_of_sessions(page, tmp_path):
    arguments = ["--policy", "uniform", "--method", "sessions", "--session", "s", "--horizon", "3"]
    looks_well(page, report_of(tmp_path, ROWS["many"], *arguments), "uniform", "pdwis")


@pytest.mark.parametrize("value", [0.5, NO_LOWER_END, float("nan")])
def test_the_page_of_a_search(page, tmp_path, value):
    trials = [
        Trial(
            f"home-{NASTY}-{n}",
            rung,
            100 * (rung + 1),
            value if n else 0.4,
            value if n else 0.3,
            "weak",
            n == 0,
        )
        for rung in range(2)
        for n in range(3)
    ]
    summary = LogSummary(900, 0, 1_732_000_000_000, 1_732_000_900_000, 0.5, 0.1)
    report = EvaluationReport(summary, [], [], search=SearchSummary({"name": NASTY}, trials))
    path = tmp_path / "page.html"
    path.write_text(html_of(report), encoding="utf-8")
    looks_well(page, path, NASTY, "rung 2", "home")
