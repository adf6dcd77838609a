"""What an evaluation computes: a replay of the archive, by the command that anybody may give."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from serve_app.store.evaluations.kept import JudgedPolicy

LONGEST_S = 1800.0
ESTIMATOR = "snips"
POLICIES: Mapping[str, tuple[str, str]] = {
    "logging": ("online", "Online"),
    "first": ("baseline1", "Baseline"),
    "uniform": ("baselineRand", "Random"),
}
"""By what replay calls a policy, its name there and where it comes from."""
_RUN = "from serve_app.cli.main import main; main()"


def replay_command(log: str, start: str, end: str) -> Sequence[str]:
    """Return the command whose answer an evaluation is.

    Args:
        log: the archive of a policy.
        start: from when.
        end: until when.
    """
    policies = [word for name in POLICIES for word in ("--policy", name)]
    times = ("--since", start, "--until", end)
    return ("replay", "--log", log, *policies, "--estimator", ESTIMATOR, *times, "--json")


def judge_archive(log: str, start: str, end: str) -> tuple[list[JudgedPolicy], str]:
    """Return what each policy is worth on a part of an archive; or nothing, and why.

    Args:
        log: the archive of a policy.
        start: from when.
        end: until when.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(  # noqa: S603 - this program, with times that were read before
        ["nice", "-n", "10", sys.executable, "-c", _RUN, *replay_command(log, start, end)],  # noqa: S607
        env=inherited,
        capture_output=True,
        timeout=LONGEST_S,
        check=False,
    )
    try:
        report: dict[str, Any] = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        return [], done.stderr.decode(errors="replace").strip()[-300:]

    found: list[JudgedPolicy] = []
    for result in report["results"]:
        estimate = result["estimates"][ESTIMATOR]
        if estimate["value"] is None or None in estimate["interval"]:
            continue
        name, source = POLICIES[result["policy"]]
        low, high = estimate["interval"]
        found.append(JudgedPolicy(name, source, estimate["value"], low, high))
    return found, "" if found else "nothing of the log can be relied on"
