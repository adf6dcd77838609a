"""Refreshing a policy's sources on schedule: a process is started when it is time, one at a time.

The process is ``banditloop refresh``. What it takes, and what becomes of it, is its own affair: it
yields to all others on the machine, and the artifact that serves goes on serving.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from banditloop_client.schemas import RefreshInfo
from policies.spec import PolicySpec
from policies.spec.refresh import Refresh
from policies.typed_yaml import encode_yaml
from serve_app.admin.refreshes import first_look_ms, is_running, read_refresh, write_refresh
from serve_app.host.lean_ray import environment_of_commands
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys

COMMAND = (sys.executable, "-c", "from serve_app.cli.main import main; main()", "refresh")
POLL_S = 1.0
SOONER = 8
"""After a failure the next attempt comes so many times sooner."""
END_S = 3.0
"""How long a refresh that is told to end may take to."""

log = logging.getLogger("banditloop.refresh")


class ScheduledRefresh:
    """Refreshes one policy every so often, by the log's clock.

    Args:
        client: this thread's own connection.
        spec: the policy, which says when.
        settings: of the service.
        address: of the Ray cluster, for a policy that is trained on it.
        command: what refreshes; it is given the spec's file and options.
    """

    def __init__(
        self,
        client: Redis,
        spec: PolicySpec,
        settings: Settings,
        *,
        address: str | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        assert isinstance(spec.refresh, Refresh)  # noqa: S101 - whoever makes this has looked
        self._client, self._keys = client, Keys(spec.name)
        self._clock = RedisLog(client, self._keys)
        self._spec, self._rule, self._settings = spec, spec.refresh, settings
        self._address, self._command = address, command

    def run(self, stop: threading.Event) -> None:
        """Refresh whenever it is time, until told to stop; an unreachable Redis ends nothing."""
        while not stop.is_set():
            try:
                if self.wait_ms() <= 0:
                    self.refresh(stop)
            except FAILURES as error:
                log.warning("%s is not refreshed (%s)", self._spec.name, type(error).__name__)
            stop.wait(POLL_S)

    def wait_ms(self) -> int:
        """Return how long it is until the next refresh; while one runs, as long as ever."""
        every = self._rule.every_ms
        if is_running(self._client, self._keys):
            return every
        last, now_ms = read_refresh(self._client, self._keys), self._clock.now_ms()
        if last is None:
            return first_look_ms(self._client, self._keys, now_ms) + every - now_ms
        return last.started_ms + (every // SOONER if last.outcome == "failed" else every) - now_ms

    def refresh(self, stop: threading.Event) -> None:
        """Refresh once, in a process of its own; note it where that dies without a word.

        Args:
            stop: ends the process, too.
        """
        began_ms = self._clock.now_ms()
        with tempfile.TemporaryDirectory(prefix="banditloop-refresh-") as name:
            file = Path(name) / "policy.yaml"
            file.write_bytes(encode_yaml(self._spec))
            status, said = self._run([*self._command, str(file), *self._options()], stop)
        if stop.is_set():
            return

        log.info("refresh of %s ended with status %d: %s", self._spec.name, status, said)
        last = read_refresh(self._client, self._keys)
        noted = last is not None and last.started_ms >= began_ms
        if not noted and not is_running(self._client, self._keys):
            info = RefreshInfo(
                "failed",
                began_ms,
                self._clock.now_ms(),
                by="the schedule",
                code="refresh_failed",
                message=f"it ended with status {status}: {said}",
            )
            write_refresh(self._client, self._keys, info)

    def _options(self) -> list[str]:
        niceness = ["--niceness", str(self._settings.learner_niceness)]
        on_ray = self._rule.on == "ray" and self._address is not None
        return [*niceness, *(["--address", str(self._address)] if on_ray else [])]

    def _run(self, command: Sequence[str], stop: threading.Event) -> tuple[int, str]:
        """Run a command to its end; return its status, and what it said last."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(  # noqa: S603 - this project's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )
            try:
                while process.poll() is None and not stop.wait(0.2):
                    pass
            finally:
                _end(process)
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
        return process.returncode, lines[-1] if lines else "it said nothing"

    def _environment(self) -> dict[str, str]:
        """Return the environment in which the command finds this service."""
        settings = self._settings
        found = {
            "BANDITLOOP_REDIS_URL": str(settings.redis_url),
            "BANDITLOOP_DATA_DIR": str(settings.data_dir),
            "BANDITLOOP_ARCHIVE": settings.archive_root() or "none",
        }
        if settings.salt is not None:
            found["BANDITLOOP_SALT"] = settings.salt.get_secret_value()
        return {**environment_of_commands(), **found}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started, unless it has ended."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
