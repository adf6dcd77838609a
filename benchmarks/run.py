"""`make bench`: all but the long benchmarks (soak, a_day) and those beside others (replay_peers, learner)."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "source_quality.py",
    "blend_quality.py",
    "propensities.py",
    "archive_size.py",
    "verify.py",
    "durability.py",
    "replay.py",
    "decision.py",
    "retrieval.py",
    "serving.py",
)


def main() -> int:
    """Run them all, even when one fails."""
    failed = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(Path(__file__).parent / name)], check=False).returncode:  # noqa: S603
            failed.append(name)
    print(f"\ngoals reached: {len(BENCHMARKS) - len(failed)} of {len(BENCHMARKS)}", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
