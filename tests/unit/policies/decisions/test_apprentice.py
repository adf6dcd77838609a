"""An apprentice: the caller's choice is served and logged as what it was, and it learns beside."""

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker

from banditloop_client.schemas import BaselineProbabilities
from bandits.errors import InvalidFieldError, SpecError
from bandits.log.codec import decode, encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import DecisionRecord, RewardRecord, TickRecord
from policies.explain.live import LiveExplainer
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource, decode_spec, spec_of
from simulator.doctor.audit import redraws

ACTIONS = [ActionRequest(name, {"kind": name}) for name in "abcd"]
SPEC = spec_of({"name": "home", "mode": "apprentice", "join": {"window_s": 5}})
SOURCES = [RemoteSource("old", "http://x"), RemoteSource("new", "http://x")]


def asked(number: int = 0, **fields) -> RankRequest:
    return RankRequest(**{"event_id": f"e{number}", "actions": ACTIONS, **fields})


async def decided(spec: PolicySpec, **fields) -> DecisionRecord:
    return await fresh_ranker(spec).rank(asked(**fields))


def served(record: DecisionRecord) -> tuple[str, list[str], list[float]]:
    """Whose choice was served, which it was, and its propensities."""
    assert record.apprentice is not None
    slots = range(len(record.chosen))
    return (
        record.apprentice.served,
        [record.action_ids[at] for at in record.chosen],
        [record.propensity(slot) for slot in slots],
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("first", ["a"], [1.0])),
        ({"exclude": ["a"]}, ("first", ["b"], [1.0])),
        ({"slots": 3}, ("first", ["a", "b", "c"], [1.0] * 3)),
        ({"baseline": "c"}, ("request", ["c"], [1.0])),
        ({"baseline": ["d", "a"], "slots": 2}, ("request", ["d", "a"], [1.0] * 2)),
        (
            {"baseline": BaselineProbabilities({"a": 0.75, "d": 0.25}, "d")},
            ("request", ["d"], [0.25]),
        ),
        ({"baseline": BaselineProbabilities({"b": 1.0})}, ("drawn", ["b"], [1.0])),
    ],
)
async def test_what_the_caller_chose_is_served_and_logged_as_what_it_was(fields, expected):
    record = await decided(SPEC, **fields)
    assert served(record) == expected
    assert decode(encode(record)) == record
    assert redraws(record, SALT)


async def test_the_apprentices_own_choice_is_what_it_would_have_decided_itself():
    """It is drawn by a uniform of its own: what is served tells nothing of it."""
    online, beside = fresh_ranker(msgspec.structs.replace(SPEC, mode="online")), fresh_ranker(SPEC)
    agreed = 0
    for number in range(300):
        alone, record = await online.rank(asked(number)), await beside.rank(asked(number))
        own = record.own()
        assert own.pmf == alone.pmf
        assert own.apprentice is None
        agreed += own.chosen == alone.chosen
    # Two draws of one in four agree in a quarter, within 4 standard errors (6e-5).
    assert abs(agreed / 300 - 0.25) < 4 * np.sqrt(0.1875 / 300)


async def test_probabilities_of_the_caller_are_drawn_from_exactly():
    probabilities = BaselineProbabilities({"a": 0.7, "b": 0.2, "c": 0.1})
    ranker, counts = fresh_ranker(SPEC), np.zeros(4)
    for number in range(2000):
        record = await ranker.rank(asked(number, baseline=probabilities))
        assert record.pmfs()[0].tolist() == [0.7, 0.2, 0.1, 0.0]
        assert redraws(record, SALT)
        counts[record.chosen[0]] += 1
    expected = np.array([0.7, 0.2, 0.1])
    errors = np.sqrt(expected * (1 - expected) / 2000)
    assert (np.abs(counts[:3] / 2000 - expected) < 4 * errors).all()


