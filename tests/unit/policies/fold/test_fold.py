"""The fold: the same log gives the same bytes, however it was cut, resumed or rolled back."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RANDOM_LOGS, RULE, WINDOW, decision, log_of

from bandits.errors import CodecError
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, VwExploration
from bandits.log.join import Join, JoinedDecision
from bandits.log.positions import START, log_order
from bandits.log.records import (
    ArtifactRecord,
    CatalogueRecord,
    CheckpointRecord,
    LogEntry,
    LogRecord,
    PinRecord,
    RewardRecord,
    RollbackRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.types import Interaction, Learner
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner
from policies.blend import load_policy
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec

SPEC = PolicySpec("home", learner=RidgeConfig(l2=2.0), exploration=LinTs(draws=5), join=RULE)
VW_SPEC = msgspec.structs.replace(
    SPEC, learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8 -q ci"), exploration=EpsilonGreedy()
)


@settings(max_examples=30)
@given(RANDOM_LOGS, st.lists(st.integers(0, 60), max_size=5))
def test_any_batching_of_the_log_gives_the_same_bytes(steps, cuts):
    log = log_of(steps, SPEC, msgspec.structs.replace(SPEC, floor=0.5))
    whole, parts = log.fold(), log.fold(min(cut, len(log.entries)) for cut in cuts)
    assert whole.snapshot() == parts.snapshot()
    assert whole.learner.checkpoint() == parts.learner.checkpoint()
    assert whole.join.counts == parts.join.counts
    assert whole.position == parts.position == log.entries[-1].id


@settings(max_examples=10)
@given(RANDOM_LOGS, st.lists(st.integers(0, 60), max_size=3))
def test_any_batching_of_the_log_gives_the_same_bytes_with_vw(steps, cuts):
    log = log_of(steps, VW_SPEC)
    whole, parts = log.fold(), log.fold(min(cut, len(log.entries)) for cut in cuts)
    assert whole.snapshot() == parts.snapshot()
    assert whole.learner.checkpoint() == parts.learner.checkpoint()


def test_making_snapshots_on_the_way_changes_nothing():
    log = log_of([(1000, decision(f"e{i}", holdout=False)) for i in range(30)], SPEC)
    watched = log.fold([0])
    fold = type(watched)(log.blobs.__getitem__, salt=b"test salt")
    for entry in log.entries:
        fold.apply([entry])
        fold.snapshot()
    assert fold.snapshot() == watched.snapshot()


def slate_interactions(spec: PolicySpec) -> tuple[Interaction, Interaction]:
    log = log_of([(1, decision(chosen=(2, 0))), (1, RewardRecord("e", 5.0, slot=1))], spec)
    fold = log.fold()
    first, second = fold.interactions(
        JoinedDecision("1-0", log.entries[1].record, (0, 1), (0.0, 5.0))
    )
    assert fold.learned == fold.snapshot().learned == 2
    assert (first.propensity, first.reward) == (1 / 3, 0.0)
    assert (second.propensity, second.reward) == (1 / 2, 5.0)
    return first, second


def test_a_slate_teaches_vw_one_interaction_per_slot_among_the_actions_that_were_left():
    vw = msgspec.structs.replace(SPEC, learner=VwConfig(), exploration=EpsilonGreedy(0.1))
    first, second = slate_interactions(vw)
    assert (first.actions.ids, first.chosen) == (("a", "b", "c"), 2)
    assert (second.actions.ids, second.chosen) == (("a", "b"), 0)


def rich_log(spec: PolicySpec) -> tuple[FakeLog, list[Interaction]]:
    """Request features, catalogue features, scores with gaps, slates.

    And the whole interactions it teaches.
    """
    catalogue = Catalogue(
        [Item("a", {"x": 0.1, "kind": ["new", "long"]}), Item("b", {"x": 0.0, "on": True})]
    )
    log = FakeLog(spec)
    log.blobs[catalogue.digest] = catalogue.encoded
    scores = {
        "cf": np.array([0.1, np.nan, 3.0], "<f4").tobytes(),
        "deep": np.array([1, 1, 2], "<f4").tobytes(),
    }
    for i in range(20):
        features = None if i % 3 else [None, {"x": 0.3, "y": f"v{i}"}, {"x": False}]
        record = decision(
            f"e{i}", chosen=(i % 3, (i + 1) % 3), features=features, scores=scores if i % 2 else {}
        )
        context = {"hour": i / 7, "device": "phone", "tags": ["p", "q"], "zero": 0.0}
        log.append(
            msgspec.structs.replace(
                record, spec=spec.digest, catalogue=catalogue.digest, context=context
            ),
            at=10 + i,
        )
    log.append(RewardRecord("e3", 2.0, slot=1), at=40)
    log.append(TickRecord(), at=50 + WINDOW)
    fold, join = log.fold(), Join(lambda _: RULE, RULE)
    return log, [
        each
        for entry in log.entries
        for joined in join.apply(entry)
        for each in fold.interactions(joined)
    ]


def test_ridge_learns_from_rows_what_it_would_learn_from_whole_interactions():
    spec = msgspec.structs.replace(
        SPEC,
        learner=RidgeConfig(
            interactions=[("context", "features"), ("context", "scores")], action_bias=False
        ),
    )
    log, interactions = rich_log(spec)
    fold, whole = log.fold(), RidgeLearner(spec.learner)
    whole.learn(interactions)
    assert fold.learned == 40
    assert statistics(fold) == pytest.approx(statistics_of(whole), abs=1e-12)


def test_vw_learns_from_rows_what_it_would_learn_from_whole_interactions():
    """Byte for byte, of a learner that is shown all actions."""
    spec = msgspec.structs.replace(
        VW_SPEC, learner=VwConfig("--cb_explore_adf --cb_type mtr -q cf -q cs -q ci")
    )
    log, interactions = rich_log(spec)
    fold, whole = log.fold(), VwLearner("--cb_explore_adf --cb_type mtr -q cf -q cs -q ci")
    assert fold.learner.by_row
    whole.learn(interactions)
    assert fold.learned == whole.learned == 40
    assert fold.snapshot().payload == whole.snapshot("1-0").payload


def test_a_holdout_decision_is_joined_and_not_learned():
    fold = log_of([(1, decision(holdout=True)), (1, RewardRecord("e", 1.0))], SPEC).fold()
    assert fold.join.counts["closed"] == fold.join.counts["joined"] == 1
    assert fold.learned == 0


def test_a_reward_no_decision_was_rewarded_with_changes_no_byte():
    """Early, late, duplicate, orphan and invalid rewards leave the model as it was."""
    steps = [(1, decision()), (1, RewardRecord("e", 1.0, "r"))]
    useless = [
        (0, RewardRecord("e", 5.0, "r")),
        (0, RewardRecord("e", 5.0, "r2", slot=4)),
        (0, RewardRecord("other", 5.0)),
    ]
    late = [(WINDOW, RewardRecord("e", 5.0))]
    assert (
        log_of(steps, SPEC).fold().learner.checkpoint()
        == log_of(steps + useless + late, SPEC).fold().learner.checkpoint()
    )


def test_a_new_spec_with_the_same_model_keeps_what_was_learned():
    steps = [(1000, decision(f"e{i}")) for i in range(30)]
    changed = msgspec.structs.replace(SPEC, floor=0.3, exploration=LinUcb())
    fold = log_of(steps, SPEC, changed).fold()
    assert fold.learned == fold.snapshot().learned == 30
    assert fold.learner.checkpoint() == log_of(steps, SPEC).fold().learner.checkpoint()
    load_policy(changed, fold.snapshot())  # the snapshot holds what the new exploration needs


def test_a_new_spec_with_another_model_starts_afresh_and_skips_what_the_old_one_chose():
    steps = [(1000, decision(f"e{i}")) for i in range(30)]
    changed = msgspec.structs.replace(SPEC, learner=RidgeConfig(l2=7.0))
    fold = log_of(steps, SPEC, changed).fold()
    assert 0 < fold.snapshot().learned == 15 < fold.learned


def test_an_entry_that_is_no_event_only_lets_time_pass():
    log = log_of([(1, decision())], SPEC)
    other = log_of([(1, decision())], SPEC)
    other.entries[-1] = LogEntry(other.entries[-1].id, PinRecord("s"))
    assert log.fold().snapshot() == other.fold().snapshot()


def test_a_catalogue_that_the_log_names_is_used_from_there_on():
    first, second = Catalogue([Item("a", {"x": 1.0})]), Catalogue([Item("a", {"x": 2.0})])
    log = FakeLog(SPEC)
    for catalogue in (first, second):
        log.blobs[catalogue.digest] = catalogue.encoded
        log.append(CatalogueRecord(catalogue.digest), at=2)
    log.append(decision(spec=SPEC.digest, catalogue=first.digest), at=3)
    log.append(TickRecord(), at=3 + WINDOW)
    fold = log.fold()
    assert fold.catalogue.digest == second.digest
    (interaction,) = fold.interactions(JoinedDecision("3-0", log.entries[3].record, (0,), (1.0,)))
    values = {ns.name: ns.values for ns in interaction.actions.namespaces}["features"]
    assert values[0, 0] == 1.0  # the catalogue it was decided with, not the newest


# Checkpoints, pins and rollbacks at random places of a random log

ARRIVES = msgspec.structs.replace(RULE, learn="as_it_arrives", aggregation="sum", late="correct")
VARIANTS = {
    "ridge": SPEC,
    "ridge as it arrives": msgspec.structs.replace(SPEC, join=ARRIVES),
    "ridge, late corrected": msgspec.structs.replace(
        SPEC, join=msgspec.structs.replace(RULE, late="correct")
    ),
    "vw": VW_SPEC,
    "vw as it arrives": msgspec.structs.replace(
        VW_SPEC, join=msgspec.structs.replace(RULE, learn="as_it_arrives")
    ),
    "vw bag": msgspec.structs.replace(
        VW_SPEC, learner=VwConfig("--cb_explore_adf --bag 3 -b 8"), exploration=VwExploration()
    ),
}
CONTROLS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["checkpoint", "checkpoint", "pin", "rollback"]),
        st.floats(0, 1),
    ),
    max_size=6,
)


def controlled(log: FakeLog, controls: list[tuple[float, str, float]]) -> FakeLog:
    """The log with checkpoints, pins and rollbacks (to a place before them) put in."""
    log.entries = [LogEntry(_later(entry.id, times=1000), entry.record) for entry in log.entries]
    for number, (where, kind, back) in enumerate(controls):
        at = 1 + int(where * (len(log.entries) - 1))
        record: LogRecord = CheckpointRecord()
        if kind == "pin":
            record = PinRecord("s")
        elif kind == "rollback":
            record = RollbackRecord("s", log.entries[int(back * (at - 1))].id)
        log.entries.append(LogEntry(_later(log.entries[at - 1].id, plus=2**number), record))
        log.entries.sort(key=lambda entry: log_order(entry.id))
    return log


def _later(position: str, *, times: int = 1, plus: int = 0) -> str:
    """Another position of the same time: sums of different powers of two keep them apart."""
    milliseconds, sequence = log_order(position)
    return f"{milliseconds}-{sequence * times + plus}"


def bytes_of(fold: Fold) -> bytes:
    return msgspec.msgpack.encode(fold.state()) + msgspec.msgpack.encode(fold.snapshot().payload)


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=15)
@given(steps=RANDOM_LOGS, controls=CONTROLS, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_any_batching_and_any_resume_give_the_same_bytes(name, steps, controls, cuts):
    """From the start, in batches, and from each checkpoint on its way: one state."""
    log = controlled(
        log_of(steps, VARIANTS[name], msgspec.structs.replace(VARIANTS[name], floor=0.5)), controls
    )
    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    whole.apply(log.entries)
    expected = bytes_of(whole)
    assert bytes_of(log.fold(min(cut, len(log.entries)) for cut in cuts)) == expected
    for position, data in past.checkpoints.items():
        resumed = Fold(log.blobs.__getitem__, salt=SALT, past=past)
        resumed.resume(decode_state(data), past)
        assert resumed.position == position
        resumed.apply(past.entries(position, log.entries[-1].id))
        assert bytes_of(resumed) == expected


@settings(max_examples=60)
@given(
    steps=RANDOM_LOGS,
    late=st.sampled_from(["ignore", "correct"]),
    aggregation=st.sampled_from(["first", "last", "sum", "max"]),
)
def test_learning_as_it_arrives_ends_where_learning_at_close_ends(steps, late, aggregation):
    rule = msgspec.structs.replace(RULE, aggregation=aggregation, late=late)
    ends = []
    for learn in ("at_close", "as_it_arrives"):
        spec = msgspec.structs.replace(SPEC, join=msgspec.structs.replace(rule, learn=learn))
        ends.append(log_of(steps, spec).fold())
    close, arrive = (statistics(fold) for fold in ends)
    assert close.keys() == arrive.keys()
    for key, value in close.items():
        assert arrive[key] == pytest.approx(value, abs=1e-9)
    assert ends[0].join.counts == ends[1].join.counts


def statistics(fold: Fold) -> dict[object, float]:
    """A and b by feature hash, and each action's own sums: whatever the order they were met in."""
    return statistics_of(fold.learner)


