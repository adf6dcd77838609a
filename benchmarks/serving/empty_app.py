"""An empty Ray Serve application behind HAProxy, in banditloop's configuration: what any answer costs at least.

python -m benchmarks.serving.empty_app --port 8000
"""

import argparse
import signal
import threading

from serve_app.host.environment import prepare_environment

prepare_environment()

import ray  # noqa: E402
from ray import serve  # noqa: E402

ANSWER = b"{}"
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def application(scope, receive, send) -> None:  # noqa: ANN001
    """Read the body, answer."""
    if scope["type"] == "http":
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})


class Empty:
    """Nothing but the application."""

    def __serve_build_asgi_app__(self):  # noqa: ANN204
        """Called by Serve."""
        return application


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    options = {
        "max_ongoing_requests": 100,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    serve.run(serve.deployment(serve.ingress()(Empty), name="empty").options(**options).bind())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
