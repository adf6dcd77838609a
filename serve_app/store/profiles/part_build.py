"""Making a part of all profiles anew from its log, in a thread, while new entries are written."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from bandits.errors import BanditloopError
from bandits.log.positions import START
from policies.profiles.changes import PartChanges
from serve_app.store.clients import FAILURES
from serve_app.store.profiles.part_state import PartState
from serve_app.store.profiles.part_writer import PartFencedError, PartMovedError, PartWriter
from serve_app.store.profiles.spool import ChangeSpool

SAY_S = 1.0
"""How often it is said how far the log was read."""
AGAIN_S = 10.0
"""How long to wait before what has failed is begun anew."""

log = logging.getLogger("banditloop.profiles")

ReadChanges = Callable[[str], Iterator[tuple[str, PartChanges]]]
"""Reads a log from its beginning through a position: some changes, and the entry they go up to."""


class PartBuild:
    """Makes the part of one log anew, when that is due."""

    def __init__(self, writer: PartWriter, read: ReadChanges) -> None:
        """Make it.

        Args:
            writer: writes what is new meanwhile.
            read: reads the log from its beginning.
        """
        self._writer, self._read = writer, read
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failed_at = -AGAIN_S

    def begin_if_due(self) -> None:
        """Begin, if something is missing in the part and nobody makes it yet."""
        state = self._writer.state
        if state is None or state.is_whole or (self._thread and self._thread.is_alive()):
            return
        if time.monotonic() - self._failed_at >= AGAIN_S:
            self._thread = threading.Thread(
                target=self._run, args=(state,), name="profiles", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End what is being made; whoever leads next begins anew."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, state: PartState) -> None:
        part = self._writer.part
        try:
            began = time.monotonic()
            count = self.build(state)
            log.info("part %s: %d changes, in %.0f s", part, count, time.monotonic() - began)
        except (PartMovedError, PartFencedError):
            log.info("part %s is made by another", part)
        except (*FAILURES, BanditloopError) as error:
            log.warning("part %s cannot be made: %s; in %.0f s again", part, error, AGAIN_S)
            self._failed_at = time.monotonic()

    def build(self, state: PartState) -> int:
        """Read the log and write what is missing; return how many changes there were.

        Args:
            state: what the part is in.

        Raises:
            PartMovedError, PartFencedError, RedisError: see ``PartWriter.write_missing``.
            BanditloopError: the log cannot be read.
        """
        writer, built, said_at = self._writer, START, time.monotonic()
        with ChangeSpool(writer.rule) as spool:
            for through, changes in self._read(state.until):
                spool.add(changes)
                built = through
                if self._stop.is_set():
                    raise PartMovedError("stopped")
                if time.monotonic() - said_at >= SAY_S:
                    writer.note_built(built, state.epoch)
                    said_at = time.monotonic()

            writer.write_missing(spool.parts(), state.until, state.epoch)
            writer.note_built(state.until, state.epoch, whole=True)
            return spool.count
