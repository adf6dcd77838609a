"""What is left open of the configuration that Ray writes for HAProxy: one frontend."""

import asyncio
import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest

from banditloop_client.schemas import ErrorResponse
from bandits.errors import StartupError
from serve_app.host import haproxy
from serve_app.host.environment import free_port, is_free
from serve_app.host.haproxy import bundled, tighten
from serve_app.host.http_server import HttpServer
from serve_app.host.loopback import (
    BINARY,
    CLUSTERS,
    check_ray_is_on_loopback,
    is_loopback,
    ray_on_loopback,
    refuse_open_doors,
)
from serve_app.host.own_ingress import door
from serve_app.settings import Settings

RAY = """global
    stats socket /tmp/x/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout client 3600s
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
    # bind is a word
backend http-app
    server a 127.0.0.1:30000 check
frontend grpc_frontend
    bind *:9000 proto h2
listen stats
  bind *:8404
  stats enable
"""


def binds(config: str) -> list[str]:
    return re.findall(r"^\s*bind (.*)$", config, re.MULTILINE)


HOSTS = ["127.0.0.1", "0.0.0.0", "::", "192.0.2.1"]  # noqa: S104 - what is tested


@pytest.mark.parametrize("host", HOSTS)
def test_only_the_services_own_frontend_is_where_the_settings_say(host):
    config = tighten(RAY, host, "/e")
    assert binds(config) == [
        "127.0.0.1:9101",
        f"{host}:8000",
        "127.0.0.1:9000 proto h2",
        "127.0.0.1:8404",
    ]
    assert "mode 600 level admin" in config
    assert (
        config.index("defaults")
        < config.index("timeout http-request 10s")
        < config.index("frontend")
    )
    assert tighten(config, host, "/e") == config


def test_a_timeout_that_ray_sets_is_left_alone():
    config = tighten(
        RAY.replace("timeout client", "timeout http-request 3s\n    timeout client"), "::1", "/e"
    )
    assert config.count("timeout http-request") == 1


@pytest.mark.parametrize("line", ["bind", "bind /run/x.sock", "bind fd@3", "bind *"])
def test_an_address_it_does_not_understand_is_no_service_rather_than_an_open_one(line):
    with pytest.raises(ValueError, match="bind"):
        tighten(RAY + f"frontend new\n    {line}\n", "127.0.0.1", "/e")


def test_lines_of_requests_are_made_for_whoever_has_said_where_to():
    """Or where Ray counts requests by them."""
    theirs = "global\n    log {} local0 info\ndefaults\n    log global\n    option httplog\n"
    nobody = tighten(theirs.format("127.0.0.1:514"), "127.0.0.1", "/e")
    assert "log global" not in nobody
    assert "httplog" not in nobody
    assert tighten(nobody, "127.0.0.1", "/e") == nobody
    for wanted in (
        theirs.format("/dev/log"),
        theirs.format("127.0.0.1:514") + 'frontend a\n    log-format-sd "%o"\n',
    ):
        assert {"    log global", "    option httplog"} <= {
            *tighten(wanted, "127.0.0.1", "/e").splitlines()
        }


