"""Protected features are logged, for reports and rules, and a learner sees them only where it is said by name."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog, fresh_ranker
from support.logs import archived

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy
from bandits.log.codec import digest
from bandits.log.records import RewardRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.explain.named import NamedDecision
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from policies.rules.filters import FilterRule
from policies.spec import PolicySpec, decode_spec, spec_of
from simulator.learners.trained import rows_to_learn
from simulator.logs.archive.pieces import policy_pieces

CROSSED = RidgeConfig(interactions=[("context", "item")])
RIDGE = PolicySpec("p", learner=CROSSED)
LEARNERS = {
    "ridge": RIDGE,
    "vw": PolicySpec(
        "p", learner=VwConfig(args="--cb_explore_adf -b 12 -q ci"), exploration=EpsilonGreedy()
    ),
}
PROTECTED = {"gender": "report", "age": "feature", "home": "report"}
ACTIONS = [ActionRequest("a"), ActionRequest("b"), ActionRequest("c", {"size": 2.0})]


def with_fields(spec: PolicySpec, **fields) -> PolicySpec:
    return msgspec.structs.replace(spec, **fields)


def log_of(spec: PolicySpec, contexts: list[dict]) -> FakeLog:
    log, ranker = FakeLog(spec), fresh_ranker(spec)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number, context in enumerate(contexts):
        request = RankRequest(f"e{number}", context=context, actions=ACTIONS)
        log.append(asyncio.run(ranker.rank(request)), at=1000 * (number + 1))
        log.append(RewardRecord(f"e{number}", float(number % 3)), at=1000 * (number + 1) + 1)
    log.append(TickRecord(), at=10_000_000)
    return log


def contexts(*kept: str) -> list[dict]:
    every = [
        {
            "hour": float(number),
            "gender": "fm"[number % 2],
            "age": 20.0 + number,
            "home.street": f"s{number}",
        }
        for number in range(6)
    ]
    return [{name: each[name] for name in kept} for each in every]


ALL, SEEN = ("hour", "gender", "age", "home.street"), ("hour", "age")


@pytest.mark.parametrize("learner", LEARNERS)
def test_decisions_and_the_model_are_those_without_them_and_the_record_has_them(learner):
    """Byte for byte; and one that is a feature by name teaches."""
    spec = with_fields(LEARNERS[learner], protected=PROTECTED)
    whole, without = log_of(spec, contexts(*ALL)), log_of(spec, contexts(*SEEN))
    models = [log.fold().snapshot().payload for log in (whole, without)]
    assert models[0] == models[1]
    pairs = zip(whole.entries, without.entries, strict=True)
    for mine, other in [(m.record, o.record) for m, o in pairs if hasattr(m.record, "pmf")]:
        assert (mine.pmf, mine.chosen) == (other.pmf, other.chosen)
        assert mine.context.keys() == set(ALL)

    free = LEARNERS[learner]
    assert log_of(free, contexts(*ALL)).fold().snapshot().payload != models[0]
    assert log_of(spec, contexts("hour")).fold().snapshot().payload != models[0]


def test_a_spec_that_protects_nothing_from_its_learner_learns_the_same_bytes():
    """Whether one decision after the other is taught, or many at once."""
    named = with_fields(RIDGE, protected={"nobody": "report"})
    plain, slow = (log_of(spec, contexts(*ALL)).fold() for spec in (RIDGE, named))
    assert plain.learned == slow.learned == 6
    assert plain.snapshot().payload == slow.snapshot().payload


def test_replay_learns_of_an_archive_what_a_learner_would(tmp_path):
    spec = with_fields(RIDGE, protected=PROTECTED)
    log = log_of(spec, contexts(*ALL))
    archived(tmp_path, log.entries, spec, blobs=log.blobs)
    (batch,) = [each for piece in policy_pieces(str(tmp_path), "p", 1) for each in piece.batches()]
    rows = rows_to_learn(spec, batch)
    bare = rows_to_learn(RIDGE, batch)
    assert len(rows.hashes) == len(bare.hashes) - 2 * len(batch)

    # As it is made of each record by itself.
    for number, record in enumerate(e.record for e in log.entries if hasattr(e.record, "pmf")):
        (shared,) = featurise_record(spec, Catalogue(), record)[0].namespaces
        begin, end = rows.bounds[4 * number], rows.bounds[4 * number + 1]
        assert rows.hashes[begin:end].tolist() == shared.hashes.tolist()
        assert np.array_equal(rows.values[begin:end], np.ravel(shared.values))


def test_an_explanation_names_nothing_that_the_learner_does_not_see():
    spec = with_fields(RIDGE, protected=PROTECTED)
    record = log_of(spec, contexts(*ALL)).entries[1].record
    named = NamedDecision(spec, Catalogue(), record, lambda _: None).of(0)
    (shared,) = [each for each in named if each.space == "context"]
    assert sorted(shared.names) == ["age", "hour"]


def test_rules_may_look_at_them():
    spec = with_fields(
        RIDGE,
        protected={"age": "report"},
        filter=FilterRule("context.age >= 18 || item.id != 'c'"),
    )
    request = RankRequest("e", context={"age": 12.0}, actions=ACTIONS)
    record = asyncio.run(fresh_ranker(spec).rank(request))
    assert record.action_ids == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "at", "says"),
    [
        ({"protected": {}}, "protected", "leave it out"),
        ({"protected": {"": "report"}}, "protected.", "no feature is called"),
        ({"protected": {"a": "report", "a.b": "feature"}}, "protected.a.b", "below another"),
        (
            {"protected": {"home.street": "report"}, "context_private": ["home"]},
            "protected.home.street",
            "never logged",
        ),
        ({"protected": {"a": "report"}, "use": ["item"]}, "protected", "sees nothing"),
        ({"protected": {"a": "hidden"}}, "protected.a", "report"),
    ],
)
def test_what_says_nothing_is_refused_by_name(fields, at, says):
    with pytest.raises(SpecError, match=says) as caught:
        spec_of({"name": "p", **fields})
    assert caught.value.target == at


def test_a_model_goes_on_only_where_it_sees_the_same():
    """And the shape of a policy without the field is named as it was before there was one."""
    spec = with_fields(RIDGE, protected=PROTECTED)
    assert decode_spec(spec.encoded).protected == PROTECTED
    assert spec.model_digest != RIDGE.model_digest
    by_name = with_fields(RIDGE, protected={"age": "feature"})
    shape = [RIDGE.kind, RIDGE.use, RIDGE.learner.basis]
    before = digest(msgspec.json.encode(shape, order="deterministic"))
    assert by_name.model_digest == RIDGE.model_digest == before
