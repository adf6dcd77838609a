"""The pages that come first: signing in, and all policies at a glance."""

import asyncio
from collections.abc import Mapping

from starlette.responses import RedirectResponse, Response

from banditloop_client.errors import ServiceError
from banditloop_client.schemas import POLICIES, POLICY
from serve_app.console.located import Located
from serve_app.console.visits import PageHandler, PageVisit, link_to

UNKNOWN_KEY = 401


async def show_sign_in(visit: PageVisit) -> Response:
    """Ask for an API key."""
    return visit.page("sign_in.html", error="", next=_path_of(visit.asked("next")))


async def sign_in(visit: PageVisit) -> Response:
    """Start a session with a key, if the service knows it; what it may do, each page shows."""
    key, back = visit.form.get("key", "").strip(), _path_of(visit.form.get("next", ""))
    try:
        await visit.api.ask(POLICIES, key)
    except ServiceError as error:
        if error.status != 403:
            status, said = error.status or 502, error.message
            return visit.page("sign_in.html", status=status, error=said, next=back)

    visit.session = visit.sessions.start(key)
    return RedirectResponse(back or link_to("overview"), 303)


async def sign_out(visit: PageVisit) -> Response:
    """End a session."""
    visit.sessions.end(visit.session)
    visit.session = visit.sessions.start()
    return visit.go("sign_in")


async def show_overview(visit: PageVisit) -> Response:
    """Show all policies at a glance, and what needs somebody to look at it."""
    try:
        names = [str(name) for name in (await visit.ask(POLICIES)).policies]
    except ServiceError as error:
        if error.status != 403:
            raise
        return visit.page("by_name.html", "overview", error=error)

    found = await asyncio.gather(*(_policy(visit, name) for name in names))
    return visit.page("overview.html", "overview", policies=found)


async def go_by_name(visit: PageVisit) -> Response:
    """Go to the policy that was typed."""
    name = visit.asked("policy").strip()
    return visit.go("report", policy=name) if name else visit.go("overview")


async def _policy(visit: PageVisit, name: str) -> tuple[str, Located | ServiceError]:
    try:
        return name, await visit.ask(POLICY, policy=name)
    except ServiceError as error:
        if error.status == UNKNOWN_KEY:
            raise
        return name, error


def _path_of(text: str) -> str:
    """Return where to go after signing in: a page of the console, or empty."""
    inside = text.startswith("/console/") and "\\" not in text and "\n" not in text
    return text if inside else ""


ENTRY_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "sign_in"): show_sign_in,
    ("POST", "sign_in"): sign_in,
    ("POST", "sign_out"): sign_out,
    ("GET", "overview"): show_overview,
    ("GET", "by_name"): go_by_name,
}
