"""What an evaluation computes: a replay of the archive, by the command that anybody may give."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from policies.personalizer.arguments import read_policy_arguments, with_arguments
from policies.spec import PolicySpec
from serve_app.store.evaluations.kept import ONLINE, JudgedPolicy

LONGEST_S = 1800.0
ESTIMATOR = "snips"
Z_95 = 1.959963984540054
POLICIES: Mapping[str, tuple[str, str]] = {
    "logging": ("online", ONLINE),
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


def learning_command(log: str, start: str, end: str, spec: str) -> Sequence[str]:
    """Return the command whose answer is that of a policy which learns from nothing on the way.

    Args:
        log: the archive of a policy.
        start: from when.
        end: until when.
        spec: the file of the policy's spec.
    """
    times = ("--since", start, "--until", end)
    return ("replay", "--log", log, "--method", "progressive", "--policy", spec, *times, "--json")


def judge_archive(
    log: str, start: str, end: str, asked: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[JudgedPolicy], str]:
    """Return what each policy is worth on a part of an archive, and what is to be said of that.

    Or nothing, and why.

    Args:
        log: the archive of a policy.
        start: from when.
        end: until when.
        asked: by name, the arguments of further policies.
    """
    report, said = _answer(replay_command(log, start, end))
    if report is None:
        return [], said

    found: list[JudgedPolicy] = []
    for result in report["results"]:
        estimate = result["estimates"][ESTIMATOR]
        if estimate["value"] is None or None in estimate["interval"]:
            continue
        name, source = POLICIES[result["policy"]]
        low, high = estimate["interval"]
        found.append(JudgedPolicy(name, source, estimate["value"], low, high))

    with tempfile.TemporaryDirectory() as folder:
        for number, (name, arguments) in enumerate(asked.items()):
            path = Path(folder) / f"{number}.yaml"
            spec = with_arguments(PolicySpec(f"custom-{number}"), arguments)
            path.write_bytes(msgspec.yaml.encode(spec))
            report, said = _answer(learning_command(log, start, end, str(path)))
            if report is None:
                return [], said
            learned = report["results"][0]["learned"]
            value, half = learned["ips"], Z_95 * (learned["ips_stderr"] or 0.0)
            low, high = value - half, value + half
            found.append(JudgedPolicy(name, "Custom", value, low, high, arguments))
    if not found:
        return [], "nothing of the log can be relied on"
    changes = [
        f"{name} was not judged as it was sent: {each}."
        for name, arguments in asked.items()
        for each in read_policy_arguments(arguments).changes
    ]
    return found, " ".join(changes)


def _answer(command: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """Return a command's report; or None, and what it said instead."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(  # noqa: S603 - this program, with times that were read before
        ["nice", "-n", "10", sys.executable, "-c", _RUN, *command],  # noqa: S607
        env=inherited,
        capture_output=True,
        timeout=LONGEST_S,
        check=False,
    )
    try:
        return msgspec.json.decode(done.stdout), ""
    except msgspec.DecodeError:
        return None, done.stderr.decode(errors="replace").strip()[-300:]
