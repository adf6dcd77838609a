"""The pages that say how a policy does: its state, its report, and what the doctor finds."""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from banditloop_client.console_schemas import DOCTOR, REPORT, ReportQuery
from banditloop_client.schemas import POLICY
from serve_app.console.charts import ChartLine, line_chart
from serve_app.console.located import Located, maybe, pairs, unlocated
from serve_app.console.shown import moment_text
from serve_app.console.visits import PageHandler, PageVisit

TONES = {"better": "good", "worse": "bad", "log_untrusted": "bad", "assignment_broken": "bad"}
"""The tone of a verdict, by its code; others are between."""
KNOWN_PARTS = frozenset(
    (
        *("policy", "range", "verdict", "cautions", "uplift", "assignment", "segments", "signals"),
        *("times", "choices", "looked_at", "coverage", "sources", "exploration", "drifts"),
        *("findings", "outcomes"),
    )
)
"""The parts of a report that have a place of their own on its page; others are shown below."""


async def show_policy(visit: PageVisit) -> Response:
    """Show how a policy stands; its report is asked for by the page."""
    info = await visit.ask(POLICY, policy=visit.policy)
    since = visit.asked("since")
    return visit.page("policy.html", "report", policy=visit.policy, info=info, since=since)


async def show_state(visit: PageVisit) -> Response:
    """Show how a policy stands just now."""
    info = await visit.ask(POLICY, policy=visit.policy)
    return visit.page("state_part.html", "report", policy=visit.policy, info=info)


async def show_report(visit: PageVisit) -> Response:
    """Show what a policy is worth."""
    query = ReportQuery(since=visit.asked("since"))
    report = await visit.ask(REPORT, query, policy=visit.policy)
    others = [(name, part) for name, part in pairs(report) if name not in KNOWN_PARTS and part]
    return visit.page(
        "report.html",
        "report",
        policy=visit.policy,
        report=report,
        tones=TONES,
        looks_chart=looks_chart(report),
        times_chart=rewards_chart(report),
        has_holdout=bool(report.uplift),
        others=others,
    )


async def show_doctor(visit: PageVisit) -> Response:
    """Show the page that asks the doctor."""
    return visit.page("doctor.html", "doctor", policy=visit.policy)


async def show_findings(visit: PageVisit) -> Response:
    """Show what the doctor finds."""
    found = await visit.ask(DOCTOR, policy=visit.policy)
    return visit.page("findings.html", "doctor", policy=visit.policy, found=found)


def looks_chart(report: Located) -> Markup:
    """Return the uplift and its interval as they were at each look."""
    every = unlocated(maybe(report, "uplift", "looks")) or ()
    looks = [each for each in every if _known(each, "low")]
    if len(looks) < 2:
        return Markup()
    line = ChartLine(
        "difference",
        [(each["decisions"], _number(each["difference"])) for each in looks],
        [_number(each["low"]) for each in looks],
        [_number(each["high"]) for each in looks],
    )
    first, last = (f"{each['decisions']:,} decisions" for each in (looks[0], looks[-1]))
    return line_chart([line], "the uplift and its interval at each look", (first, last), zero=True)


def rewards_chart(report: Located) -> Markup:
    """Return the mean reward of each stretch of the log, by group."""
    times = unlocated(report.times)
    lines = [
        ChartLine(name, [(each["start_ms"], _number(each[name])) for each in times])
        for name in ("policy", "holdout")
    ]
    if len(times) < 2:
        return Markup()
    ends = moment_text(times[0]["start_ms"]), moment_text(times[-1]["start_ms"])
    return line_chart(lines, "mean rewards over time", ends)


def _known(part: Mapping[str, Any], name: str) -> bool:
    return part[name] is not None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


WORTH_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "report"): show_policy,
    ("GET", "state"): show_state,
    ("GET", "report_part"): show_report,
    ("GET", "doctor"): show_doctor,
    ("GET", "doctor_part"): show_findings,
}
