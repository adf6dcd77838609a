"""What a service needs and has not is said in one line, before Ray or Valkey start."""

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis
from support.servers import Server, binary_of
from support.small_artifact import make_artifact

from bandits.errors import BanditloopError
from policies.artifacts.fetch import load_artifact
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.artifacts.source_artifact import write
from policies.profiles.options import ProfileOptions
from policies.spec import ArtifactSource, PolicySpec
from serve_app.admin.preflight import demand_all
from serve_app.host.embedded import alone
from serve_app.host.environment import free_port
from serve_app.host.requirements import demand_cluster
from serve_app.settings import Settings
from serve_app.store.reachable import demand_redis
from serve_app.workers.learner_factory import learner_of_service

SECRET = "sikkrit-9f2"  # noqa: S105 - of nothing
SPEC = PolicySpec("home")
TIMEOUT_S = 1.0
SLACK_S = 3.0
"""A machine that has other things to do; without the bound it was more than two minutes."""


def refused(
    *specs: PolicySpec, address: str | None = None, within_s: float = TIMEOUT_S, **settings
) -> str:
    """Why a service does not start: one line, within the time, and without a password."""
    began = time.monotonic()
    with pytest.raises(BanditloopError) as error:
        demand_all(Settings(**{"port": free_port(), **settings}), specs or [SPEC], address)
    assert time.monotonic() - began < within_s + SLACK_S
    said = error.value.message
    assert "\n" not in said
    assert SECRET not in said
    assert "rrno" not in said
    assert ": " in said  # what to do
    return said


def test_what_becomes_of_an_artifacts_prior_is_said_before_the_start(tmp_path):
    """Brought, left out by --no-prior, and damaged: the service starts in each case."""
    rows = PriorRows.of(
        [PriorDecision.of({}, ["i00", "i01"], {}, np.array([1.0, 0.0], np.float32))]
    )
    spec = PolicySpec("home", sources=[ArtifactSource("als")], artifact="here")
    notes = {}
    for name, prior in (("whole", rows.encoded), ("cut", rows.encoded[:-1]), ("none", None)):
        write(replace(make_artifact(), prior=prior), tmp_path / name)
        asked = msgspec.structs.replace(spec, artifact=str(tmp_path / name))
        notes[name] = " ".join(demand_all(Settings(port=free_port()), [asked]))
        learner = learner_of_service(
            Settings(redis_url="redis://127.0.0.1:1", archive="none"),
            asked,
            0,
            load_artifact(str(tmp_path / name)),
        )
        assert (learner._declaration.prior is not None) == (name == "whole")

    whole = msgspec.structs.replace(spec, artifact=str(tmp_path / "whole"))
    (said,) = demand_all(Settings(port=free_port()), [whole.without_prior])
    assert "no prior: the spec says prior: none" in said
    assert "policy home: prior: 2 rows, each worth" in notes["whole"]
    assert "policy home: no prior: the artifact brings none" in notes["none"]
    assert "policy home: the artifact's prior is refused: no rows of a prior" in notes["cut"]


def test_a_policy_that_shares_users_without_profiles_is_told_what_that_means():
    home = PolicySpec("home", space="shop", profile=ProfileOptions())
    mail, alone = PolicySpec("mail", space="shop"), PolicySpec("news")
    (said,) = demand_all(Settings(port=free_port()), [home, mail, alone])
    assert "policy mail: it shares the space shop without profile" in said
    assert demand_all(Settings(port=free_port()), [mail, alone]) == []


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BANDITLOOP_REDIS_TIMEOUT_S", str(TIMEOUT_S))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    return tmp_path


def test_where_nothing_is_missing_nothing_is_said(tmp_path, valkey_url):
    demand_all(Settings(port=free_port(), redis_url=valkey_url), [SPEC])
    demand_all(Settings(port=free_port()), [SPEC])
    with redis.Redis.from_url(valkey_url) as client:
        time.sleep(0.05)
        assert not client.exists("bl:{needs}:try")  # what was tried is gone


# Redis


