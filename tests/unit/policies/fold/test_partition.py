"""Partitions, without Redis: which log an event is in, how models merge, P logs as one."""

import os
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_partitions import BUILD, Partitions
from support.logs import WINDOW
from support.strategies import interactions

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.features.hashing import partition_of
from bandits.log.join import JoinRule
from bandits.log.positions import is_after
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.merge import merge_ridge
from bandits.ridge.payloads import decode_sums
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner
from bandits.vw.merge import carry_vw, check_mergeable, merge_vw
from bandits.vw.payloads import decode_model
from policies.fold.all_partitions import verify_partitions
from policies.fold.checkpoint import decode_state
from policies.spec import PolicySpec, decode_spec

RIDGE = PolicySpec(
    "home",
    learner=RidgeConfig(),
    exploration=LinTs(draws=4),
    join=JoinRule(window_s=WINDOW / 1000),
    partitions=3,
)
SPECS = {
    "ridge": RIDGE,
    "as it arrives": msgspec.structs.replace(
        RIDGE, join=JoinRule(window_s=WINDOW / 1000, learn="as_it_arrives", late="correct")
    ),
    "forgets": msgspec.structs.replace(
        RIDGE,
        learner=RidgeConfig(half_life="15s"),
        join=JoinRule(window_s=WINDOW / 1000, learn="as_it_arrives", late="correct"),
    ),
    "vw": msgspec.structs.replace(
        RIDGE, learner=VwConfig("--cb_explore_adf --cb_type mtr -q ci"), exploration=EpsilonGreedy()
    ),
}


def test_the_partition_of_an_event_is_part_of_the_format_of_every_log():
    """A log that exists would be of no use if these changed."""
    assert [partition_of(name, 4) for name in ("visit-1", "a", "b", "c", "é")] == PARTITIONS_OF_OLD
    assert {partition_of(f"e{i}", 1) for i in range(50)} == {0}


PARTITIONS_OF_OLD = [3, 3, 0, 3, 0]


def test_events_are_split_evenly():
    """Chi-square with 7 degrees of freedom is above 29.9 with chance 1e-4."""
    counts = np.bincount([partition_of(f"{i:032x}", 8) for i in range(20_000)], minlength=8)
    assert ((counts - 2500) ** 2 / 2500).sum() < 29.9


def test_the_spec_of_one_partition_is_as_if_there_were_no_others():
    one, several = PolicySpec("home"), PolicySpec("home", partitions=4)
    assert b"partitions" not in one.encoded
    assert (decode_spec(one.encoded), decode_spec(several.encoded)) == (one, several)
    assert one.model_digest == several.model_digest
    assert one.digest != several.digest
    with pytest.raises(SpecError) as refused:
        decode_spec(several.encoded.replace(b'"partitions":4', b'"partitions":0'))
    assert refused.value.target == "partitions"


# Merging


def taught(config: RidgeConfig, parts) -> list[bytes]:
    out = []
    for part in parts:
        learner = RidgeLearner(config, uncertainty=True)
        learner.learn(part)
        out.append(learner.checkpoint())
    return out


def posterior(config: RidgeConfig, checkpoint: bytes) -> dict[str, dict]:
    """Mean and variance by name of feature and of action, whatever the order of columns."""
    payload = msgspec.msgpack.decode(
        RidgeLearner(config, uncertainty=True, checkpoint=checkpoint).snapshot("1-0").payload
    )
    names, ids = payload["hashes"], payload["action_ids"]
    covariance = np.frombuffer(payload["covariance"]).reshape(len(names), len(names))
    return {
        "weights": dict(zip(names, np.frombuffer(payload["weights"]), strict=True)),
        "bias": dict(zip(ids, np.frombuffer(payload["bias"]), strict=True)),
        "covariance": {
            (a, b): covariance[i, j] for i, a in enumerate(names) for j, b in enumerate(names)
        },
    }


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_sums_of_partitions_give_the_posterior_of_one_learner_to_1e_9(count):
    config = RidgeConfig(interactions=[("context", "features")])
    whole = interactions(1, 400)
    parts = [
        [each for each in whole if partition_of(each.event_id, count) == k] for k in range(count)
    ]
    one = posterior(config, taught(config, [whole])[0])
    many = posterior(config, merge_ridge(config, taught(config, parts)))
    for name, values in one.items():
        assert values.keys() == many[name].keys()
        apart = max(abs(value - many[name][key]) for key, value in values.items())
        assert apart <= 1e-9, (name, apart)


