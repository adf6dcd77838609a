"""Builds of this project side by side: this one, and one of git in a folder of its own."""

import contextlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving.serve import SPECS, warmed
from benchmarks.serving.services import Service, banditloop

HERE = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit of this repository."""
    with tempfile.TemporaryDirectory(prefix="build-") as name:
        archive = Path(name) / "build.tar"
        command = ["git", "-C", str(HERE), "archive", "-o", str(archive), commit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git, on this repository
        if done.returncode:
            raise SystemExit(
                f"--against {commit}: {done.stderr.strip()} (a shallow clone? git fetch"
                " --unshallow)"
            )
        with tarfile.open(archive) as files:
            files.extractall(name, filter="data")
        archive.unlink()
        yield Path(name)


@contextlib.contextmanager
def build(code: Path, folder: Path) -> Iterator[Service]:
    """The service as the code in this folder has it, warmed up."""
    project = tomllib.loads((code / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["banditloop"].partition(":")
    start = [sys.executable, "-c", f"from {module} import {function}; {function}()"]
    environment = {"PYTHONPATH": f"{code}:{code / 'clients' / 'python'}"}
    with banditloop(folder, SPECS, command=start, environment=environment) as service:
        yield warmed(service)