def test_rays_template_still_has_what_is_looked_for():
    """Every bind of it is one that can be read, and the frontend has its name."""
    templates = (
        Path(pytest.importorskip("ray").__file__).parent
        / "serve"
        / "_private"
        / "haproxy_templates.py"
    )
    text = templates.read_text()
    assert f"frontend {haproxy.FRONTEND}\n" in text
    rendered = re.sub(r"\{\{[^}]*port[^}]*\}\}", "1", re.sub(r"\{\{[^}]*host[^}]*\}\}", "h", text))
    found = binds(rendered)
    assert len(found) == 4
    assert all(re.fullmatch(r"\S*:\d+.*", each) for each in found)
    assert "mode 666 level admin" in text
    assert "    log {{ config.log_target }} local0 info\n" in text
    assert "    log global\n    option httplog\n" in text
    assert haproxy.COUNTED in text
    assert [f"errorfile {status} " in text for status in (502, 503, 504)] == [True] * 3
    assert f"backend {haproxy.NO_ROUTE}\n    http-request return status 404 " in text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host):
    assert is_loopback(host)
    refuse_open_doors(Settings(host=host, keys_file=None))


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.0.2.1", "localhost.example.org", "128.0.0.1", ""],  # noqa: S104
)
def test_any_other_address_does(host, tmp_path):
    with pytest.raises(StartupError, match="keys") as refused:
        refuse_open_doors(Settings(host=host, keys_file=None))
    assert host in refused.value.message
    assert refused.value.target == "host"
    refuse_open_doors(Settings(host=host, keys_file=tmp_path / "keys.yaml"))


def test_the_starter_tightens_the_file_and_becomes_haproxy(tmp_path, monkeypatch):
    """Run as Ray runs it, with a binary that says what it was given."""
    binary = tmp_path / "real haproxy"
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    binary.chmod(0o755)
    config = tmp_path / "haproxy.cfg"
    config.write_text(RAY)
    monkeypatch.setenv(BINARY, str(binary))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    settings = Settings(host="192.0.2.1", data_dir=tmp_path / "data")
    with ray_on_loopback(settings) as inside:
        starter = Path(os.environ[BINARY])
        assert inside == "127.0.0.1"
        assert stat.S_IMODE(starter.stat().st_mode) == 0o700
        output = subprocess.check_output([starter, "-db", "-f", config, "-sf", "1"], text=True)
    assert os.environ[BINARY] == str(binary)
    assert output.split("\n") == ["-db", "-f", str(config), "-sf", "1", ""]
    assert "192.0.2.1:8000" in binds(config.read_text())


