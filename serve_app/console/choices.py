"""The pages of decisions: the newest, one of them and why it is so, and one that is only tried."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from banditloop_client.console_schemas import (
    DECISIONS,
    EVENT,
    EXPLAIN,
    PREVIEW,
    DecisionsQuery,
    EventQuery,
)
from banditloop_client.errors import ServiceError
from serve_app.console.located import maybe, unlocated
from serve_app.console.visits import PageHandler, PageVisit

SHOWN_CANDIDATES = 50
FIELDS = ("user_id", "context", "actions", "slots", "filter")
WRONG = {
    "context": 'this is no JSON object, such as {"device": "phone"}',
    "actions": 'this is no JSON list, such as [{"id": "news"}]',
    "slots": "this is no number of slots, such as 3",
}
"""What is said of a field that is no JSON."""
EMPTY = {"user_id": "", "context": "{}", "actions": "", "slots": "1", "filter": ""}


async def show_decisions(visit: PageVisit) -> Response:
    """Show the newest decisions, or those for one user."""
    user_id, before = visit.asked("user_id"), visit.asked("before")
    query = DecisionsQuery(before=before, user_id=user_id)
    found = await visit.ask(DECISIONS, query, policy=visit.policy)
    return visit.page(
        "decisions.html",
        "decisions",
        policy=visit.policy,
        found=found,
        user_id=user_id,
        before=before,
    )


async def show_decision(visit: PageVisit) -> Response:
    """Show a decision: what it was among, what was drawn, and what came of it."""
    query = EventQuery(visit.asked("entry"))
    # What a list names is exactly that; what somebody has typed, or pasted, may have spaces around.
    event_id = visit.asked("event_id")
    if not query.entry:
        event_id = event_id.strip()
    if not event_id:
        return visit.go("decisions", policy=visit.policy)

    event = await visit.ask(EVENT, query, policy=visit.policy, event_id=event_id)
    return visit.page(
        "decision.html",
        "decisions",
        policy=visit.policy,
        event=event,
        most=SHOWN_CANDIDATES,
        source_names=source_names(event.candidates),
    )


async def show_why(visit: PageVisit) -> Response:
    """Show why a decision is as it is."""
    event_id, query = visit.asked("event_id"), EventQuery(visit.asked("entry"))
    why = await visit.ask(EXPLAIN, query, policy=visit.policy, event_id=event_id)
    names = source_names(maybe(why, "explanation", "actions") or ())
    return visit.page("why.html", "decisions", policy=visit.policy, why=why, source_names=names)


async def show_trial(visit: PageVisit) -> Response:
    """Ask for a request to try."""
    filled = {**EMPTY, **{name: visit.asked(name) for name in FIELDS if visit.asked(name)}}
    return visit.page("try.html", "try", policy=visit.policy, filled=filled, error=None)


async def try_request(visit: PageVisit) -> Response:
    """Show what would be decided for a request, and why."""
    filled = {name: visit.form.get(name, "").strip() for name in FIELDS}
    values: dict[str, Any] = {"policy": visit.policy, "filled": filled, "error": None}
    try:
        decided = await visit.ask(PREVIEW, body=_request_of(filled), policy=visit.policy)
    except ServiceError as error:
        if error.status in {0, 401, 403, 404}:
            raise
        return visit.page("try.html", "try", status=error.status, **{**values, "error": error})

    names = source_names(decided.candidates)
    return visit.page("try.html", "try", decided=decided, source_names=names, **values)


def _request_of(filled: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of a request, without the fields that were left empty.

    Raises:
        ServiceError: a field is no JSON, or no number.
    """
    asked: dict[str, Any] = {}
    for name in ("user_id", "filter"):
        if filled[name]:
            asked[name] = filled[name]
    for name in ("context", "actions", "slots"):
        if not filled[name]:
            continue
        try:
            asked[name] = msgspec.json.decode(filled[name])
        except msgspec.DecodeError as error:
            wrong = WRONG[name]
            raise ServiceError(422, "malformed_json", f"{wrong} ({error})", name) from error
    return asked


def source_names(actions: Any) -> list[str]:
    """Return the names of the sources that said anything of some actions."""
    found = {name for each in actions for name in unlocated(maybe(each, "sources")) or ()}
    return sorted(found)


CHOICE_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "decisions"): show_decisions,
    ("GET", "decision"): show_decision,
    ("GET", "why"): show_why,
    ("GET", "try"): show_trial,
    ("POST", "try"): try_request,
}
