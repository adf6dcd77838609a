"""What is in demand: counted by the fold as rewards come, and the same from any checkpoint."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakePast
from support.logs import RANDOM_LOGS, RULE, decision, log_of

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy
from bandits.log.join import JoinRule
from bandits.log.positions import log_order
from bandits.log.records import CheckpointRecord, RewardRecord, TickRecord
from bandits.log.trends import decode_trends
from bandits.ridge.config import RidgeConfig
from bandits.snapshot_distance import distance
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.spec import PolicySpec, TrendingSource, spec_of

SPEC = PolicySpec(
    "home",
    sources=[TrendingSource("now", "1m"), TrendingSource("today", "1d")],
    learner=RidgeConfig(),
    exploration=EpsilonGreedy(),
    join=RULE,
)
MINUTE = 60_000


def counts_of(fold: Fold) -> dict[str, float]:
    """The counts of the shorter half-life, each as of its item's last reward."""
    return {item.id: item.count for item in fold.trends[0].state.items}


def published(fold: Fold, half_life_ms: int) -> dict[str, float]:
    found = decode_trends(fold.snapshot().trends)[half_life_ms]
    return dict(zip(found.ids, found.counts, strict=True))


def test_a_reward_counts_for_its_item_when_it_comes_and_fades_by_the_times_of_the_log():
    steps = [
        (1, decision("e1", chosen=(1,))),
        (1, decision("e2", chosen=(0, 2))),
        (1000, RewardRecord("e1", 1.0)),
        (0, RewardRecord("e2", 0.5, slot=1)),
        (0, RewardRecord("e2", 0.0, slot=0)),
    ]
    log = log_of(steps, SPEC)
    del log.entries[-1]  # the windows are open
    fold = log.fold()
    assert fold.learned == 0
    assert published(fold, MINUTE) == {"b": 1.0, "c": 1.0}

    log.append(TickRecord(), at=fold.trends[0].state.items[0].at_ms + MINUTE)
    fold = log.fold()
    assert published(fold, MINUTE) == {"c": 0.5, "b": 0.5}
    assert published(fold, 24 * 60 * MINUTE)["b"] > 0.99


def test_what_does_not_count_as_a_reward_counts_nothing():
    steps = [
        (1, decision("e")),
        (1, decision("later", deferred=True)),
        (1, RewardRecord("e", 1.0)),
        (1, RewardRecord("e", 1.0)),  # a duplicate
        (1, RewardRecord("e", -1.0, "r2")),
        (1, RewardRecord("e", 1.0, "r3", action_id="z")),
        (1, RewardRecord("later", 1.0)),
        (1, RewardRecord("none", 1.0)),
        (2 * RULE.window_ms, TickRecord()),
        (1, RewardRecord("e", 1.0, "r4")),
    ]
    assert set(counts_of(log_of(steps, SPEC).fold())) == {"a"}


def test_a_reward_that_came_before_its_decision_counts_when_that_comes():
    steps = [(1, RewardRecord("e", 1.0)), (1000, decision("e", chosen=(2,)))]
    assert counts_of(log_of(steps, SPEC).fold()) == {"c": 1.0}


@settings(max_examples=40)
@given(
    RANDOM_LOGS,
    st.lists(st.integers(0, 60), max_size=3),
    st.sampled_from(["at_close", "as_it_arrives"]),
    st.booleans(),
)
def test_a_resume_from_any_checkpoint_gives_the_same_bytes(steps, cuts, learn, small):
    rule = JoinRule(window_s=10.0, default_reward=-1.0, learn=learn)
    log = log_of(steps, msgspec.structs.replace(SPEC, join=rule))
    for cut in sorted(cuts, reverse=True):
        place = min(cut, len(log.entries) - 1) + 1
        entries, log.entries = log.entries, []
        for at, entry in enumerate(entries):
            if at == place:
                log.append(CheckpointRecord(), at=log.entries[-1].time_ms)
            log.append(entry.record, at=entry.time_ms)

    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    if small:
        whole.join.recent_bytes = 0  # no record stays in memory
    whole.apply(log.entries)
    assert whole.snapshot() == log.fold(cuts).snapshot()

    for position, data in past.checkpoints.items():
        resumed = Fold(log.blobs.__getitem__, salt=SALT, past=past)
        resumed.resume(decode_state(data), past)
        resumed.apply(e for e in log.entries if log_order(e.id) > log_order(position))
        assert resumed.snapshot() == whole.snapshot()
        assert distance(resumed.snapshot(), whole.snapshot()) == 0.0


def test_without_such_a_source_checkpoints_and_snapshots_know_nothing_of_it():
    plain = msgspec.structs.replace(SPEC, sources=[])
    steps = [(1, decision("e")), (1, RewardRecord("e", 1.0))]
    fold = log_of(steps, plain).fold()
    assert fold.snapshot().trends is None
    assert type(fold.state()) is FoldState
    assert msgspec.msgpack.encode(fold.state()) == msgspec.msgpack.encode(
        FoldState(**msgspec.structs.asdict(fold.state()))
    )


def test_a_spec_that_no_longer_asks_ends_the_counts_and_one_that_still_does_keeps_them():
    steps = [(1, decision("e")), (1, RewardRecord("e", 1.0))]
    log = log_of(steps, SPEC)
    log.configure(msgspec.structs.replace(SPEC, sources=SPEC.sources[:1], floor=0.5), at=10)
    fold = log.fold()
    assert list(counts_of(fold)) == ["a"]
    log.configure(msgspec.structs.replace(SPEC, sources=[]), at=11)
    assert log.fold().snapshot().trends is None


def test_snapshots_of_other_demand_are_apart():
    steps = [(1, decision("e")), (1, RewardRecord("e", 1.0))]
    one = log_of(steps, SPEC).fold().snapshot()
    other = log_of([steps[0], (1, RewardRecord("e", 0.0))], SPEC).fold().snapshot()
    assert distance(one, one) == 0.0
    assert distance(one, other) == float("inf")


@pytest.mark.parametrize("half_life", ["soon", "0s", "500", "-1h"])
def test_what_is_no_half_life_is_refused(half_life):
    with pytest.raises(SpecError, match=r"half-life|duration"):
        TrendingSource("now", half_life)


def test_several_partitions_are_refused():
    fields = {"name": "home", "partitions": 4, "sources": [{"kind": "trending", "name": "now"}]}
    with pytest.raises(SpecError, match="in one log"):
        spec_of(fields)
