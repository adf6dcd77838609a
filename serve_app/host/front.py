"""Answering while Serve starts its HAProxy anew.

Serve takes a HAProxy that has ended, or the process of its own that started it, for dead after
1.5 s, and the next one answers 4 to 10 s later. Meanwhile another HAProxy stands in, on the
configuration that was the last to name replicas. It is started as soon as the kernel says that the
one before has ended, and ends when Serve's has heard of replicas (see ``haproxy``).

On one machine only: in front of a cluster is a load balancer, which sends requests to other nodes.
"""

import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serve_app.host import haproxy
from serve_app.settings import Settings

LOOK_S = 0.05
"""How often it is looked whether one that was started has come to answer, in seconds."""
START_S = 10.0
"""How long it may take for that."""
AGAIN_S = 1.0
"""At least between the starts of two, in seconds: one that ends at once would do so again."""
NOT_YET_S = 0.2
"""How often it is looked whether anybody answers, before one does."""
LOG = "stand-in.log"

log = logging.getLogger("banditloop.front")


class _Running(msgspec.Struct, frozen=True):
    """The HAProxy that answers, and what the starter is given for another in its place."""

    pid: int
    again: list[str]


def front_folder(settings: Settings) -> Path:
    """Return where is noted which HAProxy answers."""
    return settings.data_dir.resolve() / "front"


@contextlib.contextmanager
def standing_in(settings: Settings) -> Iterator[None]:
    """Have another HAProxy stand in for one that ends before the context does."""
    if not hasattr(os, "pidfd_open") or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        yield
        return

    ending, end = os.pipe()
    watch = _Watch(front_folder(settings), ending)
    thread = threading.Thread(target=watch.run, name="front", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(end)
        thread.join()
        os.close(ending)


class _Watch:
    """Who watches the HAProxy that answers. ``ending``: can be read once nobody is to stand in."""

    def __init__(self, folder: Path, ending: int) -> None:
        self._folder = folder
        self._ending = ending

    def run(self) -> None:
        """Watch, one after the other, those that answer, until nobody is to stand in.

        This is one thread for all: who stands in ends with the thread that started it.
        """
        started: subprocess.Popen[bytes] | None = None
        began = -AGAIN_S
        try:
            while not self._is_to_end():
                front = self._running()
                if front is None:
                    self._is_to_end(NOT_YET_S)
                    continue

                # Serve may have started another meanwhile.
                if self._lives(front.pid) or self._running() != front:
                    continue
                if self._is_to_end(began + AGAIN_S - time.monotonic()):
                    return

                log.warning("HAProxy has ended: another answers until Serve has started its own")
                began = time.monotonic()
                started = self._start(front)
        finally:
            if started is not None:
                started.terminate()
                started.wait()

    def _running(self) -> _Running | None:
        """Return who answers; None where nobody has been noted."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            text = (self._folder / haproxy.RUNNING).read_bytes()
            return msgspec.json.decode(text, type=_Running)
        return None

    def _lives(self, pid: int) -> bool:
        """Return False once a process has ended, True once nobody is to stand in any more."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            both = select.poll()
            both.register(process, select.POLLIN)
            both.register(self._ending)
            return all(descriptor != process for descriptor, _ in both.poll())
        finally:
            os.close(process)

    def _is_to_end(self, seconds: float = 0.0) -> bool:
        """Say whether nobody is to stand in any more; wait for it for some seconds."""
        ending = select.poll()
        ending.register(self._ending)
        return bool(ending.poll(max(seconds, 0.0) * 1000))

    def _start(self, front: _Running) -> "subprocess.Popen[bytes]":
        """Start one that stands in; return once it is noted, has ended, or took too long."""
        command = [sys.executable, "-I", str(Path(haproxy.__file__).resolve()), *front.again]
        with (self._folder / LOG).open("wb") as said:
            started = subprocess.Popen(command, stdout=said, stderr=said)  # noqa: S603 - ours

        # Nobody else takes leave of it, where Serve's has ended it.
        threading.Thread(target=started.wait, daemon=True).start()
        until = time.monotonic() + START_S
        while started.poll() is None and self._running() == front and time.monotonic() < until:
            if self._is_to_end(LOOK_S):
                break
        return started
