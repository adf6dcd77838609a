"""The console as a plain ASGI application, over the public HTTP API."""

from serve_app.api.wire import HTML, Receive, Scope, Send

PAGE = b"<!doctype html><html lang=en><title>banditloop</title><h1>banditloop</h1>"


class ConsolePages:
    """Serves the pages; ``api_url``: of the service, ``needs_key``: whether it demands API keys."""

    def __init__(self, api_url: str, *, needs_key: bool) -> None:
        self.api_url = api_url
        self.needs_key = needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer one request."""
        if scope["type"] != "http":
            return
        length = str(len(PAGE)).encode()
        headers = [(b"content-type", HTML), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})


def console_app(api_url: str, *, needs_key: bool) -> ConsolePages:
    """Return the application.

    Args:
        api_url: where the service's HTTP API is.
        needs_key: whether it demands API keys.
    """
    return ConsolePages(api_url, needs_key=needs_key)
