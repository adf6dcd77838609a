"""A fold with a half-life: a decision counts by its own entry's time, whenever it is taught."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_partitions import Partitions
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RANDOM_LOGS, RULE, WINDOW, decision, log_of
from support.priors import prior_rows
from support.strategies import decision_features

from bandits.exploration import LinTs, LinUcb
from bandits.log.codec import digest
from bandits.log.positions import log_order, position_ms
from bandits.log.records import (
    CheckpointRecord,
    Credit,
    PriorRecord,
    RewardRecord,
    RollbackRecord,
    TickRecord,
    WarmStartRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.ridge.model import RidgeModel
from bandits.types import Snapshot
from policies.artifacts.learner_model import TrainedModel
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

HALF_LIFE_MS = 15_000
SPEC = PolicySpec(
    "home",
    learner=RidgeConfig(l2=2.0, half_life="15s", interactions=[("context", "item")]),
    exploration=LinUcb(),
    join=RULE,
)
AS_IT_ARRIVES = msgspec.structs.replace(
    SPEC, join=msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct")
)
AT_CLOSE = msgspec.structs.replace(SPEC, join=msgspec.structs.replace(RULE, late="correct"))
SPECS = {"at close": SPEC, "as it arrives": AS_IT_ARRIVES, "corrected": AT_CLOSE}


def bounds(snapshot: Snapshot) -> list[float]:
    """Scores and upper bounds of a few actions, and what the model is worth."""
    model = RidgeModel(snapshot)
    context, actions = decision_features(3, 4, ids=("a", "b", "c", "new"))
    scores = model.scores(context, actions)
    return [*scores, *model.upper_bounds(context, actions, 1.0), model.worth]


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=20)
@given(steps=RANDOM_LOGS, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_any_batching_of_the_log_gives_the_same_bytes(name, steps, cuts):
    spec = SPECS[name]
    log = log_of(steps, spec, msgspec.structs.replace(spec, exploration=LinTs(draws=3)))
    whole, parts = log.fold(), log.fold(min(cut, len(log.entries)) for cut in cuts)
    assert whole.snapshot() == parts.snapshot()
    assert whole.learner.checkpoint() == parts.learner.checkpoint()


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=20)
@given(steps=RANDOM_LOGS, places=st.sets(st.integers(0, 60), min_size=1, max_size=4))
def test_a_fold_resumes_from_every_checkpoint_to_the_same_bytes(name, steps, places):
    for place in sorted(places, reverse=True):
        steps = [*steps[:place], (7, CheckpointRecord()), *steps[place:]]
    log = log_of(steps, SPECS[name])
    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    whole.apply(log.entries)

    assert past.checkpoints
    for position, data in past.checkpoints.items():
        resumed = Fold(log.blobs.__getitem__, salt=SALT, past=past)
        resumed.resume(decode_state(data), past)
        resumed.apply(log.past(position, log.entries[-1].id))
        assert resumed.snapshot() == whole.snapshot()
        assert resumed.learner.checkpoint() == whole.learner.checkpoint()


@settings(max_examples=60)
@given(RANDOM_LOGS, st.sampled_from(["ignore", "correct"]), st.sampled_from(["first", "sum"]))
def test_as_it_arrives_ends_where_at_close_does_to_1e_9(steps, late, aggregation):
    """Each correction counts as its decision does, also when the epoch has moved in between."""
    rule = msgspec.structs.replace(RULE, late=late, aggregation=aggregation)
    one, other = (
        log_of(
            steps, msgspec.structs.replace(SPEC, join=msgspec.structs.replace(rule, learn=learn))
        )
        .fold()
        .snapshot()
        for learn in ("at_close", "as_it_arrives")
    )
    assert one.learned == other.learned
    assert bounds(one) == pytest.approx(bounds(other), abs=1e-9)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, 1.0, -2.0]), st.integers(0, 40_000)),
        min_size=1,
        max_size=40,
    )
)
def test_four_partitions_merged_are_one_log_to_1e_9(visits):
    four = Partitions(msgspec.structs.replace(SPEC, partitions=4))
    alone = Partitions(msgspec.structs.replace(SPEC, partitions=1))
    for these in (four, alone):
        for number, (chosen, reward, wait) in enumerate(visits):
            these.decide(f"e{number}", chosen, reward, hour=float(number % 3))
            these.wait(wait)
        these.wait(3 * WINDOW)
        for partition in range(these.spec.partitions):
            these.cut(partition)
        these.merge()
    merged, one = (each.served[-1].snapshot for each in (four, alone))
    assert (merged.learned, position_ms(merged.position)) == (
        one.learned,
        position_ms(one.position),
    )
    assert bounds(merged) == pytest.approx(bounds(one), abs=1e-9)


def visits(spec: PolicySpec, count: int, *, start: int = 0, every: int = 900) -> list:
    return [
        step
        for number in range(start, start + count)
        for step in (
            (every, decision(f"e{number}", chosen=(number % 3,))),
            (3, RewardRecord(f"e{number}", float(number % 2))),
        )
    ]


def test_a_decision_counts_by_its_own_time_and_not_by_when_it_was_taught():
    """It is taught a window after it was made."""
    log = log_of([(1000, decision("old")), (30_000, decision("young"))], SPEC)
    fold = log.fold()
    now = position_ms(fold.position)
    times = [each.time_ms for each in log.entries if hasattr(each.record, "event_id")]
    expected = sum(2 ** (-(now - time) / HALF_LIFE_MS) for time in times)
    assert len(times) == 2
    assert RidgeModel(fold.snapshot()).worth == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_a_rollback_restores_what_was_learned_which_has_aged_since(name):
    spec = SPECS[name]
    log = log_of(visits(spec, 20), spec)
    then = log.fold()
    after = position_ms(then.position)
    for number in range(6):
        record = decision(f"l{number}", spec=spec.digest, catalogue=Catalogue().digest)
        log.append(record, at=after + 100 * (1 + number))
    log.append(CheckpointRecord(), at=after + 3 * WINDOW)
    log.append(RollbackRecord("s", then.position), at=after + 3 * WINDOW + 1)
    fold = log.fold()
    assert fold.learner.checkpoint() == then.learner.checkpoint()
    aged = 2 ** (-(position_ms(fold.position) - after) / HALF_LIFE_MS)
    worth = RidgeModel(then.snapshot()).worth
    assert RidgeModel(fold.snapshot()).worth == pytest.approx(aged * worth, rel=1e-12)

    past = FakePast(log)
    Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep).apply(log.entries)
    again = Fold(log.blobs.__getitem__, salt=SALT, past=past)
    position = max(past.checkpoints, key=log_order)
    again.resume(decode_state(past.checkpoints[position]), past)
    again.apply(log.past(position, log.entries[-1].id))
    assert again.snapshot() == fold.snapshot()


def test_a_warm_start_goes_on_with_the_ages_that_its_decisions_have():
    trained = log_of(visits(SPEC, 20), SPEC).fold()
    model = TrainedModel(
        spec_bytes=SPEC.encoded, learned=trained.learned, checkpoint=trained.learner.checkpoint()
    )
    log = FakeLog(SPEC)
    named = digest(model.encoded)
    log.blobs |= {named: model.encoded, Catalogue().digest: Catalogue().encoded}
    log.append(WarmStartRecord(named), at=1000)
    # In its own log the newest decision is later than this, and is as new as can be.
    early = RidgeModel(log.fold().snapshot()).worth
    log.append(TickRecord(), at=position_ms(trained.position))
    fold = log.fold()
    assert fold.learned == trained.learned
    assert bounds(fold.snapshot()) == pytest.approx(bounds(trained.snapshot()), abs=1e-12)
    assert early > RidgeModel(fold.snapshot()).worth


@pytest.mark.parametrize("respec", [False, True], ids=["by its entry", "by a new spec's"])
def test_a_prior_fades_from_the_entry_that_has_it_taught(respec):
    """Its own, or that of the spec which begins another model with it."""
    rows = prior_rows(decisions=30, chances=(0.2, 0.5, 0.8))
    log, taught_at = FakeLog(SPEC), 5000
    log.blobs |= {rows.digest: rows.encoded, Catalogue().digest: Catalogue().encoded}
    log.append(PriorRecord(rows.digest, 0.5), at=taught_at)
    if respec:
        taught_at = 50_000
        changed = msgspec.structs.replace(SPEC.learner, l2=3.0)
        log.configure(msgspec.structs.replace(SPEC, learner=changed), at=taught_at)
    log.append(TickRecord(), at=taught_at + HALF_LIFE_MS)
    fold = log.fold()
    assert fold.prior.taught.counted == 45
    assert RidgeModel(fold.snapshot()).worth == pytest.approx(22.5, rel=1e-12)


def test_another_half_life_is_another_model():
    """So a log that had none goes on as it was, and a spec that sets one begins anew."""
    plain = msgspec.structs.replace(
        SPEC, learner=msgspec.structs.replace(SPEC.learner, half_life=msgspec.UNSET)
    )
    longer = msgspec.structs.replace(
        SPEC, learner=msgspec.structs.replace(SPEC.learner, half_life="16s")
    )
    assert b"half_life" not in plain.encoded
    assert len({each.model_digest for each in (plain, SPEC, longer)}) == 3
    fold = log_of(visits(plain, 20, every=2000), plain, SPEC).fold()
    assert 0 < fold.snapshot().learned < fold.learned


def test_a_mixture_forgets_as_well():
    """Its sources are the actions; each decision counts by its own time."""
    sources = [{"kind": "remote", "name": name, "url": "http://x"} for name in ("cf", "deep")]
    spec = msgspec.convert(
        {
            "name": "home",
            "kind": "mixture",
            "sources": sources,
            "learner": {"kind": "ridge", "half_life": "15s"},
            "join": {"window_s": WINDOW / 1000},
        },
        PolicySpec,
    )
    scores = {name: np.array([0.1, np.nan, 3.0], "<f4").tobytes() for name in ("cf", "deep")}
    credit = Credit(["cf", "deep"], np.array([0.5, 0.5]).tobytes(), [1])
    steps = [
        (wait, decision(f"e{number}", scores=scores, credit=credit))
        for number, wait in enumerate((1000, 9000))
    ]
    log = log_of(steps, spec)
    fold = log.fold()
    now = position_ms(fold.position)
    times = [each.time_ms for each in log.entries if hasattr(each.record, "event_id")]
    expected = sum(2 ** (-(now - time) / HALF_LIFE_MS) for time in times)
    assert fold.learned == 2
    assert RidgeModel(fold.snapshot()).worth == pytest.approx(expected, rel=1e-12)
