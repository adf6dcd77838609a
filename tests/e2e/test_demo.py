"""The demo, small: it trains, serves, learns, reports, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REWARDS = {"bandit", "cf", "deep", "popular", "random", "ids_only", "scores_only"}


def test_the_demo_reports_what_happened(tmp_path):
    command = [
        str(Path(sys.executable).parent / "banditloop"),
        *(
            "demo",
            "--rounds",
            "600",
            "--seed",
            "1",
            "--port",
            str(free_port()),
            "--out",
            "report.json",
        ),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rounds"] == 600
    assert report["seed"] == 1
    assert set(report["reward"]) == REWARDS
    assert all(0 <= value <= 1 for row in report["reward"].values() for value in row.values())
    bandit = report["reward"]["bandit"]["last_quarter"]
    best = max(report["reward"][name]["last_quarter"] for name in ("cf", "deep", "popular"))
    assert report["lift_over_best_source"] == pytest.approx(bandit / best)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert 0 < report["freshness_ms"]["p50"] <= report["freshness_ms"]["p99"]
    events = report["events"]
    assert events["decisions"] == 600
    assert events["rewards"] == sum(
        events[name] for name in ("joined", "late", "duplicate", "orphan", "early")
    )
    assert events["joined"] > 0
    assert report["freshness_ms"]["not_served"] == 0
    assert report["snapshots"] > 1
    assert report["propensity_audit"]["rederived"] == 600
    assert report["propensity_audit"]["sound"]
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]