def statistics_of(learner: Learner) -> dict[object, float]:
    state = msgspec.msgpack.decode(learner.checkpoint())
    hashes, names = state["hashes"], state["action_ids"]
    matrix = np.frombuffer(state["a"]).reshape(len(hashes), -1)
    out: dict[object, float] = {
        (h, g): matrix[i, j] for i, h in enumerate(hashes) for j, g in enumerate(hashes)
    }
    out |= {h: np.frombuffer(state["b"])[i] for i, h in enumerate(hashes)}
    out |= {(name, "n"): np.frombuffer(state["count"])[i] for i, name in enumerate(names)}
    return out | {(name, "r"): np.frombuffer(state["total"])[i] for i, name in enumerate(names)}


def test_as_it_arrives_the_model_knows_a_reward_before_its_window_closes():
    spec = VARIANTS["ridge as it arrives"]
    log = FakeLog(spec)
    log.append(decision(spec=spec.digest, catalogue=Catalogue().digest), at=10)
    assert log.fold().learned == 1
    untold = statistics(log.fold())[("a", "r")]
    log.append(RewardRecord("e", 1.0, "r1"), at=11)
    log.append(RewardRecord("e", 1.0, "r2"), at=12)
    assert untold == -1.0
    assert statistics(log.fold())[("a", "r")] == 2.0


