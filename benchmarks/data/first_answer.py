"""From a shop's table of events to a personal answer, by two commands: how long it takes.

    python -m benchmarks.data.first_answer [--out first_answer.json]                     (two minutes)

The tables are those of the frozen shop: 200,000 events. The first command is `banditloop train
--events events.csv`, the second `banditloop serve`. The clock stops when a known user's candidates
have been ranked: they have to differ from a stranger's, and from those of another user. With
`--all-tables` the items and the users are given, too.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks.serving.services import Service, running
from benchmarks.table import Table

COMMAND = str(Path(sys.executable).parent / "banditloop")
KNOWN, OTHER, STRANGER = "u00003", "u00004", "nobody-knows-me"
GOAL_S = 180.0


def offered(service: Service, user_id: str) -> list[str]:
    """The ids of what a user is offered, likeliest first."""
    answer = httpx.post(
        f"{service.url}/v1/policies/shop/rank",
        json={"user_id": user_id, "return_pmf": True},
        timeout=30,
    )
    answer.raise_for_status()
    pmf = sorted(answer.json()["pmf"], key=lambda each: -each["probability"])
    return [each["id"] for each in pmf]


def run(*arguments: str, folder: Path) -> None:
    """Run a command of banditloop to its end."""
    done = subprocess.run(  # noqa: S603 - this project's own commands
        [COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"banditloop {' '.join(arguments)}:\n{done.stdout}{done.stderr}")


def tables(all_tables: bool) -> Sequence[str]:
    """The arguments that name the tables."""
    events = ("--events", "tables/events.csv")
    more = ("--items", "tables/items.csv", "--users", "tables/users.csv")
    return (*events, *more) if all_tables else events


def main() -> int:
    """Measure, print, exit 1 if it takes too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all-tables", action="store_true", help="give items and users, too")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()

    table = Table()
    with tempfile.TemporaryDirectory(prefix="first-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        run("worlds", "tables", "shop", "tables", folder=folder)

        began = time.monotonic()
        run("train", *tables(given.all_tables), "--out", "shop", folder=folder)
        trained_s = time.monotonic() - began

        service = stack.enter_context(running(folder, [COMMAND, "serve", "shop/policy.yaml"], {}))
        known, other, stranger = (offered(service, user) for user in (KNOWN, OTHER, STRANGER))
        total_s = time.monotonic() - began

    shared = len(set(known) & set(stranger)) / len(known)
    table.add("training, from events.csv, s", f"{trained_s:.1f}", trained_s)
    table.add("from events.csv to a personal answer, s", f"{total_s:.1f}", total_s, at_most=GOAL_S)
    table.add(
        "share of a known user's candidates that a stranger is offered, too",
        f"{shared:.2f}",
        shared,
        at_most=0.9,
    )
    differ = float(known != other)
    table.add("two known users are offered the same", "no" if differ else "yes", differ, at_least=1)
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
