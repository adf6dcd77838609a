"""Are the logged propensities the sampling probabilities? 100,000 decisions of the demo's policy, audited.

    python -m benchmarks.learning.propensities

Two runs of 50,000 rounds of the in-process loop on MovieLens-100K. Every decision goes through the
codec; then its PMF and its draw are derived again from the record, the snapshot it names and the
salt, and must match bit for bit. The mean of 1 / propensity of the chosen action must be the number
of actions with positive probability, within 4 standard errors.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec

from bandits.decide import decide
from bandits.log.codec import decode, encode
from bandits.log.records import DecisionRecord
from bandits.types import Policy, Snapshot
from policies.blend import load_policy
from policies.features import featurise_record
from policies.spec import load_spec
from simulator.doctor.audit import audit
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


def main() -> int:
    """Run, print; exit 1 unless all is sound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50_000, help="of each of the two runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = load_world()
        train_movielens(world, Path(folder), seed=0)
        bench = make_bench(world, msgspec.structs.replace(load_spec(SPEC), artifact=folder))
    records, same = [], 0
    for seed in (0, 1):
        more, matching = one_run(bench, seed, arguments.rounds)
        records += more
        same += matching
    found = audit(records, salt=SALT)
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
