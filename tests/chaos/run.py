"""Kills parts of a running service under traffic, then asks for everything it was promised.

    python tests/chaos/run.py --rounds 100 --seed 0

Exit status 0: nothing acknowledged was lost, nothing was learned twice, every snapshot is the
replay of the log byte for byte, and the service always recovered in time.

Two deaths of a kind within seconds are common here. With three replicas and two standbys somebody
is left; when the last one dies it takes as long as starting a process takes on this machine: try
--replicas 2 --standbys 1.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script
import redis
from artifacts import read_refreshes, write_first
from people import Kept, PeoplePromised, audit_people, drill, verify_profiles
from traffic import ACTIONS, Promised, Traffic
from victims import KINDS, Victims

from bandits.log.encoded_decisions import DECISIONS
from bandits.log.records import ItemsRecord, RewardRecord
from policies.archive.archive import ArchiveReader, archive_folder
from policies.items.changes import decode_item
from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port
from serve_app.store.history import History
from serve_app.store.items.history import items_of_policy
from serve_app.store.keys import Keys, partitions
from serve_app.store.stats import Stats, summed

POLICY = "home"
RECOVERED_S = 10.0
PATIENCE_S = 60.0
TAKEOVER_S = 5.0
NOTHING = 3
"""Exit status of a run that checked nothing, as of banditloop doctor."""
PER_S = 40.0
SPEC = """
name: home
learner: {kind: ridge, standbys: %d}
join: {window_s: 3, learn: %s}
partitions: %d
space: shop
profile: {types: {view: 1, purchase: 2}}
"""
REFRESHED = """
artifact: trained
sources: [{kind: artifact, name: popular}, {kind: artifact, name: item_knn}]
refresh: {every: 20s, window: 1d}
"""
"""What is added to the spec where sources are refreshed meanwhile."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--standbys", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--learn", choices=("at_close", "as_it_arrives"), default="at_close")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--refresh", choices=("on", "off"), default="off")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        spec = SPEC % (arguments.standbys, arguments.learn, arguments.partitions)
        if arguments.refresh == "on":
            write_first(Path(name) / "trained", ACTIONS)
            spec += REFRESHED
        return _run(Path(name), arguments, spec)


@dataclass(slots=True)
class Damage:
    """What was done, and how long it took to be undone."""

    kills: Counter[str] = field(default_factory=Counter)
    hurts: list[tuple[float, str]] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    learnings: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)

    def do(self, victims: Victims, traffic: Traffic, kind: str, rng: random.Random) -> float:
        """Hurt one process.

        Seconds until decisions and rewards are acknowledged again, then until a learner leads.
        """
        victims.choose(rng)
        found = _eventually(lambda: victims.find(kind), PATIENCE_S)
        pid, token, waited_for = rng.choice(sorted(found)), victims.lease(), victims.standby_waits()
        began = time.monotonic()
        victims.hurt(kind, pid)
        self.kills[kind] += 1
        hurt, promised = time.monotonic(), traffic.promised
        self.hurts.append((hurt, kind))
        _eventually(lambda: min(promised.ranked_at, promised.rewarded_at) > hurt, PATIENCE_S)
        self.recoveries.append(time.monotonic() - hurt)
        _eventually(
            lambda: (now := victims.lease()) and (kind != "leader" or now != token), PATIENCE_S
        )
        self.learnings.append(time.monotonic() - hurt)
        if kind == "leader" and waited_for:
            self.takeovers.append(time.monotonic() - began)
        return self.learnings[-1]


def _run(folder: Path, arguments: argparse.Namespace, spec: str) -> int:
    seed, logs = arguments.seed, partitions(POLICY, arguments.partitions)
    (folder / "home.yaml").write_text(spec)
    url = f"http://127.0.0.1:{free_port()}"
    service = _serve(folder, url, arguments.replicas)
    victims, damage, rng = (
        Victims(service.pid, folder / "data", logs),
        Damage(),
        random.Random(seed),
    )
    try:
        wait_until_ready(url, timeout_s=120)
        refreshed = arguments.refresh == "on"
        kinds = (*KINDS, "refresher") if refreshed else KINDS
        traffic = Traffic(url, POLICY, per_s=PER_S, seed=seed, by_sources=refreshed)
        traffic.start()
        deck: list[str] = []
        for number in range(arguments.rounds):
            time.sleep(rng.uniform(0.2, 1.5))
            deck = deck or rng.sample(kinds, len(kinds))
            kind = deck.pop()
            took = damage.do(victims, traffic, kind, rng)
            print(
                f"round {number + 1:3d}  {kind:14s} {took:5.2f} s until all is well again",
                flush=True,
            )
        time.sleep(2.0)
        traffic.stop()
        with victims.redis() as client:
            result = _settle(client, folder, url, logs, traffic.people.promised)
            verified, profiles = _verify(folder), verify_profiles(_banditloop(), folder)
            drilled = drill(_banditloop(), folder, client)
            swapped = read_refreshes(client, logs, folder) if refreshed else None
    finally:
        service.send_signal(signal.SIGTERM)
        try:
            service.wait(60)
        except subprocess.TimeoutExpired:
            service.kill()
    people = traffic.people.promised
    done = [people.activity, people.merges, people.erasures]
    print(
        f"users: {', '.join(str(len(each)) for each in done)} events, merges and erasures, of which"
    )
    print(f"  {result.kept}")
    print(f"profiles: {profiles}")
    print(f"who users are: {drilled}")
    sound = (
        result.kept.sound and profiles.startswith("identical") and drilled.startswith("the same")
    )
    if not all(done):
        print("nothing to check: it takes acknowledged activity, merges and erasures")
        return NOTHING
    if swapped is not None:
        print(f"sources: {swapped.said}")
        if swapped.artifacts < 2:
            print("nothing to check: no artifact was adopted; try more rounds")
            return NOTHING
    return _report(damage, traffic.promised, result, verified, seed) or int(not sound)


