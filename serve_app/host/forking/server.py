"""The fork server: a process that has imported what Ray's processes need, and becomes them.

Each of Ray's processes is a Python that imports Ray, Serve and this project: two seconds of
processor time, and 60 to 200 MB of its own. The command that serves imports all of it once, and
forks the fork server before it has a thread or a connection, so that nothing is lost. Whenever Ray
wants a process (client.py asks for it), the server forks: the new one begins at once, and shares
with all others what none of them changes.

It ends with the service, whatever becomes of that: of a pipe between the two, the service holds the
other end. Nothing depends on it: where it has ended, a process starts as it always did.
"""

import atexit
import contextlib
import gc
import logging
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from serve_app.host.forking.client import STANDARD_FILES, STARTED, unpack_request

PATIENCE_S = 5.0
"""How long a request may take to arrive, and this process to end."""
OWN_FILES = Path("/proc/self/fd")
OWN_THREADS = Path("/proc/self/task")
_CREDENTIALS = struct.Struct("3i")
"""The process id, the user and the group of whoever asks."""


class Request(NamedTuple):
    """A process that is to be: its arguments, folder, environment and standard files."""

    arguments: list[str]
    folder: str
    environment: dict[bytes, bytes]
    files: list[int]


def can_fork() -> bool:
    """Say whether this process has one thread, as far as the system tells."""
    return OWN_THREADS.exists() and len(list(OWN_THREADS.iterdir())) == 1


@contextlib.contextmanager
def fork_server(begin: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Have this process's fork server for as long as this context lasts; yield its socket's name.

    Args:
        begin: what each new process does first, when its environment is what it is to be.
    """
    name = f"banditloop-forks-{secrets.token_hex(16)}"
    ends, lives = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{name}")  # of no file, so nothing is left behind
        listener.listen(64)
        pid = _start(listener, ends, begin)
    os.close(ends)
    try:
        yield name
    finally:
        os.close(lives)
        _wait(pid)


def _start(listener: socket.socket, ends: int, begin: Callable[[], object]) -> int:
    """Fork the server; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()

    # What is there now is of all processes: whoever looks for garbage need not look at it.
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid:
        return pid
    with _never_returning():
        os.setsid()
        _forget_command({*STANDARD_FILES, listener.fileno(), ends})
        request = wait_for_request(listener, ends)
        if request is not None:
            become(request, begin)
    raise AssertionError


@contextlib.contextmanager
def _never_returning() -> Iterator[None]:
    """Have this process end with the context: what called it is of the process before the fork."""
    status = 1
    try:
        yield
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forget_command(files: Collection[int]) -> None:
    """Undo what the command has set for itself.

    Args:
        files: those to keep: of the others, some are locks, and some have readers that wait for
            their end.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.excepthook = sys.__excepthook__
    logging.getLogger("banditloop").handlers.clear()
    for number in map(int, os.listdir(OWN_FILES)):  # noqa: PTH208 - names alone
        if number not in files:
            with contextlib.suppress(OSError):
                os.close(number)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STANDARD_FILES[0])
    os.close(nothing)


def _wait(pid: int) -> None:
    """Wait until the server has ended, or end it."""
    descriptor = os.pidfd_open(pid)
    try:
        if not select.select([descriptor], [], [], PATIENCE_S)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
    os.waitpid(pid, 0)


def wait_for_request(listener: socket.socket, ends: int) -> Request | None:
    """Fork for each request; return it in the new process, and None here once the service ends.

    Args:
        listener: the socket on which requests come.
        ends: the file that ends with the service.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a process ended
    looks = select.poll()
    looks.register(listener, select.POLLIN)
    looks.register(ends, select.POLLIN)
    while all(number != ends for number, _ in looks.poll()):
        connection, _ = listener.accept()
        with connection:
            request = _read(connection)
            if request is None:
                continue
            if os.fork() == 0:
                listener.close()
                os.close(ends)
                return request
            for number in request.files:
                os.close(number)
            with contextlib.suppress(OSError):
                connection.sendall(STARTED)
    return None


def _read(connection: socket.socket) -> Request | None:
    """Return what a connection asks for; None if it is nothing that can be done."""
    who = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(who)[1] != os.getuid():
        return None
    connection.settimeout(PATIENCE_S)
    first, files = b"", list[int]()
    asked: tuple[list[str], str, dict[bytes, bytes]] = [], "", {}
    try:
        first, files, _, _ = socket.recv_fds(connection, 1, len(STANDARD_FILES))
        parts = [connection.recv(1 << 16)]
        while parts[-1]:
            parts.append(connection.recv(1 << 16))
        asked = unpack_request(b"".join(parts))
    except (OSError, ValueError, IndexError):
        first = b""

    if first == STARTED and len(files) == len(STANDARD_FILES) and asked[0]:
        return Request(*asked, files)
    for number in files:
        os.close(number)
    return None


def become(request: Request, begin: Callable[[], object]) -> None:
    """Run a script as a Python does that was started with it.

    Args:
        request: which, and with what.
        begin: what is done first.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgrp()  # as whoever asked has: with a process, its group may be ended
    for number, standard in zip(request.files, STANDARD_FILES, strict=True):
        os.dup2(number, standard)
        os.close(number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering, closefd=False)
        for number, mode, buffering in zip(STANDARD_FILES, "rww", (-1, -1, 1), strict=True)
    )

    os.chdir(request.folder)
    os.environ.clear()
    os.environb.update(request.environment)
    begin()
    sys.argv = request.arguments
    runpy.run_path(sys.argv[0], run_name="__main__")
