"""One request of a browser, as the pages see it, and what they answer it with."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from banditloop_client.errors import ServiceError
from banditloop_client.schemas import Endpoint
from serve_app.console import shown
from serve_app.console.located import Located, maybe, pairs, unlocated
from serve_app.console.service_api import ServiceApi
from serve_app.console.sessions import Sessions

HERE = Path(__file__).parent
STATIC = HERE / "static"
PATHS = {
    "overview": "/console/",
    "sign_in": "/console/sign-in",
    "sign_out": "/console/sign-out",
    "by_name": "/console/go",
    "users": "/console/users",
    "report": "/console/policies/{policy}",
    "state": "/console/policies/{policy}/state",
    "report_part": "/console/policies/{policy}/report",
    "decisions": "/console/policies/{policy}/decisions",
    "decision": "/console/policies/{policy}/decision",
    "why": "/console/policies/{policy}/why",
    "try": "/console/policies/{policy}/try",
    "snapshots": "/console/policies/{policy}/snapshots",
    "pin": "/console/policies/{policy}/pin",
    "unpin": "/console/policies/{policy}/unpin",
    "rollback": "/console/policies/{policy}/rollback",
    "sources": "/console/policies/{policy}/sources",
    "items": "/console/policies/{policy}/items",
    "item": "/console/policies/{policy}/item",
    "doctor": "/console/policies/{policy}/doctor",
    "doctor_part": "/console/policies/{policy}/findings",
    "user": "/console/user",
    "erase": "/console/erase",
    "erasure": "/console/erasure",
}
"""By page, its path. Ids stand behind it, in the query: a path cannot hold each of them."""
TABS = (
    ("report", "Report"),
    ("decisions", "Decisions"),
    ("try", "Try a request"),
    ("snapshots", "Snapshots"),
    ("sources", "Sources"),
    ("items", "Items"),
    ("doctor", "Doctor"),
)
HTMX = {
    "allowEval": False,
    "includeIndicatorStyles": False,
    "selfRequestsOnly": True,
    "historyCacheSize": 0,
    "responseHandling": [{"code": "204", "swap": False}, {"code": "...", "swap": True}],
}
"""What htmx may do: nothing that the pages' security policy forbids; refusals are shown, too."""
STILL_WORKING = "still_working"
"""The service's code for what takes longer than a request waits."""
REFUSED = {401: "Sign in", 403: "This key may not do that", 404: "There is no such thing"}


@dataclass
class PageVisit:
    """One request.

    Attributes:
        request: as Starlette has it.
        api: the service's.
        sessions: of everybody.
        session: the name of this one.
        key: the API key of the session; None: nobody has signed in.
        form: the fields that were posted.
    """

    request: Request
    api: ServiceApi
    sessions: Sessions
    session: str
    key: str | None
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> str:
        """The policy that the path names."""
        return str(self.request.path_params["policy"])

    @property
    def is_part(self) -> bool:
        """Whether a part of a page is asked for, to be put into one that is there."""
        return self.request.headers.get("hx-request") == "true"

    def asked(self, name: str) -> str:
        """Return what is asked behind the path; empty where nothing is."""
        return self.request.query_params.get(name, "")

    async def ask(
        self,
        endpoint: Endpoint[Any, Any],
        query: msgspec.Struct | None = None,
        body: Any = None,
        **parameters: str,
    ) -> Located:
        """Ask the service, with the rights of whoever looks.

        Args:
            endpoint: of the API.
            query: what is asked behind the path.
            body: what is sent; None: nothing.
            parameters: of the path, by name.

        Raises:
            ServiceError: it refused, or could not be reached.
        """
        sent = None if body is None else msgspec.json.encode(body)
        return await self.api.ask(endpoint, self.key, query, sent, **parameters)

    def page(self, template: str, here: str = "", status: int = 200, **values: Any) -> Response:
        """Return a page, or that part of it which was asked for.

        Args:
            template: its file.
            here: the page's name, for whoever reads where they are.
            status: of HTTP.
            values: what the template shows.
        """
        shown_to = {
            "here": here,
            "frame": "part.html" if self.is_part else "base.html",
            "form_token": self.sessions.token(self.session),
            "signed_in": self.key is not None,
        }
        html = templates().get_template(template).render({**shown_to, **values})
        return HTMLResponse(html, status)

    def go(self, name: str, **parameters: str) -> Response:
        """Send the browser to another page, by GET."""
        return RedirectResponse(link_to(name, **parameters), 303)

    def refused(self, error: ServiceError) -> Response:
        """Return what a page says that the service refused, or send to where a key is asked for."""
        if error.status == 401:
            back = self.request.url.path + (
                f"?{query}" if (query := self.request.url.query) else ""
            )
            sign_in = link_to("sign_in", next=back if self.request.method == "GET" else "")
            if self.is_part:
                return Response(status_code=200, headers={"hx-redirect": sign_in})
            return RedirectResponse(sign_in, 303)

        # What is made goes on while nobody waits for it: the page asks again by itself.
        if self.is_part and error.service_code == STILL_WORKING:
            again = f"{self.request.url.path}?{self.request.url.query}"
            return self.page("still.html", again=again)

        status = error.status or 502
        values: dict[str, Any] = {}
        if "policy" in self.request.path_params:
            values["policy"] = self.policy
        title = REFUSED.get(error.status, "The service cannot answer that now")
        if 400 <= status < 500 and error.status not in REFUSED:
            title = "That cannot be done so"
        return self.page("refused.html", status=status, error=error, heading=title, **values)


PageHandler = Callable[[PageVisit], Awaitable[Response]]


def link_to(name: str, **parameters: str) -> str:
    """Return the address of a page; parameters that its path does not have stand behind it.

    Args:
        name: of the page.
        parameters: by name; empty ones are left out.
    """
    path = PATHS[name]
    behind = {key: value for key, value in parameters.items() if f"{{{key}}}" not in path}
    query = urlencode({key: str(value) for key, value in behind.items() if str(value)})
    quoted = {key: quote(str(value), safe="") for key, value in parameters.items()}
    return path.format_map(quoted) + (f"?{query}" if query else "")


@cache
def static_link(name: str) -> str:
    """Return the address of a static file, which changes with what is in it."""
    digest = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"/console/static/{name}?v={digest}"


@cache
def templates() -> jinja2.Environment:
    """Return the templates: all that they are given is text, and shown as text."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    env.filters |= {
        "number": shown.shown_number,
        "change": shown.shown_change,
        "share": shown.shown_share,
        "moment": shown.shown_time,
        "span": shown.shown_span,
        "any_value": shown.shown_value,
        "brief": shown.shown_briefly,
        "as_json": shown.as_json,
        "in_words": shown.in_words,
        "plain": unlocated,
    }
    env.globals |= {
        "to": link_to,
        "static": static_link,
        "pairs": pairs,
        "maybe": maybe,
        "tabs": TABS,
        "htmx_config": Markup.escape(msgspec.json.encode(HTMX).decode()),
    }
    return env