def test_without_haproxy_serves_own_proxy_is_given_the_host(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    with ray_on_loopback(Settings(host="192.0.2.1", data_dir=tmp_path)) as inside:
        assert inside == "192.0.2.1"


def test_a_ray_that_was_imported_too_early_is_not_served_on(monkeypatch):
    monkeypatch.setenv(CLUSTERS, "0")
    check_ray_is_on_loopback("127.0.0.1")
    with pytest.raises(StartupError, match="before ray is imported"):
        check_ray_is_on_loopback("192.0.2.1")
    monkeypatch.setenv(CLUSTERS, "1")
    check_ray_is_on_loopback("192.0.2.1")


def test_the_real_haproxy_accepts_what_was_tightened(tmp_path):
    config = tmp_path / "haproxy.cfg"
    sample = RAY.replace("/tmp/x", str(tmp_path))  # noqa: S108
    config.write_text(tighten(sample, "::1", "/e"))
    checked = subprocess.run(
        [bundled(), "-c", "-f", config], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


BACKENDS = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 3s
    timeout server 3s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend dead if {{ path_beg /dead }}
    use_backend replica if {{ path_beg /replica }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found."
backend replica
    server a 127.0.0.1:{replica}
backend dead
    server a 127.0.0.1:1
"""


class Replica(BaseHTTPRequestHandler):
    """Turns requests away as Serve does with a full queue, or as the API does at a key's rate."""

    def do_GET(self) -> None:
        kind, body = (
            ("text/plain", b"dropped")
            if self.path == "/replica/full"
            else ("application/json", b"{}")
        )
        self.send_response(429)
        self.send_header("content-type", kind)
        self.send_header("retry-after", "7")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_turned_away_gets_the_apis_json_error(tmp_path):
    """By the real HAProxy: before a replica with a full queue, one that is gone, and none yet."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as replica:
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        config.write_text(BACKENDS.format(folder=tmp_path, port=port, replica=replica.server_port))
        command = [
            sys.executable,
            "-I",
            haproxy.__file__,
            bundled(),
            "127.0.0.1",
            "",
            "-db",
            "-f",
            str(config),
        ]
        with (
            subprocess.Popen(command) as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            full = answered(client, "/replica/full")
            limited, dead, early = (
                client.get(path) for path in ("/replica/limited", "/dead", "/v1/policies/home")
            )
            process.terminate()
        replica.shutdown()
    assert (full.status_code, full.headers["retry-after"], full.json()) == (
        429,
        "1",
        haproxy.OVERLOADED,
    )
    assert (limited.status_code, limited.headers["retry-after"], limited.content) == (
        429,
        "7",
        b"{}",
    )
    for each in (dead, early):
        assert (each.status_code, each.headers["retry-after"], each.json()) == (
            503,
            "1",
            haproxy.UNAVAILABLE,
        )
    for each in (full, dead, early):
        assert each.headers["content-type"] == "application/json"
        assert msgspec.json.decode(each.content, type=ErrorResponse).error.message


async def test_a_replica_on_this_machine_is_reached_without_a_network(tmp_path):
    """By the real HAProxy: on the port that Ray has told it of nobody listens."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    port, replica = free_port(), free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(BACKENDS.format(folder=tmp_path, port=port, replica=replica))
    command = [sys.executable, "-I", haproxy.__file__, bundled(), "127.0.0.1", "", "-db"]
    server = HttpServer(app, idle_s=60.0)
    serving = asyncio.ensure_future(server.serve(*door("127.0.0.1", replica)))
    while replica not in haproxy.doors():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec(*command, "-f", str(config))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while is_free("127.0.0.1", port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert (await client.get("/replica/x")).text == "/replica/x"
    finally:
        process.terminate()
        await process.wait()
        server.should_exit = True
        await serving
    assert replica not in haproxy.doors()


def test_a_replica_elsewhere_is_reached_by_its_address():
    config = tighten(RAY, "127.0.0.1", "/e", {30001})
    assert "server a 127.0.0.1:30000 check" in config
    assert "server a abns@banditloop-replica-30000 check" in tighten(RAY, "::", "/e", {30000})
    far = RAY.replace("server a 127.0.0.1:", "server a 192.0.2.1:")
    assert "server a 192.0.2.1:30000 check" in tighten(far, "::", "/e", {30000})
    assert door("192.0.2.1", 30000) == []
    assert haproxy.doors("/no/such/file") == frozenset()


STARTER = (
    "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True);"
    " time.sleep(60)"
)


def test_it_ends_with_the_process_that_started_it(tmp_path):
    """However that ends, and with nobody else to see to it: left behind, it would keep the port."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(BACKENDS.format(folder=tmp_path, port=port, replica=1))
    command = [
        sys.executable,
        "-I",
        haproxy.__file__,
        bundled(),
        "127.0.0.1",
        "",
        "-db",
        "-f",
        str(config),
    ]
    with (
        subprocess.Popen(
            [sys.executable, "-c", STARTER, *command], stdout=subprocess.PIPE, text=True
        ) as starter,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        proxy = Path("/proc") / starter.stdout.readline().strip()
        assert answered(client, "/").status_code == 503
        assert (proxy / "comm").read_text() == "haproxy\n"
        starter.kill()
        for _ in range(200):
            if is_free("127.0.0.1", port):
                return
            time.sleep(0.05)
    os.kill(int(proxy.name), signal.SIGKILL)
    pytest.fail("it was still there")


def answered(client: httpx.Client, path: str) -> httpx.Response:
    """The first answer of a server that is starting."""
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            return client.get(path)
        time.sleep(0.05)
    pytest.fail("it does not answer")


def test_importing_the_script_costs_no_package():
    """It runs at every reload of HAProxy."""
    script = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    modules = subprocess.check_output(
        [sys.executable, "-I", "-c", script, haproxy.__file__], text=True
    ).split()
    assert not {"ray", "redis", "msgspec", "numpy", "pydantic"}.intersection(modules)
