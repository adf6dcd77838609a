"""`make bench`: all but the long ones (soak, a_day, sessions, session_ope, partitions) and replay beside its peers.

The table of speed comes last. Each benchmark that ends in a table leaves it as JSON in `bench/`.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.table import line, summary

RESULTS = Path("bench")
OTHERS = (
    "sources.source_quality",
    "learning.blend_quality",
    "learning.propensities",
    "replay.archive_size",
    "learning.verify",
    "serving.durability",
    "replay.replay",
    "serving.rl_decision",
)
TABLES = (
    "serving.serve",
    "serving.decision",
    "serving.rl_decision",
    "learning.learner",
    "sources.retrieval",
    "sources.offering",
    "sources.filters",
    "serving.memory",
)


def run(name: str, *arguments: str) -> bool:
    """Whether it reached its goals."""
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - this project's own


def main() -> int:
    """Run them all, even when one fails."""
    failed = [name for name in OTHERS if not run(name)]
    RESULTS.mkdir(exist_ok=True)
    rows = []
    for name in TABLES:
        out = RESULTS / f"{name}.json"
        out.unlink(missing_ok=True)
        run(name, "--out", str(out))
        if out.exists():
            rows += json.loads(out.read_text())["rows"]
        else:
            failed.append(name)
    print(
        "\n== all of them",
        *map(line, rows),
        *(f"{name}: goals missed, or it failed" for name in failed),
        sep="\n",
    )
    reached, goals = summary(rows)
    print(
        f"goals reached: {reached + len(OTHERS) - len(set(failed) & set(OTHERS))} of"
        f" {goals + len(OTHERS)}"
    )
    return 1 if failed or reached < goals else 0


if __name__ == "__main__":
    sys.exit(main())
