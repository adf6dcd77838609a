"""Commands beside the service: they end with whoever wants them, wherever they were forked."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve_app.host.forking import client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's signals")
SCRIPT = """
import os, time
from serve_app.office.beside import end_with_input
end_with_input()
print(os.getpid(), flush=True)
sum(number for number in range(10**15))
"""
FORKING = """
import sys
from serve_app.host.forking.server import fork_server
with fork_server() as name:
    print(name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(name="script")
def _script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


@contextlib.contextmanager
def fork_server():
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()
        process.communicate()


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("is_forked", [False, True])
def test_a_command_ends_when_nobody_holds_its_input(script, is_forked):
    """It computes meanwhile, and looks at nothing."""
    with fork_server() if is_forked else contextlib.nullcontext() as forks:
        own = [sys.executable, script]
        asked = [sys.executable, "-I", "-S", client.__file__, str(forks), script]
        theirs, ours = os.pipe()
        with subprocess.Popen(
            asked if is_forked else own, stdin=theirs, stdout=subprocess.PIPE, text=True
        ) as process:
            os.close(theirs)
            pid = int(process.stdout.readline())
            assert is_running(pid)
            assert (pid != process.pid) == is_forked

            os.close(ours)
            deadline = time.monotonic() + 20
            while is_running(pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_one_whose_input_was_let_go_before_it_began_does_nothing(script):
    theirs, ours = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, script], stdin=theirs, capture_output=True, text=True, check=False
    )
    os.close(theirs)
    assert (done.returncode, done.stdout) == (1, "")
