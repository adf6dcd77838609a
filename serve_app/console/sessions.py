"""Who looks: sessions that hold an API key, and what proves that a form came from these pages.

A key never leaves this process: the browser has a random name for it, in a cookie that no script
reads and that no other site's page sends along.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

COOKIE = "banditloop_console"
LASTS_S = 12 * 3600
AT_MOST = 10_000
"""Keys that are kept at a time; who signed in first is forgotten first."""


class Sessions:
    """The sessions of one process; when it ends, everybody signs in again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def start(self, key: str | None = None) -> str:
        """Return a fresh session's name; with a key, that is kept under it."""
        name = secrets.token_urlsafe(32)
        if key is not None:
            self._keys[name] = key, self._clock() + LASTS_S
            while len(self._keys) > AT_MOST:
                self._keys.popitem(last=False)
        return name

    def key_of(self, name: str) -> str | None:
        """Return the key of a session; None if it has none, or is over."""
        key, until = self._keys.get(name, (None, 0.0))
        if key is not None and self._clock() >= until:
            self.end(name)
            return None
        return key

    def end(self, name: str) -> None:
        """Forget a session's key."""
        self._keys.pop(name, None)

    def token(self, name: str) -> str:
        """Return what the forms of a session carry, which no other site knows."""
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()

    def is_from_here(self, name: str, token: str) -> bool:
        """Say whether a form was made for this session."""
        return bool(name) and hmac.compare_digest(self.token(name).encode(), token.encode())


def is_same_origin(request: HTTPConnection) -> bool:
    """Say whether a request comes from a page of this very origin, as the browser tells.

    A browser says so itself, or names the origin; a proxy in between may have changed the host.
    """
    headers = request.headers
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


def name_session(response: Response, name: str, *, secure: bool) -> None:
    """Have the browser keep a session's name.

    Args:
        response: that sets the cookie.
        name: of the session.
        secure: whether the page came by HTTPS.
    """
    response.set_cookie(
        COOKIE,
        name,
        max_age=LASTS_S,
        path="/console",
        httponly=True,
        samesite="strict",
        secure=secure,
    )


def came_by_https(request: HTTPConnection) -> bool:
    """Say whether the browser asked by HTTPS, be it of a proxy before this service."""
    said = request.headers.get("x-forwarded-proto", request.url.scheme)
    return said.partition(",")[0].strip() == "https"
