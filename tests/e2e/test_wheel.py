"""The wheel, installed where there is no clone: the commands work from an empty folder."""

import os
import shutil
import signal
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "examples", "clients"]
PACKAGES = ["bandits", "policies", "serve_app", "simulator"]
INSIDE = """
from importlib.util import find_spec
from pathlib import Path

from policies import load_spec
from serve_app.cli import serve
from serve_app.cli.demo import run as demo
from serve_app.console.visits import STATIC, templates

for module in {packages}:
    origin = Path(find_spec(module).origin)
    assert origin.is_relative_to({environment!r}), origin
    assert (origin.parent / "py.typed").is_file(), module
assert templates().get_template("base.html") and (STATIC / "htmx.min.js").is_file()
print(load_spec(serve.EXAMPLE).name, load_spec(demo.EXAMPLE).name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: what earlier builds left in the clone is not in it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES + PACKAGES:
        if (ROOT / name).is_dir():
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skipped)
        else:
            shutil.copy(ROOT / name, folder / name)
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", "."], folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; its dependencies are those of the running Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder)]
    run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], folder)

    # A folder that a .pth file names comes last, and the .pth files in it do not count: a clone
    # that is installed there for editing stays unseen.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def run(command: list[str], cwd: Path) -> str:
    """What a command prints; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_what_the_commands_load(environment, empty):
    python = str(environment / "bin" / "python")
    assert "banditloop 0." in run([str(environment / "bin" / "banditloop"), "--version"], empty)
    script = INSIDE.format(packages=[*PACKAGES, "banditloop_client"], environment=str(environment))
    assert run([python, "-c", script], empty) == "home movielens\n"


@pytest.fixture
def service(environment, empty) -> Iterator[str]:
    port = free_port()
    with (empty / "output").open("w") as output:
        process = subprocess.Popen(
            [str(environment / "bin" / "banditloop"), "serve", "--port", str(port)],
            cwd=empty,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            print((empty / "output").read_text())  # noqa: T201 - why it did not start
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_it_serves_and_its_log_is_examined(service, environment, empty):
    wait_until_ready(service, timeout_s=120)
    with Client(service, "home") as home:
        assert home.rank(["news", "match"], context={"hour": 21}).logged
    said = run([str(environment / "bin" / "banditloop"), "doctor"], empty)
    assert "can be trusted" in said
