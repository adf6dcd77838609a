"""A fold of encoded decisions ends in the bytes of a fold of whole records, wherever it is asked."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RANDOM_LOGS, RULE, WINDOW, decision, log_of

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join import JoinRule
from bandits.log.records import (
    CheckpointRecord,
    EncodedDecision,
    LogEntry,
    Placed,
    RewardRecord,
    Ruled,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec

ARRIVES = JoinRule(window_s=WINDOW / 1000, default_reward=-1.0, learn="as_it_arrives")
RIDGE = RidgeConfig(l2=2.0, interactions=[("context", "features"), ("features", "scores")])
SPECS = {
    "LinTS, biases of slots": PolicySpec(
        "home",
        learner=msgspec.structs.replace(RIDGE, slot_biases=2),
        exploration=LinTs(draws=5),
        join=RULE,
    ),
    "LinUCB, as it arrives": PolicySpec(
        "home",
        learner=msgspec.structs.replace(RIDGE, action_bias=False, max_features=20),
        exploration=LinUcb(),
        join=ARRIVES,
    ),
    "slots looked at seldom": PolicySpec(
        "home",
        learner=msgspec.structs.replace(RIDGE, examination=[1.0, 0.5, 0.25]),
        exploration=EpsilonGreedy(),
        join=ARRIVES,
    ),
    "VW": PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8 -q ci"),
        exploration=EpsilonGreedy(),
        join=RULE,
    ),
    "VW, every action": PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type dr -b 8"),
        exploration=EpsilonGreedy(),
        join=RULE,
    ),
}


def encoded(log: FakeLog) -> list[LogEntry]:
    """The entries as a fold reads them of the stream."""
    return read_entries([(e.id, encode(e.record)) for e in log.entries], lambda *_: None)


def rich_log(spec: PolicySpec) -> FakeLog:
    """Slates, features of requests and of two catalogues, scores with gaps, checkpoints."""
    catalogues = [
        Catalogue([Item("a", {"x": 0.1, "kind": ["new", "long"]}), Item("b", {"on": True})]),
        Catalogue([Item("c", {"x": 7.0})]),
    ]
    log = FakeLog(spec)
    log.blobs |= {each.digest: each.encoded for each in catalogues}
    scores = {
        "deep": np.array([1, 1, 2], "<f4").tobytes(),
        "cf": np.array([0.1, np.nan, 3.0], "<f4").tobytes(),
    }
    for i in range(60):
        record = decision(
            f"e{i}",
            chosen=(i % 3, (i + 1) % 3)[: 1 + i % 2],
            features=None if i % 3 else [None, {"x": 0.3, "y": f"v{i}"}, {"x": False}],
            scores=scores if i % 2 else {},
            spec=spec.digest,
            catalogue=catalogues[i % 20 == 0].digest,
            context={"hour": i / 7, "device": "phone", "tags": ["p", "q"], "zero": 0.0},
            holdout=i % 11 == 0,
            rules=Ruled(placed=[Placed(i % 2, "x")]) if i % 7 == 3 else None,
        )
        log.append(record, at=10 + 500 * i)
        if i % 2:
            log.append(RewardRecord(f"e{i - 1}", float(i), slot=0), at=20 + 500 * i)
        if i % 25 == 0:
            log.append(CheckpointRecord(), at=30 + 500 * i)
    log.append(TickRecord(), at=60_000 + WINDOW)
    return log


def bytes_of(fold: Fold) -> tuple[bytes, object, int, int, dict[str, int]]:
    return (
        msgspec.msgpack.encode(fold.state()),
        fold.snapshot(),
        fold.learned,
        fold.changes,
        dict(fold.join.counts),
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_fold_of_encoded_decisions_ends_in_the_same_bytes(spec):
    log = rich_log(spec)
    entries = encoded(log)
    assert sum(isinstance(entry.record, EncodedDecision) for entry in entries) == 60

    whole = Fold(log.blobs.__getitem__, salt=SALT)
    fold = Fold(log.blobs.__getitem__, salt=SALT)
    once = Fold(log.blobs.__getitem__, salt=SALT)
    for full, entry in zip(log.entries, entries, strict=True):
        whole.apply([full])
        fold.apply([entry])
        assert bytes_of(fold) == bytes_of(whole)
    once.apply(entries)
    assert once.learned > 60
    assert bytes_of(once) == bytes_of(whole)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=20)
@given(RANDOM_LOGS, st.integers(0, 60))
def test_random_logs_of_encoded_decisions_end_in_the_same_bytes(spec, steps, at):
    log = log_of(steps, spec, msgspec.structs.replace(spec, floor=0.5))
    entries = encoded(log)
    # Some are read whole, as a credited decision is: they are taught in their turn.
    mixed = [
        full if n % 5 == 4 else entry
        for n, (full, entry) in enumerate(zip(log.entries, entries, strict=True))
    ]

    whole, fold, both = (Fold(log.blobs.__getitem__, salt=SALT) for _ in range(3))
    for some, part in ((whole, log.entries), (fold, entries), (both, mixed)):
        some.apply(part[:at])
        some.apply(part[at:])
    assert bytes_of(fold) == bytes_of(whole)
    assert bytes_of(both) == bytes_of(whole)


class UntaughtPast(FakePast):
    """A log of which nothing may be read for what its chosen actions teach."""

    def taught(self, after: str, through: str):
        raise AssertionError("what memory gave up was put by")


@pytest.mark.parametrize(
    "spec",
    [
        SPECS["LinTS, biases of slots"],
        msgspec.structs.replace(SPECS["slots looked at seldom"], join=RULE),
    ],
    ids=["biases of slots", "slots looked at seldom"],
)
def test_what_memory_gives_up_is_not_read_again_to_be_taught(spec):
    log = rich_log(spec)
    whole = Fold(log.blobs.__getitem__, salt=SALT)
    whole.apply(encoded(log))
    fold = Fold(log.blobs.__getitem__, salt=SALT, past=UntaughtPast(log))
    fold.join.recent_bytes = 0
    fold.apply(encoded(log))
    assert bytes_of(fold) == bytes_of(whole)
