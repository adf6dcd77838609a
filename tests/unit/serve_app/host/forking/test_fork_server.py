"""The fork server: its processes are what Python would have been, and nothing depends on it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve_app.host.forking import client
from serve_app.host.forking.client import pack_request, unpack_request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray is lean on Linux alone")
SCRIPT = """
import atexit, json, os, random, sys
imported = "colorsys" in sys.modules
atexit.register(lambda: print("last words", flush=True))
print(json.dumps({
    "name": __name__, "arguments": sys.argv, "folder": os.getcwd(), "imported": imported,
    "environment": dict(os.environ), "read": sys.stdin.read(), "drawn": random.random(),
    "pid": os.getpid(), "parent": os.getppid(),
    "group": os.getpgrp(),
}), flush=True)
print("complaint", file=sys.stderr, flush=True)
sys.exit(3)
"""
PROGRAM = """
import colorsys, sys
from serve_app.host.forking.server import fork_server
with fork_server() as name:
    print(name, flush=True)
    sys.stdin.read()
"""
RUBBISH = [b"", b"?", b"+", b"+7\0a\0b", b"+x\0a", b"+1\0only"]


@pytest.fixture(name="script")
def _script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@contextlib.contextmanager
def started():
    """A process that has a fork server, and the name of that one's socket."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, process.stdout.readline().strip()
        process.communicate()


@pytest.fixture(name="forks", scope="module")
def _forks():
    with started() as (_, name):
        yield name


def command(forks, *words):
    """What a raylet runs."""
    return [sys.executable, "-I", "-S", client.__file__, forks, *map(str, words)]


def begun(forks, script, *words, **given):
    """What a process says of itself, and what else it writes; it has ended when this returns."""
    process = subprocess.Popen(
        command(forks, script, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **given,
    )
    written, complaint = process.communicate("asked")
    said, *more = written.splitlines()
    return json.loads(said), more, complaint, process


def test_a_process_is_what_python_would_have_been(forks, script, tmp_path):
    environment = {"PATH": os.environ["PATH"], "NAME": "näme=\udcff"}
    said, more, complaint, started = begun(
        forks, script, "--flag=a b", "", cwd=tmp_path, env=environment
    )
    assert said["name"] == "__main__"
    assert said["arguments"] == [str(script), "--flag=a b", ""]
    assert said["folder"] == str(tmp_path)
    assert said["environment"].items() >= environment.items()
    assert said["read"] == "asked"
    assert more == ["last words"]
    assert complaint == "complaint\n"
    assert said["imported"]
    assert said["pid"] != started.pid
    assert said["group"] == said["pid"]


def test_two_processes_draw_different_numbers(forks, script):
    first, second = (begun(forks, script)[0] for _ in range(2))
    assert first["drawn"] != second["drawn"]
    assert first["parent"] == second["parent"]


def test_what_is_no_request_ends_nothing(forks, script):
    for rubbish in RUBBISH:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(f"\0{forks}")
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert begun(forks, script)[0]["imported"]


def test_without_a_server_a_process_starts_by_itself(script):
    said, more, _, process = begun("nobody", "-s", script)
    assert not said["imported"]
    assert said["pid"] == process.pid
    assert process.returncode == 3
    assert more == ["last words"]


def test_a_process_with_threads_says_that_it_cannot_fork():
    """What a thread holds, a lock or a connection, nobody would ever let go in a fork."""
    program = (
        "import threading; from serve_app.host.forking.server import can_fork; before = can_fork();"
        " threading.Thread(target=threading.Event().wait, daemon=True).start();"
        " print(before, can_fork())"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said.split() == ["True", "False"]


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_it_ends_with_whoever_started_it(number):
    with started() as (process, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if number is not None:
            process.send_signal(number)
    assert len(children) == 1
    deadline = time.monotonic() + 20
    while is_running(children[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_request_is_read_as_it_was_written():
    asked = ["a.py", "--x=1", ""], "/somewhere", {b"A": b"1=2", b"B": b""}
    assert unpack_request(pack_request(*asked)) == asked
