"""Aggregates that need all rewards of a slot: the same bytes from anywhere, and from rows alike."""

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RULE, WINDOW, archived, decision

from bandits.exploration import LinTs
from bandits.log.join import Join
from bandits.log.records import BuildRecord, CheckpointRecord, RewardRecord, TickRecord
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.profiles.signals import SignalOptions
from policies.spec import PolicySpec
from simulator.logs.archive.pieces import archive_pieces

SPEC = PolicySpec("home", learner=RidgeConfig(l2=2.0), exploration=LinTs(draws=2))
SIGNALS = {"click": 1.0, "buy": SignalOptions(3.0, aggregation="average")}


def spec_of(aggregation: str, *, signals: bool = False, **rule: str) -> PolicySpec:
    join = msgspec.structs.replace(RULE, aggregation=aggregation, **rule)
    spec = msgspec.structs.replace(SPEC, join=join)
    return msgspec.structs.replace(spec, signals=SIGNALS) if signals else spec


def log_of(spec: PolicySpec, seed: int = 0, count: int = 60) -> FakeLog:
    """Decisions that get several rewards, some early, some late, some twice."""
    rng, log, now = np.random.default_rng(seed), FakeLog(spec), 1
    log.append(BuildRecord({"fold": str(FOLD)}), at=1)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(count):
        now += int(rng.integers(1, WINDOW // 4))
        chosen = (0, 2) if number % 3 else (1,)
        made = decision(f"e{number}", chosen=chosen, spec=spec.digest, catalogue=Catalogue().digest)
        log.append(made, at=now)
        for _ in range(int(rng.integers(6))):
            now += int(rng.integers(WINDOW // 6))
            log.append(
                RewardRecord(
                    f"e{max(0, number - int(rng.integers(-1, 5)))}",
                    float(rng.integers(-8, 9)) / 4,
                    f"r{rng.integers(9)}",
                    int(rng.integers(2)),
                    signal=str(rng.choice(["click", "buy"])) if spec.rule != spec.join else None,
                ),
                at=now,
            )
        if number % 9 == 4:
            log.append(CheckpointRecord(), at=now)
    log.append(TickRecord(), at=now + 3 * WINDOW)
    return log


def bytes_of(fold: Fold) -> bytes:
    return msgspec.msgpack.encode(fold.state()) + msgspec.msgpack.encode(fold.snapshot().payload)


@pytest.mark.parametrize("aggregation", ["min", "average", "median"])
@pytest.mark.parametrize("signals", [False, True])
def test_a_resume_anywhere_with_few_records_in_memory_gives_the_same_bytes(aggregation, signals):
    """Though a checkpoint holds none of the rewards that a later one is put together with."""
    spec = spec_of(aggregation, signals=signals, learn="as_it_arrives", late="correct")
    log = log_of(spec)
    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    whole.apply(log.entries)
    assert min(whole.join.counts[each] for each in ("joined", "late", "duplicate", "early")) >= 0
    assert whole.join.counts["joined"] > 60 < whole.join.counts["late"] + 40

    assert len(past.checkpoints) > 4
    for position, data in past.checkpoints.items():
        resumed = Fold(log.blobs.__getitem__, salt=SALT, past=past)
        resumed.join.recent_bytes = 3000
        resumed.resume(decode_state(data), past)
        resumed.apply(past.entries(position, log.entries[-1].id))
        assert bytes_of(resumed) == bytes_of(whole)


@pytest.mark.parametrize("aggregation", ["min", "average", "median"])
@pytest.mark.parametrize("late", ["ignore", "correct"])
def test_as_it_arrives_ends_where_at_close_ends(aggregation, late):
    """Each reward corrects what was taught by the difference to the aggregate so far."""
    ends = []
    for learn in ("at_close", "as_it_arrives"):
        state = msgspec.msgpack.decode(
            log_of(spec_of(aggregation, learn=learn, late=late)).fold().learner.checkpoint()
        )
        order = np.argsort(state["hashes"])
        ends.append((np.sort(state["hashes"]), np.frombuffer(state["b"])[order]))
    assert ends[0][0].tolist() == ends[1][0].tolist()
    assert ends[0][1] == pytest.approx(ends[1][1], abs=1e-9)
    assert np.abs(ends[0][1]).max() > 1.0


@pytest.mark.parametrize("signals", [False, True])
def test_an_archive_gives_the_rewards_that_are_learned(signals, tmp_path):
    """Rows of the archive and lessons of the fold are one join, whoever adds up."""
    for aggregation in ("min", "average", "median"):
        spec = spec_of(aggregation, signals=signals)
        log = log_of(spec, seed=3)
        join = Join(lambda _, rule=spec.rule: rule, spec.rule)
        told = [each for entry in log.entries for each in join.apply(entry)]
        expected = [reward for each in told for reward in each.rewards]

        (piece,) = archive_pieces(archived(tmp_path / aggregation, log.entries, spec), "p", 1)
        found = [float(r) for batch in piece.batches() for r in batch.reward]
        assert sorted(found) == sorted(expected)
        assert len(set(found)) > 10