def _report(damage: Damage, promised: Promised, result: "Result", verified: str, seed: int) -> int:
    missing = {
        **{name: at for name, at in promised.decisions.items() if name not in result.decisions},
        **{name: at for name, at in promised.rewards.items() if name not in result.rewards},
        **{name: at for name, at in promised.items.items() if name not in result.items},
    }
    lost = len(missing)
    for name, at in sorted(missing.items(), key=lambda each: each[1]):
        round_, kind = max(
            ((n, k) for n, (t, k) in enumerate(damage.hurts, 1) if t <= at), default=(0, "start")
        )
        print(
            f"LOST {name}, acknowledged {at - (damage.hurts[round_ - 1][0]):.3f} s after round"
            f" {round_} ({kind})"
        )
    twice, missed = (max(0, sign * (result.learned - len(result.decisions))) for sign in (1, -1))
    slowest = max(damage.recoveries, default=0.0)
    learning = max(damage.learnings, default=0.0)
    takeover = float(np.quantile(damage.takeovers, 0.99)) if damage.takeovers else 0.0
    kills = sum(damage.kills.values())
    events = len(promised.decisions) + len(promised.rewards) + len(promised.items)
    print(f"kills: {dict(sorted(damage.kills.items()))}")
    median = np.median(damage.recoveries) if damage.recoveries else 0.0
    print(f"recovered: median {median:.2f} s, slowest {slowest:.2f} s (at most {RECOVERED_S:.0f})")
    over = (
        f"p99 {takeover:.2f} s of {len(damage.takeovers)}"
        if damage.takeovers
        else "nothing to check"
    )
    print(f"takeover by a standby: {over} (goal {TAKEOVER_S:.0f})")
    print(f"answered unlogged: {promised.unlogged}, refused: {promised.refused}")
    print(f"snapshots: {verified}")
    print(
        f"seed {seed}: {kills} kills, {events:,} events acknowledged, {lost} lost, {twice}"
        f" learned twice, {missed} not"
        " learned"
    )
    if not (kills and promised.decisions and promised.rewards and promised.items):
        print("nothing to check: it takes a kill, and acknowledged decisions, rewards and items")
        return NOTHING
    sound = not (lost or twice or missed) and verified.startswith("identical")
    return 0 if sound and max(slowest, learning) <= RECOVERED_S and takeover <= TAKEOVER_S else 1


class Result(msgspec.Struct):
    """What the log holds, and what the learner says it has learned."""

    decisions: dict[str, int]
    rewards: set[str | None]
    items: set[str]
    learned: int
    kept: Kept


def _settle(
    client: redis.Redis,
    folder: Path,
    url: str,
    logs: Sequence[Keys],
    promised: PeoplePromised,
) -> Result:
    """Wait for the last windows to close and to be published, then read archive and stream."""
    root = folder / "data" / "archive"
    folders = [archive_folder(POLICY, number, len(logs)) for number in range(len(logs))]
    read = [
        list(History(client, keys, ArchiveReader(root, name)).encoded("0-0"))
        for keys, name in zip(logs, folders, strict=True)
    ]
    decisions: Counter[str] = Counter()
    rewards: set[str | None] = set()
    for entry in chain.from_iterable(read):
        if isinstance(entry.record, DECISIONS):
            decisions[entry.record.event_id] += 1
        elif isinstance(entry.record, RewardRecord):
            rewards.add(entry.record.reward_id)

    items = {
        decode_item(change.fields).metadata["said"]
        for entry in items_of_policy(client, POLICY, str(root)).encoded("0-0")
        if isinstance(entry.record, ItemsRecord)
        for change in entry.record.changes
    }

    def learned() -> int:
        raw = [client.get(keys.stats) for keys in logs]
        return summed([msgspec.msgpack.decode(data, type=Stats) for data in raw]).learned

    _eventually(lambda: learned() >= len(decisions), 30.0, fail=False)
    kept = audit_people(promised, client, folder, url, read, patience_s=PATIENCE_S)
    return Result(dict(decisions), rewards, items, learned(), kept)


def _verify(folder: Path) -> str:
    command = [_banditloop(), "snapshots", "verify", "--data-dir", "data", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        return f"failed: {done.stderr.strip()[-300:]}"
    report = json.loads(done.stdout)
    verdicts = Counter(each["verdict"] for each in report["snapshots"])
    return (
        f"identical: all {len(report['snapshots'])}"
        if report["holds"]
        else f"NOT identical: {dict(verdicts)}"
    )


def _serve(folder: Path, url: str, replicas: int) -> "subprocess.Popen[bytes]":
    command = [
        _banditloop(),
        "serve",
        "home.yaml",
        "--port",
        url.rpartition(":")[2],
        "--data-dir",
        "data",
    ]
    command += ["--replicas", str(replicas)]
    environment = {
        **os.environ,
        "BANDITLOOP_CHECKPOINT_INTERVAL_S": "2",
        "BANDITLOOP_ARCHIVE_MAX_AGE_S": "2",
    }
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _banditloop() -> str:
    return str(Path(sys.executable).parent / "banditloop")


def _eventually(condition, timeout_s: float, *, fail: bool = True):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            value = condition()
        except (OSError, msgspec.MsgspecError):
            value = None
        if value:
            return value
        time.sleep(0.02)
    if fail:
        raise TimeoutError(f"not within {timeout_s:.0f} s")
    return None


if __name__ == "__main__":
    sys.exit(main())