@pytest.mark.parametrize(
    ("fields", "target", "says"),
    [
        ({"baseline": "z"}, "baseline", "none of the actions"),
        ({"baseline": "a", "exclude": ["a"]}, "baseline", "the request excludes it"),
        ({"baseline": "a", "slots": 2}, "baseline", "one action for each of 2 slots"),
        ({"baseline": ["a", "a"], "slots": 2}, "baseline", "none twice"),
        ({"baseline": []}, "baseline", "one action for each of 1 slots"),
        ({"baseline": BaselineProbabilities({"a": 0.5})}, "baseline.probabilities", "sums to 1"),
        ({"baseline": BaselineProbabilities({})}, "baseline.probabilities", "sums to 1"),
        (
            {"baseline": BaselineProbabilities({"a": 1.5, "b": -0.5})},
            "baseline.probabilities",
            "negative",
        ),
        (
            {"baseline": BaselineProbabilities({"a": 0.5, "z": 0.5})},
            "baseline.probabilities",
            "none of the actions",
        ),
        ({"baseline": BaselineProbabilities({"a": 1.0}, "b")}, "baseline.id", "no probability"),
        ({"baseline": BaselineProbabilities({"a": 1.0}, "z")}, "baseline.id", "none of the"),
        (
            {"baseline": BaselineProbabilities({"a": 1.0}), "slots": 2},
            "baseline",
            "of one slot",
        ),
    ],
)
async def test_a_baseline_that_cannot_be_served_is_refused_by_the_name_of_its_field(
    fields, target, says
):
    with pytest.raises(InvalidFieldError, match=says) as refused:
        await decided(SPEC, **fields)
    assert refused.value.target == target


async def test_a_policy_that_decides_itself_does_not_look_at_the_baseline():
    """So going online changes no caller."""
    online = msgspec.structs.replace(SPEC, mode="online")
    record = await decided(online, baseline="nobody")
    assert record.apprentice is None
    assert record.pmfs()[0].max() < 1.0
    assert online.digest == msgspec.structs.replace(SPEC, mode=msgspec.UNSET).digest


async def test_the_best_of_a_source_is_served_and_what_it_does_not_know_is_not_its_own():
    spec = msgspec.structs.replace(SPEC, sources=SOURCES, baseline="old")
    old, new = FakeSource("old", {"x": 1.0, "y": 3.0}), FakeSource("new", {"w": 9.0, "x": 1.0})
    ranker = fresh_ranker(spec, [old, new])
    assert served(await ranker.rank(RankRequest(history=["h"]))) == ("source", ["y"], [1.0])
    two = RankRequest(history=["h"], slots=2)
    assert served(await ranker.rank(two)) == ("source", ["y", "x"], [1.0, 1.0])
    named = RankRequest(history=["h"], baseline="w")
    assert served(await ranker.rank(named))[:2] == ("request", ["w"])

    # It does not answer: somebody has to be served, and it is said that it was not its choice.
    old.failing = True
    record = await ranker.rank(RankRequest(history=["h"]))
    assert served(record)[0] == "first"
    assert record.failed == {"old": "old is down"}


async def test_of_the_candidates_of_sources_none_is_the_first():
    spec = msgspec.structs.replace(SPEC, sources=SOURCES)
    ranker = fresh_ranker(spec, [FakeSource("old", {"x": 1.0}), FakeSource("new", {"y": 1.0})])
    with pytest.raises(InvalidFieldError, match="name a source as the spec's baseline"):
        await ranker.rank(RankRequest(history=["h"]))
    with pytest.raises(InvalidFieldError, match="no source proposes it"):
        await ranker.rank(RankRequest(history=["h"], baseline="z"))


async def test_a_filter_that_refuses_the_baseline_says_so():
    spec = spec_of(
        {"name": "home", "mode": "apprentice", "filter": 'item.kind != "c"'},
    )
    with pytest.raises(InvalidFieldError, match="filter refuses it"):
        await decided(spec, baseline="c")
    assert served(await decided(spec))[1] == ["a"]