def test_a_late_reward_corrects_the_model_if_the_spec_says_so():
    for late, expected in (("ignore", -1.0), ("correct", 4.0)):
        spec = msgspec.structs.replace(SPEC, join=msgspec.structs.replace(RULE, late=late))
        log = FakeLog(spec)
        log.append(decision(spec=spec.digest, catalogue=Catalogue().digest), at=10)
        log.append(RewardRecord("e", 4.0), at=11 + WINDOW)
        fold = log.fold()
        assert fold.join.counts["late"] == 1
        assert statistics(fold)[("a", "r")] == expected


def test_a_rollback_restores_the_model_and_does_not_relearn_what_came_after():
    steps = [(1000, decision(f"e{i}")) for i in range(40)]
    log = log_of(steps[:25], SPEC)
    there = log.entries[15].id
    was = Fold(log.blobs.__getitem__, salt=SALT)
    was.apply(log.past(START, there))
    log.append(RollbackRecord("s", there), at=100_000)
    fold = log.fold()
    assert 0 < was.learned == fold.learned < 25
    assert fold.learner.checkpoint() == was.learner.checkpoint()
    # other posterior draws, at another position
    assert fold.snapshot().payload != was.snapshot().payload
    assert not fold.refused_rollbacks


def test_a_rollback_returns_to_the_artifact_that_its_snapshot_was_served_with():
    other = msgspec.structs.replace(SPEC, learner=RidgeConfig(l2=7.0))

    def artifact(spec: PolicySpec, rollback: RollbackRecord) -> str | None:
        log = FakeLog(SPEC)
        for at, version in ((10, "v1"), (20, "v2")):
            log.append(ArtifactRecord(version), at=at)
        log.configure(spec, at=30)
        log.append(rollback, at=40)
        return log.fold().artifact

    assert artifact(SPEC, RollbackRecord("s", "10-0", "v1")) == "v1"
    assert artifact(SPEC, RollbackRecord("s", "10-0")) == "v2", "as earlier builds wrote it"
    assert artifact(other, RollbackRecord("s", "10-0", "v1")) == "v2", "it is refused"