@contextlib.contextmanager
def listening(answer: bytes | None):
    """Somebody who takes connections; says this to whatever it is told, or nothing for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.recv(1024)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for each in kept:
            each.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            f"redis://:{SECRET}@127.0.0.1:1/0",
            "at 127.0.0.1:1 cannot be reached (Connection refused): start it",
        ),
        (f"redis://:{SECRET}@no-such-host.invalid:6399/0", "no-such-host.invalid:6399"),
        (f"rediss://:{SECRET}@127.0.0.1:1/0", "at 127.0.0.1:1 cannot be reached"),
        (f"redis+cluster://:{SECRET}@127.0.0.1:1", "at 127.0.0.1:1 cannot be reached"),
        ("unix:///no/such/socket", "/no/such/socket"),
        (f"rediss://:{SECRET}@127.0.0.1:1/0?ssl_ca_certs=/no/such.pem", "127.0.0.1:1"),
    ],
)
def test_a_redis_that_is_not_there(url, words):
    assert words in refused(redis_url=url)


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR what\r\n" * 9, b""]
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster"])
def test_somebody_who_is_no_redis(answer, scheme):
    with listening(answer) as port:
        assert f"127.0.0.1:{port}" in refused(redis_url=f"{scheme}://:{SECRET}@127.0.0.1:{port}/0")


@pytest.fixture
def server(tmp_path):
    with Server(binary_of("valkey"), tmp_path / "server") as server:
        yield server


def test_a_redis_that_hangs(server):
    server.send(signal.SIGSTOP)
    try:
        assert f"127.0.0.1:{server.port} does not answer within 1 s" in refused(
            redis_url=server.url
        )
    finally:
        server.send(signal.SIGCONT)


@pytest.mark.parametrize(
    ("commands", "scheme", "words"),
    [
        ([["CONFIG", "SET", "requirepass", "x"]], "redis://", "password"),
        ([["CONFIG", "SET", "requirepass", "x"]], f"redis://:{SECRET}@", "password"),
        (
            [["ACL", "SETUSER", "few", "on", f">{SECRET}", "~bl:*", "+ping"]],
            f"redis://few:{SECRET}@",
            "valkey.acl",
        ),
        (
            [["ACL", "SETUSER", "few", "on", f">{SECRET}", "~x:*", "+@all"]],
            f"redis://few:{SECRET}@",
            "valkey.acl",
        ),
        ([["REPLICAOF", "127.0.0.1", "1"]], "redis://", "is a replica and takes no writes"),
        (
            [["CONFIG", "SET", "maxmemory", "1mb"], ["CONFIG", "SET", "maxmemory", "1"]],
            "redis://",
            "maxmemory",
        ),
        ([["CONFIG", "SET", "min-replicas-to-write", "3"]], "redis://", "NOREPLICAS"),
        ([], "redis+cluster://", "redis://"),
        ([], "rediss://", "TLS"),
    ],
)
def test_a_redis_that_does_not_do_what_is_needed(server, commands, scheme, words):
    with server.client() as client:
        for command in commands:
            client.execute_command(*command)
    said = refused(redis_url=f"{scheme}127.0.0.1:{server.port}/0")
    assert f"127.0.0.1:{server.port}" in said
    assert words in said


def test_a_node_of_a_cluster_under_the_name_of_one_redis(cluster_url):
    said = refused(redis_url=cluster_url.replace("redis+cluster", "redis"))
    assert "redis+cluster://" in said
    demand_redis(cluster_url, TIMEOUT_S)


def test_a_certificate_that_nobody_vouches_for(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    new = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=x",
    ]
    command = [openssl, "req", *new, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    options = ["--port", "0", "--tls-auth-clients", "no", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(
        [binary_of("redis"), *tls, *options], stdout=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            if process.poll() is not None:
                pytest.skip("this Redis is built without TLS")
            # unknown; known, but of another host
            for settings in ("", f"?ssl_ca_certs={certificate}"):
                said = refused(redis_url=f"rediss://127.0.0.1:{port}/0{settings}")
                assert "certificate that is not to be trusted" in said
            assert (
                "ssl"
                in refused(redis_url=f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={key}").lower()
            )
            assert f"127.0.0.1:{port}" in refused(redis_url=f"redis://127.0.0.1:{port}/0")
        finally:
            process.terminate()


# The machine


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = refused(port=port)
        assert f"127.0.0.1:{port}: another process listens there" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "2001:db8::1"])
def test_an_address_that_is_not_this_machines(tmp_path, host):
    (tmp_path / "keys.yaml").write_text("{}\n")
    said = refused(host=host, keys_file=tmp_path / "keys.yaml", within_s=10)
    assert host in said
    assert "--host" in said


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nothing", "/sys/x", "lock"])
@pytest.mark.parametrize("what", ["data_dir", "archive"])
def test_a_folder_that_cannot_be_written(tmp_path, valkey_url, folder, what):
    (tmp_path / "file").write_text("text")
    (tmp_path / "lock" / "valkey").mkdir(parents=True)
    with alone(tmp_path / "lock" / "valkey"):
        if (folder, what) == ("lock", "archive"):
            return
        redis_url = None if folder == "lock" else valkey_url
        said = refused(
            redis_url=redis_url,
            **{what: folder if folder.startswith("/") else str(tmp_path / folder)},
        )
    assert folder in said
    assert f"--{what.replace('_', '-')}" in said


def test_a_salt_that_is_none(tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "salt").write_text("x")
    assert "16" in refused(data_dir=tmp_path / "short")
    (tmp_path / "folder" / "salt").mkdir(parents=True)
    assert "BANDITLOOP_SALT" in refused(data_dir=tmp_path / "folder")


UNREACHABLE = "endpoint_override=127.0.0.1:1&scheme=http&region=x"


@pytest.mark.parametrize(
    "archive",
    [
        f"s3://bucket/logs?{UNREACHABLE}&allow_bucket_creation=false",
        f"s3://key:{SECRET}@bucket/logs?{UNREACHABLE}",
        "nonsense://bucket/logs",
    ],
)
def test_an_object_store_that_is_not_there(archive, valkey_url):
    said = refused(archive=archive, redis_url=valkey_url, within_s=11)
    assert archive.partition("://")[0] in said


def test_a_web_server_is_no_object_store(valkey_url):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        where = f"s3://k:{SECRET}@bucket/logs?endpoint_override={at}&scheme=http&region=x"
        said = refused(archive=where, redis_url=valkey_url, within_s=11)
        server.shutdown()
    assert "s3://bucket/logs" in said
    assert "credentials" in said


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "public", "unknown"])
def test_a_keys_file_that_is_none(tmp_path, kind):
    path = tmp_path / "keys.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text({"text": "- [", "public": "{}", "unknown": "shop: {colour: red}"}[kind])
        path.chmod(0o666 if kind == "public" else 0o600)
    assert "keys.yaml" in refused(keys_file=path)


@pytest.mark.parametrize("kind", ["missing", "text", "fails"])
def test_a_haproxy_that_does_not_run(tmp_path, monkeypatch, kind):
    path = tmp_path / "haproxy"
    if kind != "missing":
        path.write_text("#!/bin/sh\nexit 3\n" if kind == "fails" else "text")
        path.chmod(0o700 if kind == "fails" else 0o600)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(path))
    said = refused()
    assert str(path) in said
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" in said


def test_specs_that_cannot_be_served(tmp_path):
    assert "name" in refused(SPEC, SPEC)
    assert "nothing" in refused(PolicySpec("home", artifact=str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:x", "127.0.0.1:99999"]
)
def test_a_ray_cluster_that_is_not_there(address, valkey_url):
    assert address in refused(address=address, redis_url=valkey_url, within_s=5)
    demand_cluster("auto", TIMEOUT_S)


def test_the_command_says_it_in_one_line_and_nothing_has_started(tmp_path):
    """The real command: it took 2 min 19 s, and spoke of a slow constructor."""
    environment = {**os.environ, "BANDITLOOP_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0"}
    command = [str(Path(sys.executable).parent / "banditloop"), "serve", "--port", str(free_port())]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error cannot_start: the Redis at 127.0.0.1:1 cannot be reached (Connection refused):"
        " start it, or see that its"
        " address is right, in --redis-url or BANDITLOOP_REDIS_URL\n"
    )
    assert not list(tmp_path.iterdir())
