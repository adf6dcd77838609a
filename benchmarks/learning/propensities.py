"""Are the logged propensities the sampling probabilities? 100,000 decisions of the demo's policy, audited.

    python -m benchmarks.learning.propensities
    python -m benchmarks.learning.propensities --rules

Two runs of 50,000 rounds of the in-process loop on MovieLens-100K. Every decision goes through the
codec; then its PMF and its draw are derived again from the record, the snapshot it names and the
salt, and must match bit for bit. The mean of 1 / propensity of the chosen action must be the number
of actions with positive probability, within 4 standard errors.

With ``--rules`` the policy is another one: a shop (``ruled_shop.py``) whose spec has every kind of
rule, and whose stock, prices and clock go on; requests bring filters and actions. Beside the same
tests the doctor asks the rules of every decision again, and looks for choices that did not follow
them. Nothing is fetched.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec

from bandits.decide import decide
from bandits.log.codec import decode, encode
from bandits.log.records import DecisionRecord
from bandits.types import Policy, Snapshot
from benchmarks.learning.ruled_shop import SALT as SHOP_SALT
from benchmarks.learning.ruled_shop import RuledShop
from policies.blend import load_policy
from policies.features import featurise_record
from policies.spec import load_spec
from simulator.doctor.audit import Audit, audit
from simulator.doctor.checks.derivations import Derivations
from simulator.doctor.checks.rules import RuledDecisions
from simulator.worlds.demo import DemoBench, load_world, make_bench, train_movielens
from simulator.worlds.loop import SALT, run_loop

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"


def one_run(bench: DemoBench, seed: int, rounds: int) -> tuple[list[DecisionRecord], int]:
    """The decisions of a run, and how many of them derive again bit for bit, PMF and draw."""
    snapshots: dict[str, Snapshot] = {}
    run = run_loop(
        bench.requests,
        bench.spec,
        rounds=rounds,
        seed=seed,
        pools=bench.pools,
        catalogue=bench.catalogue,
        on_snapshot=snapshots.__setitem__,
    )
    records, same, loaded, policy = [], 0, "", None
    for entry in run.log:
        record = decode(encode(entry.record))
        if isinstance(record, DecisionRecord):
            if record.snapshot_id != loaded:
                loaded, policy = (
                    record.snapshot_id,
                    load_policy(bench.spec, snapshots[record.snapshot_id]),
                )
            same += rederives(record, bench, policy)
            records.append(record)
    return records, same


def rederives(record: DecisionRecord, bench: DemoBench, policy: Policy | None) -> bool:
    """Whether the record, the snapshot and the salt give the same bytes again."""
    if policy is None:
        return False
    context, actions = featurise_record(bench.spec, bench.catalogue, record)
    again = decide(
        policy,
        context,
        actions,
        event_id=record.event_id,
        salt=SALT,
        name=record.policy,
        slots=len(record.chosen),
    )
    return again.pmfs.tobytes() == record.pmf and list(again.chosen) == record.chosen


def audited(bench: DemoBench, rounds: int) -> tuple[Audit, int]:
    """The audit of two runs, and how many decisions derive again bit for bit."""
    records, same = [], 0
    for seed in (0, 1):
        more, matching = one_run(bench, seed, rounds)
        records += more
        same += matching
    return audit(records, salt=SALT), same


@dataclass
class Ruled:
    """What the doctor says of a run under rules."""

    same: int = 0
    faulty: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def ruled_records(seed: int, rounds: int, told: Ruled) -> Iterator[DecisionRecord]:
    """Yield the decisions of a shop under every rule, each examined as it is made."""
    shop = RuledShop(seed)
    rules = RuledDecisions(shop.stored, limit=rounds)
    derivations = Derivations(shop.stored, salts=[SHOP_SALT], build=None, limit=rounds)
    derivations.PER_SNAPSHOT = rounds  # all of them
    for entry in shop.entries(rounds):
        rules.add(entry)
        derivations.add(entry)
        if isinstance(entry.record, DecisionRecord):
            told.kinds.update(kinds_of(entry.record))
            yield entry.record

    for finding in (*rules.findings(), *derivations.findings()):
        print(f"run {seed}: {finding.check}: {finding.severity}: {finding.message}", flush=True)
        told.same += int(finding.figures.get("same_bytes") or 0)
        told.faulty += int(finding.figures.get("faulty") or 0)
        told.faulty += finding.severity != "ok"


def kinds_of(record: DecisionRecord) -> Iterator[str]:
    """Yield what the rules did to a decision."""
    yield "held out" if record.holdout else "drawn by the model"
    if (ruled := record.rules) is None:
        return
    yield from (f"something removed by {rule}" for rule in ruled.removed)
    if ruled.boosts:
        yield "boosted"
    if ruled.control is not None:
        yield "under quotas"
    if ruled.placed:
        yield "an item placed"
    if ruled.unplaced:
        yield "an item not placed"
    if ruled.page:
        yield "a page rule said something"
    if ruled.short:
        yield "a shorter page"


def audited_under_rules(rounds: int) -> tuple[Audit, int]:
    """The audit of two shops under rules, and how many decisions derive again bit for bit."""
    told = Ruled()
    records = (each for seed in (0, 1) for each in ruled_records(seed, rounds, told))
    found = audit(records, salt=SHOP_SALT)
    for kind, count in sorted(told.kinds.items()):
        print(f"  {kind:37s}{count:,}")
    print(f"decisions that did not follow the rules {told.faulty:,}")
    return found, 0 if told.faulty else told.same


def main() -> int:
    """Run, print; exit 1 unless all is sound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50_000, help="of each of the two runs")
    parser.add_argument("--rules", action="store_true", help="of a policy with every rule")
    arguments = parser.parse_args()
    if arguments.rules:
        found, same = audited_under_rules(arguments.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            world = load_world()
            train_movielens(world, Path(folder), seed=0)
            bench = make_bench(world, msgspec.structs.replace(load_spec(SPEC), artifact=folder))
        found, same = audited(bench, arguments.rounds)
    print(f"decisions                              {found.decisions:,}")
    print(f"PMF and draw derived again, same bytes {same:,}")
    print(f"draw follows from the logged PMF       {found.rederived:,}")
    print(
        f"mean(1 / propensity) - K               {found.excess:+.4f} = {found.z:+.2f} standard"
        " errors"
    )
    return 0 if found.sound and abs(found.z) <= 4.0 and same == found.decisions else 1


if __name__ == "__main__":
    sys.exit(main())
