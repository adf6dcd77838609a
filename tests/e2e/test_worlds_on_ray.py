"""Worlds as tasks of a Ray cluster of this machine: the same report, byte for byte, as in one process."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


def test_ray_gives_the_same_report(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from serve_app.cli.main import main; main()",
        "worlds",
        "--world",
        "drift",
    ]
    command += [
        "--policy",
        "ridge-epsilon",
        "--policy",
        "vw-epsilon",
        "--seeds",
        "2",
        "--rounds",
        "40",
    ]
    reports = []
    for number, where in enumerate((["--jobs", "1"], ["--address", "local"])):
        out = tmp_path / f"{number}.json"
        done = subprocess.run(
            [*command, *where, "--out", str(out)],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        reports.append(out.read_bytes())
    assert reports[0] == reports[1]