def test_a_window_that_is_open_at_a_rollback_is_learned_when_it_closes():
    for name in ("ridge", "ridge as it arrives", "vw"):
        spec = VARIANTS[name]
        log = FakeLog(spec)
        log.append(decision("lost", spec=spec.digest, catalogue=Catalogue().digest), at=10)
        log.append(decision("open", spec=spec.digest, catalogue=Catalogue().digest), at=5000)
        log.append(TickRecord(), at=12_000)
        log.append(RollbackRecord("s", "5-0"), at=12_001)
        log.append(RewardRecord("open", 3.0), at=12_002)
        log.append(TickRecord(), at=5000 + WINDOW)
        assert log.fold().learned == 1, name


def test_a_rollback_past_a_change_of_the_model_is_refused():
    changed = msgspec.structs.replace(SPEC, learner=RidgeConfig(l2=7.0))
    log = log_of([(1000, decision(f"e{i}")) for i in range(30)], SPEC, changed)
    without = log.fold().learner.checkpoint()
    log.append(RollbackRecord("s", log.entries[5].id), at=200_000)
    fold = log.fold()
    assert fold.refused_rollbacks == 1
    assert fold.learner.checkpoint() == without


def test_a_pin_holds_until_it_is_taken_back_rolled_back_or_the_spec_changes():
    def pinned(*records: LogRecord) -> str | None:
        log = FakeLog(SPEC)
        other = msgspec.structs.replace(SPEC, floor=0.2)
        log.blobs[other.digest] = other.encoded
        for at, record in enumerate(records):
            log.append(record, at=10 + at)
        return log.fold().pinned

    other = msgspec.structs.replace(SPEC, floor=0.2).digest
    assert pinned(PinRecord("s1"), TickRecord(), CheckpointRecord()) == "s1"
    assert pinned(PinRecord("s1"), PinRecord(None)) is None
    assert pinned(PinRecord("s1"), RollbackRecord("s1", "1-0")) is None
    assert pinned(PinRecord("s1"), SpecRecord(other, "salt")) is None
    assert pinned(PinRecord("s1"), SpecRecord(SPEC.digest, "salt")) == "s1"


def test_a_checkpoint_whose_decisions_are_gone_from_the_log_is_refused():
    log = log_of([(1000, decision(f"e{i}")) for i in range(5)], SPEC)
    fold = Fold(log.blobs.__getitem__, salt=SALT)
    fold.apply(log.entries[:4])
    state = fold.state()
    assert state.needed == log.entries[1].id
    del log.entries[2]
    with pytest.raises(CodecError, match="no decision"):
        Fold(log.blobs.__getitem__, salt=SALT).resume(state, FakePast(log))


@pytest.mark.parametrize(
    "data", [b"", b"junk", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode({"a": 1})]
)
def test_junk_is_no_checkpoint(data):
    with pytest.raises(CodecError):
        decode_state(data)