async def test_the_holdout_is_served_beside_an_apprentice_too():
    record = await decided(msgspec.structs.replace(SPEC, holdout=Holdout(1.0)))
    assert record.holdout
    assert record.apprentice is not None
    assert record.apprentice.served == "holdout"
    assert record.pmfs()[0].tolist() == [0.25] * 4
    assert redraws(record, SALT)


async def test_a_wrong_baseline_is_refused_of_whoever_is_held_out_too():
    """Else a caller's fault would show in some requests, and in others not."""
    with pytest.raises(InvalidFieldError, match="nobody"):
        await decided(msgspec.structs.replace(SPEC, holdout=Holdout(1.0)), baseline="nobody")


@pytest.mark.parametrize(
    ("raw", "target", "says"),
    [
        ({"mode": "apprentise"}, "mode", "apprentise"),
        ({"learn": "imitation"}, "learn", "set mode to apprentice"),
        ({"baseline": "cf"}, "baseline", "set mode to apprentice"),
        ({"mode": "online", "learn": "rewards"}, "learn", "set mode to apprentice"),
        ({"mode": "apprentice", "baseline": "cf"}, "baseline", "one of the sources"),
        ({"mode": "apprentice", "page": {"most": {"kind": 1}}}, "page", "leave page out"),
        (
            {"mode": "apprentice", "quota": [{"when": "true", "at_least": 0.1, "within": "1h"}]},
            "quota",
            "leave quota out",
        ),
        (
            {"mode": "apprentice", "placements": [{"item": "a", "slot": 0}]},
            "placements",
            "leave placements out",
        ),
        (
            {
                "mode": "apprentice",
                "kind": "mixture",
                "sources": [{"kind": "remote", "name": "cf", "url": "http://x"}],
            },
            "mode",
            "make it a blend",
        ),
        (
            {
                "mode": "apprentice",
                "learn": "imitation",
                "kind": "rl",
                "learner": {"kind": "rl", "features": "0" * 16},
                "exploration": {"kind": "greedy"},
            },
            "learn",
            "learns nothing",
        ),
    ],
)
def test_a_spec_of_an_apprentice_that_cannot_be_is_refused_by_field(raw, target, says):
    with pytest.raises(SpecError, match=says) as refused:
        spec_of({"name": "home", **raw})
    assert refused.value.target == target


def test_a_spec_without_a_mode_has_the_bytes_that_it_had():
    spec = spec_of({"name": "home"})
    assert b"mode" not in spec.encoded
    assert decode_spec(SPEC.encoded) == SPEC
    assert SPEC.model_digest == spec.model_digest


# What it learns

RIDGE = {"kind": "ridge"}
VW = {"kind": "vw", "args": "--cb_explore_adf -b 12 -q ci"}


def learning(learn: str, learner: dict, join: dict | None = None) -> PolicySpec:
    raw = {"name": "home", "mode": "apprentice", "learn": learn, "learner": learner}
    if learner is VW:
        raw["exploration"] = {"kind": "epsilon_greedy", "epsilon": 0.2}
    return spec_of({**raw, "join": {"window_s": 5, **(join or {})}})


async def rounds(
    spec: PolicySpec, count: int, value: float
) -> tuple[FakeLog, list[DecisionRecord]]:
    """A log in which b is served throughout, and earns so much each time."""
    log, ranker = FakeLog(spec), Ranker(spec, (), salt=SALT)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    fold, applied, records = Fold(log.blobs.__getitem__, salt=SALT), 0, []
    for number in range(count):
        now = 10_000 + 6000 * number
        log.append(TickRecord(), at=now)
        fold.apply(log.entries[applied:])
        applied = len(log.entries)
        ranker.serve(f"s{number}", fold.snapshot())
        records.append(await ranker.rank(asked(number, baseline="b")))
        log.append(records[-1], at=now + 1)
        log.append(RewardRecord(f"e{number}", value), at=now + 2)
    log.append(TickRecord(), at=30_000 + 6000 * count)
    return log, records


