"""A real browser, headless Chromium, driven by its DevTools protocol: what a page shows, and what its console says."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

PATIENCE_S = 60.0
QUIET = "--disable-background-networking --disable-component-update --disable-sync --no-first-run --disable-quic"
SAFE = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage"
DEMANDED = "BANDITLOOP_DEMAND_BROWSER"
"""Set where no test may be left out for want of a browser, as in CI."""


class Page:
    """One page.

    ``problems``: what its console said that is no mere remark, what it threw, what it could not
    load.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come meanwhile are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and said["type"] in {"error", "warning", "assert"}:
            self.problems.append(str(said["args"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] in {"error", "warning"}:
            self.problems.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif event == "Network.loadingFailed":
            self.problems.append(said["errorText"])
        elif event == "Network.responseReceived" and said["response"]["status"] >= 400:
            self.problems.append(f"{said['response']['status']} {said['response']['url']}")

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript gives there."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str, until: str = "true") -> None:
        """Go there, and wait until it is loaded and ``until`` holds.

        Or until there is a problem.
        """
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(
            f"document.readyState === 'complete' && location.href !== 'about:blank' && !!({until})"
        ):
            if self.problems:
                return
            assert time.monotonic() < deadline, f"{url}: not so: {until}"
            time.sleep(0.05)
        time.sleep(0.1)
        self.evaluate("1")  # events of the last moment come before its answer

    def text(self) -> str:
        """All that it says, also in what is folded up."""
        return str(self.evaluate("document.body.textContent"))


def chromium() -> str:
    """The browser that is installed; skips the test where none is, unless one is demanded."""
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    if binary is None:
        assert not os.environ.get(DEMANDED), "no Chromium is installed here"
        pytest.skip("no Chromium is installed here")
    return binary


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with nothing in it."""
    command = [
        chromium(),
        *SAFE.split(),
        *QUIET.split(),
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
    ]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*command, "about:blank"], stdout=output, stderr=output, start_new_session=True
        )
    try:
        port = _port(folder / "DevToolsActivePort", process)
        with httpx.Client(trust_env=False) as http:
            targets = http.get(f"http://127.0.0.1:{port}/json/list").json()
        url = next(each["webSocketDebuggerUrl"] for each in targets if each["type"] == "page")
        with connect(url, max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _port(path: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError, IndexError):
            return int(path.read_text().splitlines()[0])
        assert process.poll() is None, (path.parent / "output").read_text()
        assert time.monotonic() < deadline, "Chromium does not start"
        time.sleep(0.05)
