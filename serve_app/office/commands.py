"""What takes long is done by a command of ``banditloop``: its memory is gone afterwards.

So a page shows the very numbers that the command line gives.
"""

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from banditloop_client.schemas import ErrorBody, ErrorResponse
from bandits.errors import BanditloopError, OfficeBusyError, StillWorkingError
from serve_app.api.statuses import STATUS
from serve_app.api.wire import encode
from serve_app.host.forking import client

AT_ONCE = 2
MOST_WAITING = 16
KEPT_S, KEPT_TIMES, LONGEST_KEPT_S = 30.0, 12.0, 600.0
"""How long an answer is kept: so many times as long as it took, between these bounds.

Whoever looks again and again then costs a twelfth of a processor, and not all of one.
"""
PATIENCE_S = 25.0
"""How long a caller waits; the command goes on, and its answer is kept."""
LONGEST_S = 600.0
"""How long a command may take before it is ended."""
KINDS: Mapping[str, type[BanditloopError]] = {kind.code: kind for kind in STATUS}
BESIDE = Path(__file__).with_name("beside.py")
_ERROR = re.compile(r"^error (\w+): (.*)$", re.MULTILINE)

Command = tuple[str, ...]
Answered = tuple[int, bytes]
"""The status and the body of an answer."""


@dataclass(eq=False)
class _Run:
    """A command that runs, or has run: since when, its answer, and until when that is kept."""

    task: "asyncio.Task[Answered]"
    began_at: float
    kept_until: float | None = None


def program_of(forks: str | None) -> tuple[str, ...]:
    """Return what runs a command of ``banditloop``.

    A fork of a process that has imported everything begins at once; a Python of its own takes some
    two seconds of processor time before it does anything.

    Args:
        forks: the name of the fork server's socket; None: there is none.
    """
    own = (sys.executable, "-P", str(BESIDE))
    if forks is None:
        return own
    python, *rest = own
    return (python, "-I", "-S", client.__file__, forks, *rest)


class CommandRunner:
    """Runs commands, some at a time, each once for all who ask meanwhile.

    ``started``: how many were.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        program: Sequence[str],
        at_once: int = AT_ONCE,
        kept_s: float = KEPT_S,
        patience_s: float = PATIENCE_S,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run nothing yet.

        Args:
            environment: of the commands.
            program: what runs them: see ``program_of``.
            at_once: how many run at a time.
            kept_s: how long an answer is kept at least, in seconds.
            patience_s: how long a caller waits.
            longest_s: how long a command may take.
            clock: seconds.
        """
        self._environment, self._program = dict(environment), tuple(program)
        self._room = asyncio.Semaphore(at_once)
        self._kept_s, self._patience_s, self._longest_s = kept_s, patience_s, longest_s
        self._clock = clock
        self._runs: dict[Command, _Run] = {}
        self.started = 0

    async def answer(self, command: Command) -> Answered:
        """Return what a command prints as JSON, or the error that it ends with.

        Args:
            command: its arguments, behind ``banditloop``.

        Raises:
            OfficeBusyError: too many wait.
            StillWorkingError: it takes longer than a caller waits.
        """
        self._forget()
        run = self._runs.get(command)
        if run is None:
            if sum(each.kept_until is None for each in self._runs.values()) >= MOST_WAITING:
                raise OfficeBusyError("too many reports are being made: ask again", "console")
            task = asyncio.create_task(self._run(command))
            run = self._runs[command] = _Run(task, self._clock())
            run.task.add_done_callback(lambda _: self._ended(command))

        # Who goes away, or waits no longer, ends nothing: others may wait for the same.
        done, _ = await asyncio.wait([run.task], timeout=self._patience_s)
        if not done:
            raise StillWorkingError(
                f"banditloop {command[0]} is still at it: ask again, it goes on meanwhile",
                "console",
            )
        return run.task.result()

    async def stop(self) -> None:
        """End every command."""
        tasks = [each.task for each in self._runs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self) -> None:
        """Forget answers that are too old."""
        now = self._clock()
        for command, run in list(self._runs.items()):
            if run.kept_until is not None and now > run.kept_until:
                del self._runs[command]

    def _ended(self, command: Command) -> None:
        run = self._runs.get(command)
        if run is None:
            return
        now = self._clock()
        lasts_s = min(KEPT_TIMES * (now - run.began_at), LONGEST_KEPT_S)
        run.kept_until = now + max(self._kept_s, lasts_s)

        # A failure may be over when it is asked again.
        task = run.task
        if task.cancelled() or task.exception() is not None or task.result()[0] != OK:
            del self._runs[command]

    async def _run(self, command: Command) -> Answered:
        async with self._room:
            self.started += 1
            # The kernel ends a command whose other end of this is closed: see beside.py.
            theirs, ours = os.pipe()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._program,
                    *command,
                    stdin=theirs,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=self._environment,
                )
            except BaseException:
                os.close(ours)
                raise
            finally:
                os.close(theirs)

            try:
                async with asyncio.timeout(self._longest_s):
                    said, messages = await process.communicate()
            except TimeoutError:
                return _failure("overdue", f"it took more than {self._longest_s:g} s")
            finally:
                os.close(ours)
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        return _answered(said, messages.decode(errors="replace"))


OK, UNREACHABLE = 200, 503
GONE = frozenset({"cannot_start", "redis_failed", "system"})
"""Codes of a command that did not reach Redis, or the archive: there it may be again."""


def _answered(said: bytes, messages: str) -> Answered:
    """Return what a command has said, or its error. Its exit status is a verdict, not a failure."""
    with contextlib.suppress(msgspec.DecodeError):
        return OK, encode(msgspec.json.decode(said))
    errors = _ERROR.findall(messages)
    if not errors:
        last = messages.strip().rpartition("\n")[2]
        return _failure("error", f"the command said nothing that could be read: {last[:300]}")
    return _failure(*errors[-1])


def _failure(code: str, message: str) -> Answered:
    kind = KINDS.get(code)
    status = UNREACHABLE if code in GONE else 500 if kind is None else STATUS[kind]
    return status, encode(ErrorResponse(ErrorBody(code, message, TARGETS.get(code))))


TARGETS: Mapping[str, str] = {
    "unknown_event": "event_id",
    "data_unavailable": "since",
    "invalid_field": "entry",
}
"""The field at fault, by the code of an error: a command's one line does not say it."""
