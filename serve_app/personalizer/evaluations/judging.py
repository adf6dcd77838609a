"""What an evaluation computes: a replay of the archive, by the commands that anybody may give."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bandits.errors import RowsWaitError
from policies.personalizer.arguments import read_policy_arguments, with_arguments
from policies.spec import PolicySpec
from policies.typed_yaml import encode_yaml
from serve_app.store.evaluations.kept import ONLINE, JudgedPolicy
from serve_app.store.evaluations.series import Series, SeriesPoint

LONGEST_S = 1800.0
ESTIMATOR = "snips"
Z_95 = 1.959963984540054
MOST_SAID = 600
"""Characters of what a command says that failed."""
POLICIES: Mapping[str, tuple[str, str]] = {
    "logging": ("online", ONLINE),
    "first": ("baseline1", "Baseline"),
    "uniform": ("baselineRand", "Random"),
}
"""By what replay calls a policy, its name there and where it comes from."""
_RUN = "from serve_app.cli.main import main; main()"


class LogPart(NamedTuple):
    """A part of a policy's archive, and the widths of its windows of time, in minutes."""

    log: str
    start: str
    end: str
    minutes: Sequence[int] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Those of the command that say so."""
        every = [word for width in self.minutes for word in ("--every", f"{width}m")]
        return ("--log", self.log, "--since", self.start, "--until", self.end, *every, "--json")


class Judgement(NamedTuple):
    """What policies are worth, and what they earn over time; ``said``: what is to be told of it.

    ``waits``: nothing is found, since all decisions wait for their rewards yet.
    """

    found: list[JudgedPolicy]
    series: dict[str, Series]
    said: str = ""
    waits: bool = False


def replay_command(part: LogPart) -> Sequence[str]:
    """Return the command whose answer an evaluation is."""
    policies = [word for name in POLICIES for word in ("--policy", name)]
    return ("replay", *policies, "--estimator", ESTIMATOR, *part.options)


def learning_command(part: LogPart, *specs: str) -> Sequence[str]:
    """Return the command whose answer is that of policies which learn from nothing on the way.

    Args:
        part: of the archive of a policy.
        specs: the files of the policies' specs.
    """
    policies = [word for spec in specs for word in ("--policy", spec)]
    return ("replay", "--method", "progressive", *policies, *part.options)


def judge_served(part: LogPart) -> Judgement:
    """Return what was served is worth, and both baselines; or nothing, and why."""
    report, said = _answer(replay_command(part))
    if report is None:
        _, waits, why = said.rpartition(f"error {RowsWaitError.code}: ")
        return Judgement([], {}, why, waits=bool(waits))

    found: list[JudgedPolicy] = []
    series: dict[str, Series] = {}
    for result in report["results"]:
        estimate = result["estimates"][ESTIMATOR]
        if estimate["value"] is None or None in estimate["interval"]:
            continue
        name, source = POLICIES[result["policy"]]
        found.append(JudgedPolicy(name, source, estimate["value"], *estimate["interval"]))
        series[name] = _series(result)
    return Judgement(found, series, "" if found else "nothing of the log can be relied on")


def judge_learning(
    part: LogPart, asked: Mapping[str, str], source: str, *, within_s: float = LONGEST_S
) -> Judgement:
    """Return what policies are worth that learn from nothing on the way; or nothing, and why.

    Args:
        part: of the archive of a policy.
        asked: by name, the policies' arguments.
        source: where they come from.
        within_s: how long that may take, in seconds.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    if not asked:
        return Judgement([], {})
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.yaml" for number in range(len(asked))]
        for number, (path, arguments) in enumerate(zip(paths, asked.values(), strict=True)):
            spec = with_arguments(PolicySpec(f"custom-{number}"), arguments)
            path.write_bytes(encode_yaml(spec))
        report, said = _answer(learning_command(part, *map(str, paths)), within_s)
    if report is None:
        return Judgement([], {}, said)

    found: list[JudgedPolicy] = []
    series: dict[str, Series] = {}
    changes: list[str] = []
    for (name, arguments), result in zip(asked.items(), report["results"], strict=True):
        value, stderr = result["learned"]["ips"], result["learned"]["ips_stderr"]
        half = Z_95 * (stderr or 0.0)
        found.append(JudgedPolicy(name, source, value, value - half, value + half, arguments))
        series[name] = _series(result)
        changes += [
            f"{name} was not judged as it was sent: {each}."
            for each in read_policy_arguments(arguments).changes
        ]
    return Judgement(found, series, " ".join(changes))


def _series(result: Mapping[str, Any]) -> Series:
    """Return what replay says of a policy over time; windows that cannot be told are left out."""
    series: dict[int, list[SeriesPoint]] = {}
    for each in result.get("over_time", ()):
        points = [
            (point["start_ms"], point["value"], *point["interval"], *_so_far(point))
            for point in each["points"]
        ]
        series[each["every_s"] // 60] = [
            SeriesPoint(*point) for point in points if None not in point
        ]
    return series


def _so_far(point: Mapping[str, Any]) -> tuple[Any, ...]:
    return point["so_far"], *point["interval_so_far"]


def _answer(
    command: Sequence[str], within_s: float = LONGEST_S
) -> tuple[dict[str, Any] | None, str]:
    """Return a command's report; or None, and what it said instead."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(  # noqa: S603 - this program, with times that were read before
        ["nice", "-n", "10", sys.executable, "-c", _RUN, *command],  # noqa: S607
        env=inherited,
        capture_output=True,
        timeout=within_s,
        check=False,
    )
    try:
        return msgspec.json.decode(done.stdout), ""
    except msgspec.DecodeError:
        return None, done.stderr.decode(errors="replace").strip()[-MOST_SAID:]