def checkpoint_of(log: FakeLog) -> bytes:
    learner = log.fold().learner
    assert learner is not None
    return learner.checkpoint()


@pytest.mark.parametrize("learner", [RIDGE, VW], ids=["ridge", "vw"])
async def test_imitation_learns_what_is_served_and_rewards_learn_what_that_earns(learner):
    """What is served is bad: who imitates comes to choose it, who learns from rewards does not."""
    last = {}
    for learn in ("imitation", "rewards"):
        _, records = await rounds(learning(learn, learner), 60, -1.0)
        last[learn] = np.mean([record.own().pmfs()[0][1] for record in records[-10:]])
        assert all(record.pmfs()[0].tolist() == [0.0, 1.0, 0.0, 0.0] for record in records)
    assert last["imitation"] > 0.7
    assert last["rewards"] < 0.25


@pytest.mark.parametrize("learner", [RIDGE, VW], ids=["ridge", "vw"])
async def test_imitation_is_the_bandit_of_its_own_choices_each_worth_whether_it_was_served(learner):
    """Byte for byte the model of a log in which it had decided, and that had been its reward."""
    log, records = await rounds(learning("imitation", learner), 12, 5.0)
    online = msgspec.structs.replace(
        learning("rewards", learner), mode=msgspec.UNSET, learn=msgspec.UNSET
    )
    other = FakeLog(online)
    other.blobs[Catalogue().digest] = Catalogue().encoded
    for entry in log.entries[1:]:
        record = entry.record
        if isinstance(record, DecisionRecord):
            record = msgspec.structs.replace(record.own(), spec=online.digest)
        elif isinstance(record, RewardRecord):
            made = next(each for each in records if each.event_id == record.event_id)
            record = RewardRecord(record.event_id, float(made.own().chosen == made.chosen))
        other.append(record, at=entry.time_ms)
    assert checkpoint_of(log) == checkpoint_of(other)


@pytest.mark.parametrize(
    "join", [{}, {"learn": "as_it_arrives", "aggregation": "sum", "late": "correct"}]
)
async def test_rewards_change_nothing_of_what_an_imitator_learns(join):
    log, _ = await rounds(learning("imitation", RIDGE, join), 8, 5.0)
    without = FakeLog()
    without.blobs = log.blobs
    without.entries = [each for each in log.entries if not isinstance(each.record, RewardRecord)]
    assert checkpoint_of(log) == checkpoint_of(without)


@pytest.mark.parametrize("learn", ["imitation", "rewards"])
async def test_a_log_that_is_not_decoded_teaches_the_same(learn):
    log, _ = await rounds(learning(learn, RIDGE), 8, 1.0)
    encoded = FakeLog()
    encoded.blobs = log.blobs
    data = [(entry.id, encode(entry.record)) for entry in log.entries]
    encoded.entries = list(read_entries(data, lambda *_: None))
    assert checkpoint_of(log) == checkpoint_of(encoded)


async def test_an_explanation_is_of_the_apprentices_own_choice():
    ranker, alone = fresh_ranker(SPEC), fresh_ranker(msgspec.structs.replace(SPEC, mode="online"))
    explains = LiveExplainer(ranker).begin()
    found = explains(await ranker.rank(asked(baseline="d")))
    own = LiveExplainer(alone).begin()(await alone.rank(asked()))
    assert found.note is not None
    assert "what the request named was served: d" in found.note
    assert {each.id: each.probability for each in found.actions} == {
        each.id: each.probability for each in own.actions
    }


async def test_who_goes_online_keeps_what_was_learned():
    log, records = await rounds(learning("imitation", RIDGE), 60, 0.0)
    online = msgspec.structs.replace(learning("rewards", RIDGE), mode="online", learn=msgspec.UNSET)
    log.configure(online, at=10**6)
    ranker = Ranker(online, (), salt=SALT)
    ranker.serve("s", log.fold().snapshot())
    pmf = (await ranker.rank(asked(9))).pmfs()[0]
    assert pmf[1] > 0.7
    assert records[-1].apprentice is not None
