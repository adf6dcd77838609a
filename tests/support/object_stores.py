"""A real S3-compatible server on a loopback port, and a proxy before it that fails as stores do."""

import contextlib
import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from pyarrow import fs

from serve_app.host.environment import free_port

BUCKET = "logs"
STARTED_WITHIN_S = 30.0
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


def store_uri(port: int, prefix: str = "archive", options: str = "") -> str:
    """The address of a folder in the bucket, as ``--archive`` takes it."""
    return (
        f"s3://user:secret@{BUCKET}/{prefix}?scheme=http&endpoint_override=127.0.0.1:{port}"
        f"&region=us-east-1{options}"
    )


@contextlib.contextmanager
def object_store() -> Iterator[int]:
    """Run moto's server, with an empty bucket; yields its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + STARTED_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                connection.request("GET", "/moto-api/")
                connection.getresponse().read()
                break
            assert process.poll() is None, "moto's server ended"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.05)

        system = fs.S3FileSystem(
            access_key="user",
            secret_key="secret",  # noqa: S106
            scheme="http",
            endpoint_override=f"127.0.0.1:{port}",
            region="us-east-1",
            allow_bucket_creation=True,
        )
        system.create_dir(BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Asked:
    """A request as the proxy saw it."""

    method: str
    path: str
    query: str
    range: str | None

    @property
    def lists(self) -> bool:
        """Whether it lists a folder."""
        return self.method == "GET" and "list-type=2" in self.query


@dataclass
class Fault:
    """What happens to the next ``times`` requests that ``of`` names.

    ``kind``: "slow down" (503), "hang" (no answer for ``hang_s``, then none at all), "drop" (the
    connection ends), or "unlisted" (a listing lacks the names in which ``hidden`` occurs).
    """

    kind: str
    of: Callable[[Asked], bool]
    times: float = 1
    hang_s: float = 10.0
    hidden: str = ""
    met: int = 0


@dataclass
class FaultyStore:
    """A proxy before a store. ``faults`` are looked at in order; ``asked`` is what was."""

    port: int
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0
    """Bytes of the answers to GET."""

    def fault_of(self, asked: Asked) -> Fault | None:
        """The fault that befalls a request."""
        for fault in self.faults:
            if fault.met < fault.times and fault.of(asked):
                fault.met += 1
                return fault
        return None

    def forget(self) -> None:
        """Start to count anew, without faults."""
        self.faults, self.asked, self.sent = [], [], 0


@contextlib.contextmanager
def faulty(target: int) -> Iterator[FaultyStore]:
    """Run a proxy before the store at port ``target``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxied)
    store = FaultyStore(server.server_address[1])
    server.store, server.target = store, target  # type: ignore[attr-defined]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Proxied(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def _pass_on(self) -> None:
        store: FaultyStore = self.server.store  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        asked = Asked(self.command, unquote(path), unquote(query), self.headers.get("Range"))
        body = self._body()
        store.asked.append(asked)

        fault = store.fault_of(asked)
        if fault is not None and fault.kind in {"hang", "drop"}:
            time.sleep(fault.hang_s if fault.kind == "hang" else 0.0)
            self.close_connection = True
            self.connection.close()
            return
        if fault is not None and fault.kind == "slow down":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return

        up = http.client.HTTPConnection("127.0.0.1", self.server.target)  # type: ignore[attr-defined]
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in {"expect", "connection", "transfer-encoding", "content-length"}
        }
        up.request(self.command, self.path, body, headers)
        answer = up.getresponse()
        data = answer.read()
        if fault is not None and fault.kind == "unlisted":
            data = _without(data, fault.hidden)
        if asked.method == "GET":
            store.sent += len(data)
        self._answer(answer.status, dict(answer.getheaders()), data)
        up.close()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(data)))
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815


def _without(listing: bytes, hidden: str) -> bytes:
    """A listing without the keys and folders in whose names ``hidden`` occurs."""
    pattern = re.compile(rb"<(Contents|CommonPrefixes)>.*?</\1>", re.DOTALL)
    return pattern.sub(lambda match: b"" if hidden.encode() in match[0] else match[0], listing)
