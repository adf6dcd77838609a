"""Who answers while Serve starts its HAProxy anew: another one, by the real HAProxy."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from serve_app.host import haproxy
from serve_app.host.environment import free_port
from serve_app.host.front import front_folder, standing_in
from serve_app.host.haproxy import knows_replicas, stand_in, tighten, without_frontend
from serve_app.host.http_server import HttpServer
from serve_app.host.own_ingress import door
from serve_app.settings import Settings

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux tells of a death")

SERVES = """global
    stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 3s
    timeout server 3s
    load-server-state-from-file global
frontend prometheus
    bind 127.0.0.1:9101
frontend http_frontend
    bind 127.0.0.1:{port}
    {route}
    default_backend default_backend
backend default_backend
    http-request return status 404
{backend}listen stats
    bind 127.0.0.1:8404
    stats enable
"""
ROUTE = "use_backend replicas"
BACKEND = "backend replicas\n    server a 127.0.0.1:{replica}\n"
BACKUP = "    server b 127.0.0.1:8500 check backup\n"


def serves(folder: Path, port: int, replica: int | None) -> str:
    """What Serve writes for its HAProxy, before and after it has heard of a replica."""
    return SERVES.format(
        folder=folder,
        port=port,
        route=ROUTE if replica else "",
        backend=BACKEND.format(replica=replica) if replica else "backend none\n" + BACKUP,
    )


def test_who_stands_in_opens_nothing_that_serves_own_will(tmp_path):
    config = tighten(serves(tmp_path, 8000, 30000), "192.0.2.1", "/e")
    kept = stand_in(config)
    assert [line.strip() for line in kept.splitlines() if "bind" in line] == ["bind 192.0.2.1:8000"]
    assert "socket" not in kept
    assert "server-state" not in kept
    assert {"backend replicas", "    server a 127.0.0.1:30000"} <= set(kept.splitlines())
    assert stand_in(kept) == kept


def test_one_that_knows_of_no_replica_can_leave_the_frontend_alone(tmp_path):
    early = tighten(serves(tmp_path, 8000, None), "127.0.0.1", "/e")
    assert not knows_replicas(early)
    assert knows_replicas(serves(tmp_path, 8000, 30000))
    assert "127.0.0.1:8000" not in without_frontend(early)
    assert [line for line in early.splitlines() if "8000" not in line] == [
        *without_frontend(early).splitlines()
    ]


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"pid": "x"}', '{"pid": 0}', "\0"])
def test_nobody_stands_in_where_nobody_is_noted(tmp_path, text):
    if text is not None:
        (tmp_path / haproxy.RUNNING).write_text(text)
    assert haproxy.stand_in_pid(tmp_path) == 0


def test_another_process_of_that_number_does_not_stand_in(tmp_path):
    (tmp_path / haproxy.RUNNING).write_text(f'{{"pid": {os.getpid()}}}')
    assert haproxy.stand_in_pid(tmp_path) == 0


class Service:
    """Serve's part: it starts HAProxy by the starter, and again with what it has heard since."""

    def __init__(self, folder: Path, replica: int) -> None:
        self.settings = Settings(data_dir=folder / "data")
        self.port = free_port()
        self.noted = front_folder(self.settings)
        self.noted.mkdir(parents=True)
        self._folder = folder
        self._replica = replica

    @contextlib.contextmanager
    def started(self, *, knows: bool, ends: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Start HAProxy, which takes the place of another."""
        config = self._folder / f"{knows}.cfg"
        config.write_text(
            stripped(serves(self._folder, self.port, self._replica if knows else None))
        )
        command = [sys.executable, "-I", haproxy.__file__, haproxy.bundled(), "127.0.0.1"]
        handed = [] if ends is None else ["-sf", str(ends)]
        with subprocess.Popen(
            [*command, str(self.noted), "-db", "-f", str(config), "-dR", *handed]
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def answering(self) -> int:
        """The process that is noted as the one that answers."""
        noted = (self.noted / haproxy.RUNNING).read_bytes()
        return int(msgspec.json.decode(noted)["pid"])


def stripped(config: str) -> str:
    """Without the ports that several tests would open at once."""
    return config.replace("127.0.0.1:9101", f"127.0.0.1:{free_port()}").replace(
        "127.0.0.1:8404", f"127.0.0.1:{free_port()}"
    )


@contextlib.asynccontextmanager
async def a_replica() -> AsyncIterator[int]:
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"decided"})

    port = free_port()
    server = HttpServer(app, idle_s=60.0)
    serving = asyncio.ensure_future(server.serve(*door("127.0.0.1", port)))
    while port not in haproxy.doors():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await serving


async def decided(port: int) -> None:
    """Wait until a replica answers through whoever listens."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient() as client:
                    answer = await client.get(f"http://127.0.0.1:{port}/")
                if answer.text == "decided":
                    return
            await asyncio.sleep(0.02)


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC240, ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.timeout(60)
async def test_a_killed_haproxy_is_stood_in_for_until_serves_own_knows_of_replicas(
    tmp_path, monkeypatch
):
    """One after the other: killed twice, then started anew in Serve's two steps, then the end."""
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    async with a_replica() as replica:
        service = Service(tmp_path, replica)
        with standing_in(service.settings), service.started(knows=True) as first:
            await decided(service.port)
            assert service.answering() == first.pid

            # Killed, and whoever stands in too.
            monkeypatch.setattr("serve_app.host.front.AGAIN_S", 0.0)
            first.kill()
            await decided(service.port)
            second = service.answering()
            assert second == haproxy.stand_in_pid(service.noted) != first.pid
            os.kill(second, 9)
            await decided(service.port)
            third = service.answering()
            assert third not in {first.pid, second}

            # Serve's next knows of no replica: it answers nobody. Then it does, and is alone.
            with service.started(knows=False) as early:
                for _ in range(10):
                    await decided(service.port)
                assert service.answering() == third
                with service.started(knows=True, ends=early.pid) as late:
                    await gone(third)
                    await decided(service.port)
                    assert service.answering() == late.pid

                    late.kill()
                    await decided(service.port)
                    last = service.answering()
                    assert last != late.pid

        # With the service nobody is left.
        await gone(last)


async def test_where_serve_is_its_own_front_nobody_watches(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    with standing_in(Settings(data_dir=tmp_path)):
        assert "front" not in {thread.name for thread in threading.enumerate()}
