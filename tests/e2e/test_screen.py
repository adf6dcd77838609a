"""What `banditloop serve` prints, from start to end: lines that its user can use, and none that alarm for nothing."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import descendants

from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

START = r"starting: Valkey, Ray, HAProxy, replicas \(about 20 s\)"
READY = r"ready  http://127\.0\.0\.1:\d+  policies: home  docs: http://127\.0\.0\.1:\d+/docs"
LOGS = r"logs: replicas and learners in /tmp/ray/session_latest/logs, Ray itself in \S+/serve\.log"
STOP = r"stopping"
BEFORE = r"stopped before it was ready"


class Running:
    """The command as a terminal has it: its own group of processes, all it prints in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "output"
        command = [
            str(Path(sys.executable).parent / "banditloop"),
            "serve",
            "--port",
            str(free_port()),
        ]
        command += ["--data-dir", str(folder / "data")]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def wait_for(self, pattern: str, path: Path | None = None, timeout_s: float = 150) -> None:
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self._text(path), re.MULTILINE):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.05)

    def _text(self, path: Path | None) -> str:
        with contextlib.suppress(OSError):
            return (path or self.output).read_text(errors="replace")
        return ""

    def ends(self) -> int:
        """Its exit status, once it and all that it had started are gone."""
        children = descendants(self.process.pid)
        status = self.process.wait(60)
        # Ray has processes that look for their parent now and then
        deadline = time.monotonic() + 60
        while any(_alive(pid) for pid in children):
            assert time.monotonic() < deadline, (
                status,
                {pid: each for pid, each in children.items() if _alive(pid)},
            )
            time.sleep(0.1)
        return status

    def said(self, *patterns: str) -> None:
        """These lines and no others; no escape of a terminal among them."""
        lines = self.lines
        assert len(lines) == len(patterns), lines
        for line, pattern in zip(lines, patterns, strict=True):
            assert re.fullmatch(pattern, line), lines


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def self_said(running: Running) -> str:
    """The end of both: the screen, and what Ray said."""
    return (
        "\n".join(running.lines)
        + (running.folder / "data" / "serve.log").read_text(errors="replace")[-3000:]
    )


@pytest.fixture
def running(tmp_path) -> Iterator[Running]:
    started = Running(tmp_path)
    yield started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.process.pid, signal.SIGKILL)
    started.process.wait()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_service_that_is_told_to_stop_when_it_is_ready(running, number):
    """SIGTERM for the process, as systemd sends it; Ctrl-C for its whole group, as a terminal does."""
    running.wait_for("^ready")
    if number == signal.SIGINT:
        os.killpg(running.process.pid, number)
        time.sleep(0.3)
        os.killpg(running.process.pid, number)  # impatience changes nothing
    else:
        running.process.send_signal(number)
    assert running.ends() == 0
    running.said(START, READY, LOGS, STOP)
    # Ray has said what Ray says
    assert (running.folder / "data" / "serve.log").read_text(errors="replace")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGTERM, 5.0, marks=pytest.mark.slow),
        (signal.SIGTERM, 9.0),
        pytest.param(signal.SIGINT, 7.0, marks=pytest.mark.slow),
    ],
)
def test_a_service_that_is_told_to_stop_while_it_starts(running, number, moment):
    """A trace of C++ came, if Ray had begun to start."""
    running.wait_for("^starting")
    time.sleep(moment)
    os.killpg(
        running.process.pid, number
    ) if number == signal.SIGINT else running.process.send_signal(number)
    status = running.ends()
    if status == 0:  # a quick machine: it was ready
        running.said(START, READY, LOGS, STOP)
        return
    # the second in the moment in which Ray connects
    assert status in {128 + number, -number}, self_said(running)
    running.said(START, *[BEFORE] * (status > 0))
