"""What a shadow costs `rank`: processor time with one that follows, with one that stands still.

    python -m benchmarks.beside.shadows [--rounds 8] [--quick] [--out shadows.json]   (about six minutes)

One service with a shadow, 100 catalogue ids a request, 8 features each, every decision synced to
disk, wrk with 8 connections. In some turns the shadow's process is stopped, in others it follows
under load, and in others a process that does nothing but loop at the shadow's niceness has its place
(see arms.py). Between turns the shadow catches up. The goal: the rank replica's processor time with
a shadow is at most 1.03 times that without.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import redis

from benchmarks.beside.arms import RANK, Arm, Times, in_turns, of_all_but, of_process
from benchmarks.serving.processor import looping
from benchmarks.serving.serve import SPECS as PLAIN
from benchmarks.serving.serve import bodies, of_service, settle, url_of, warmed
from benchmarks.serving.services import Service, banditloop
from benchmarks.table import Table
from policies.shadows.files import PolicyShadows
from serve_app.store.keys import Keys
from serve_app.workers.actors import LAST

POLICY = "vw"
SHADOW = (
    "shadow:\n- {name: ridge, use: [context, features], learner: {kind: ridge, interactions:"
    " [[context, features]]}}\n"
)
SPECS = {name: text + (SHADOW if name == POLICY else "") for name, text in PLAIN.items()}
FOLLOWS, STOPPED, LOOP = "a shadow that follows", "one that is stopped", "an empty loop"
SHADOWS = "shadows"
FOLLOWED_S = 240.0
SETTINGS = {"BANDITLOOP_ARCHIVE_MAX_AGE_S": "1"}
"""The archiver works in every turn: else what it does once a minute falls into one or the other."""


class Followed:
    """The shadow of a service, as its files tell of it."""

    def __init__(self, service: Service) -> None:
        self._client = redis.Redis.from_url(service.redis_url)
        self._files = PolicyShadows(str(service.folder / "data" / "archive"), POLICY)

    def wait(self) -> int:
        """Wait until all that is logged was followed; return of how many decisions it has spoken."""
        end = self._client.xrevrange(Keys(POLICY).log, count=1)[0][0].decode()
        deadline = time.monotonic() + FOLLOWED_S
        while True:
            (named,) = self._files.current()
            state = self._files.of(named).state()
            if state is not None and int(state.position.partition("-")[0]) >= int(
                end.partition("-")[0]
            ):
                return state.decisions
            if time.monotonic() > deadline:
                raise SystemExit(f"the shadow is behind: {state}")
            time.sleep(0.1)


def main() -> int:
    """Measure, print, exit 1 if a shadow costs rank more than 1.03 times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8, help="of a turn of each arm (default 8)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in a turn")
    parser.add_argument("--quick", action="store_true", help="two rounds of two seconds")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    rounds, seconds = (2, 2.0) if given.quick else (given.rounds, given.seconds)

    with (
        tempfile.TemporaryDirectory(prefix="shadows-") as name,
        banditloop(Path(name), SPECS, environment=SETTINGS) as service,
        looping(LAST) as loop,
    ):
        warmed(service)
        followed, pids = Followed(service), of_service(service, "ray::Shadow")

        def let(which: list[int], sign: signal.Signals) -> None:
            for pid in which:
                os.kill(pid, sign)

        def stop() -> None:
            let(pids, signal.SIGSTOP)

        def go_on() -> None:
            let([loop], signal.SIGSTOP)
            let(pids, signal.SIGCONT)

        def take_its_place() -> None:
            stop()
            let([loop], signal.SIGCONT)

        def settled() -> None:
            settle([service])
            followed.wait()

        arms = (
            Arm(FOLLOWS, lambda: None, lambda: None),
            Arm(STOPPED, stop, go_on),
            Arm(LOOP, take_its_place, go_on),
        )
        found = in_turns(
            service,
            url_of(service, POLICY),
            bodies(),
            arms,
            rounds=rounds,
            seconds=seconds,
            settle=settled,
        )

    table = Table()
    for arm, turns in found.items():
        for what in (RANK, "Redis", "learner", "archiver", "HAProxy", SHADOWS):
            us = float(np.mean(of_process(turns, what)))
            if us >= 1:
                table.add(f"{arm}: {what}, us a rank", f"{us:,.0f}", us)
    without = found[STOPPED]
    replica = {
        arm: Times.of(of_process(found[arm], RANK), of_process(without, RANK))
        for arm in (FOLLOWS, LOOP)
    }
    rest = Times.of(of_all_but(found[FOLLOWS], SHADOWS), of_all_but(without, SHADOWS))
    own = replica[FOLLOWS].value / replica[LOOP].value
    table.add("the rank replica, an empty loop / nothing", str(replica[LOOP]), replica[LOOP].value)
    table.add("the rank replica, a shadow / an empty loop", f"{own:.3f}", own)
    table.add("all but the shadow, with / without", str(rest), rest.value)
    table.add(
        "the rank replica, with a shadow / without",
        str(replica[FOLLOWS]),
        replica[FOLLOWS].value,
        at_most=1.03,
    )
    turns_us = {arm: [dict(each.us) for each in turns] for arm, turns in found.items()}
    return table.finish(given.out, rounds=rounds, seconds=seconds, turn_us=turns_us)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