def test_merging_ridge_does_not_depend_on_the_grouping_and_starts_from_nothing():
    config = RidgeConfig()
    one, two, three = taught(config, [interactions(seed, 50) for seed in range(3)])
    left = decode_sums(merge_ridge(config, [merge_ridge(config, [one, two]), three]))
    right = decode_sums(merge_ridge(config, [one, merge_ridge(config, [two, three])]))
    assert (left.hashes, left.action_ids, left.learned) == (right.hashes, right.action_ids, 150)
    for a, b in zip(left.arrays(), right.arrays(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    assert merge_ridge(config, []) == RidgeLearner(config).checkpoint()


def test_what_exceeds_the_number_of_features_is_left_out_of_a_merge():
    config = RidgeConfig(max_features=6)
    merged = decode_sums(
        merge_ridge(config, taught(config, [interactions(seed, 40) for seed in range(3)]))
    )
    assert len(merged.hashes) == 6
    assert merged.arrays()[0].shape == (6, 6)


@pytest.mark.parametrize(("by_row", "whole"), [(20, 20), (7, 60), (60, 7)])
def test_models_that_were_taught_in_two_ways_merge_and_go_on(by_row, whole):
    """There were 3 actions each time, so the count assumed of the other is right."""
    args = VwConfig().args
    base, parts = VwLearner(args, by_row=True).checkpoint(), []
    for seed, count in enumerate((by_row, whole)):
        learner = VwLearner(args, by_row=True, own_exploration=seed == 1, checkpoint=base)
        learner.learn(interactions(seed, count))
        parts.append(learner.checkpoint())
    assert [decode_model(each).available > 0 for each in parts] == [True, False]
    width = decode_model(parts[0]).available / by_row
    merged = decode_model(merge_vw(args, base, parts))
    assert (merged.learned, merged.available) == (by_row + whole, width * (by_row + whole))
    for onto, since, now in ((parts[0], base, parts[1]), (parts[1], base, parts[0])):
        carried = carry_vw(args, onto, since, now)
        assert decode_model(carried).available == merged.available
        VwLearner(args, by_row=True, own_exploration=True, checkpoint=carried).learn(
            interactions(3, 5)
        )


@pytest.mark.parametrize("args", ["--cb_explore_adf -b 20", "--cb_explore_adf --coin"])
def test_what_vw_cannot_merge_is_refused_with_what_to_do(args):
    with pytest.raises(SpecError) as refused:
        check_mergeable(args)
    assert refused.value.target == "learner.args"
    assert "partitions to 1" in refused.value.message


def test_vw_merges_are_deterministic_and_count_what_was_learned_once():
    args = VwConfig().args
    base = VwLearner(args, by_row=True)
    base.learn(interactions(0, 30))
    start, parts = base.checkpoint(), []
    for seed in (1, 2):
        learner = VwLearner(args, by_row=True, checkpoint=start)
        learner.learn(interactions(seed, 20))
        parts.append(learner.checkpoint())
    merged = merge_vw(args, start, parts)
    assert merged == merge_vw(args, start, parts)
    assert VwLearner(args, by_row=True, checkpoint=merged).learned == 70
    assert merge_vw(args, start, []) == start
    assert carry_vw(args, merged, parts[0], parts[0]) == merged
    carried = VwLearner(args, by_row=True, checkpoint=carry_vw(args, merged, start, parts[0]))
    assert carried.learned == 90
    carried.learn(interactions(3, 5))


# Folding P logs

EVENTS = st.tuples(st.just("decide"), st.integers(0, 2), st.none() | st.floats(-1, 1))
STEPS = st.one_of(
    EVENTS,
    EVENTS,
    st.tuples(st.just("wait"), st.integers(1, WINDOW), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 2), st.none()),
    st.tuples(st.just("checkpoint"), st.integers(0, 2), st.none()),
    st.tuples(st.just("merge"), st.sets(st.integers(0, 2)), st.sets(st.integers(1, 2), max_size=1)),
    st.tuples(st.just("restore"), st.integers(0, 9), st.none()),
)


def play(spec: PolicySpec, steps) -> Partitions:
    """Decisions, cuts, merges that are late or not repeated, checkpoints, rollbacks."""
    these = Partitions(spec)
    these.merge()
    for number, (kind, which, more) in enumerate(steps):
        if kind == "decide":
            for i in range(3):
                these.decide(f"{number}.{i}", which, more, hour=float(i))
        elif kind == "wait":
            these.wait(which)
        elif kind == "merge":
            these.merge(late=which, unread=more)
        elif kind == "restore":
            these.restore(these.merges[which % len(these.merges)])
        else:
            getattr(these, kind)(which)
    these.wait(3 * WINDOW)
    for partition in range(spec.partitions):
        these.cut(partition)
    these.merge()
    return these


def check(these: Partitions) -> None:
    """Folded together, from the start of the logs alone, every served model comes out again.

    And from checkpoints.
    """
    together = these.together()
    found = list(verify_partitions(together, these.served, build=BUILD))
    assert [each.verdict for each in found] == ["identical"] * len(these.served), found
    for fold, live in zip(together.folds, these.folds, strict=True):
        assert fold.learner.checkpoint() == live.learner.checkpoint()
        assert fold.join.counts == live.join.counts
        assert (fold.learned, fold.number, fold.inputs) == (live.learned, live.number, live.inputs)
    for partition, live in enumerate(these.folds):
        for data in these.pasts[partition].checkpoints.values():
            fold = these.fold(partition, decode_state(data))
            fold.apply(these.logs[partition].past(fold.position, "9999999999999-0"))
            assert fold.learner.checkpoint() == live.learner.checkpoint()
            assert (fold.learned, fold.number, fold.cut) == (live.learned, live.number, live.cut)


@pytest.mark.parametrize("name", ["ridge", "as it arrives", "forgets"])
@settings(max_examples=40)
@given(st.lists(STEPS, max_size=25))
def test_whatever_merges_do_the_logs_folded_together_give_what_was_served(name, steps):
    check(play(SPECS[name], steps))


@pytest.mark.parametrize("seed", range(8 if os.environ.get("BANDITLOOP_EVERY_FAULT") else 2))
def test_whatever_merges_do_the_logs_folded_together_give_what_was_served_with_vw(seed):
    """A merge of VW's models takes a tenth of a second, so a few of them stand for many."""
    rng = random.Random(seed)
    steps = [
        ("cut", 0, None),
        ("cut", 2, None),
        ("merge", {2}, {1}),
        ("checkpoint", 1, None),
        ("cut", 1, None),
    ]
    steps += [("decide", k, float(k)) for k in range(3)] * 3 + [
        ("restore", 1, None),
        ("merge", {0}, set()),
    ]
    rng.shuffle(steps)
    check(play(SPECS["vw"], steps))


@pytest.mark.parametrize("name", SPECS)
def test_a_merge_of_all_has_learned_what_every_log_taught_once(name):
    these = Partitions(SPECS[name])
    these.merge()
    for i in range(40):
        these.decide(f"e{i}", i % 3, float(i % 2))
    these.wait(3 * WINDOW)
    for partition in (0, 1, 2):
        these.cut(partition)
    these.merge(late=[1])
    late = these.folds[1].learned
    assert 0 < late < 40
    assert these.served[-1].snapshot.learned == 40 - late
    these.cut(1)
    these.merge()
    assert these.served[-1].snapshot.learned == 40
    check(these)


@pytest.mark.parametrize("name", SPECS)
def test_a_rollback_drops_what_came_after_in_every_partition(name):
    these = Partitions(SPECS[name])
    these.merge()
    for part in range(2):
        for i in range(12):
            these.decide(f"{part}.{i}", i % 3)
        these.wait(3 * WINDOW)
        for partition in range(3):
            these.cut(partition)
        these.merge()
    these.restore(these.merges[1])
    assert these.served[-1].snapshot.payload == these.served[1].snapshot.payload or name != "vw"
    assert these.served[-1].snapshot.learned == these.served[1].snapshot.learned == 12
    these.decide("after")
    these.wait(3 * WINDOW)
    for partition in range(3):
        these.cut(partition)
    these.merge()
    assert these.served[-1].snapshot.learned == 13
    check(these)


@pytest.mark.parametrize("name", SPECS)
def test_a_log_that_was_changed_is_found_out(name):
    these = Partitions(SPECS[name])
    these.merge()
    for i in range(30):
        these.decide(f"e{i}", i % 3, float(i % 2))
    these.wait(3 * WINDOW)
    for partition in range(3):
        these.cut(partition)
    these.merge()
    for log in these.logs:
        log.entries = [each for each in log.entries if getattr(each.record, "event_id", "") != "e7"]
    found = list(verify_partitions(these.together(), these.served, build=BUILD))
    broken = partition_of("e7", 3)
    assert any(each.snapshot_id == f"merge 2: partition {broken}" for each in found)
    assert {each.snapshot_id: each.verdict for each in found}["s2"] == "different"
    assert is_after(these.served[1].snapshot.position, these.served[0].snapshot.position)
