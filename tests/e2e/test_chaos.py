"""A short chaos run, one round per kind of damage. ``make chaos`` makes a hundred."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_nothing_is_lost_or_learned_twice_when_each_part_is_killed_once():
    command = [
        sys.executable,
        "tests/chaos/run.py",
        "--rounds",
        "11",
        "--seed",
        "7",
        "--learn",
        "as_it_arrives",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "11 kills" in done.stdout.splitlines()[-1]
