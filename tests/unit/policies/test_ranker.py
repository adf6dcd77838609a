"""The decision path: what it refuses, and what it writes, which can be checked."""

import asyncio

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker

from bandits.decide import PURPOSE_ACTION, uniform
from bandits.errors import (
    ArtifactError,
    DuplicateActionError,
    EmptyActionsError,
    InvalidEventIdError,
    InvalidFieldError,
    NoCandidatesError,
    NonFiniteNumberError,
    NotReadyError,
    SnapshotError,
    SourceError,
    TooManyActionsError,
    TooManyFeaturesError,
    UnknownUserError,
)
from bandits.kernels.actions import draw
from bandits.log.codec import decode, encode
from bandits.types import Snapshot
from policies.blend import load_policy
from policies.features import featurise_record
from policies.items.catalogue import Catalogue, Item
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import MAX_ACTIONS, ActionRequest, RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource

SPEC = PolicySpec(
    "home", sources=[RemoteSource("cf", "http://x"), RemoteSource("deep", "http://x")]
)
TWO = [ActionRequest("a"), ActionRequest("b")]


def sources() -> list[FakeSource]:
    return [FakeSource("cf", {"a": 3.0, "b": 2.0}), FakeSource("deep", {"b": 1.0, "c": 0.5})]


def explicit(**fields) -> RankRequest:
    return RankRequest(**{"event_id": "e", "actions": TWO, **fields})


class Speechless(FakeSource):
    """Proposes nothing, and cannot say how many items it could propose to others."""

    @property
    def known(self) -> None:
        return None


@pytest.mark.parametrize(
    ("wrong", "error", "target"),
    [
        (explicit(actions=[]), EmptyActionsError, "actions"),
        (
            explicit(actions=[ActionRequest("a"), ActionRequest("")]),
            InvalidFieldError,
            "actions[1].id",
        ),
        (explicit(actions=[*TWO, ActionRequest("a")]), DuplicateActionError, "actions[2].id"),
        (
            explicit(actions=[ActionRequest(str(i)) for i in range(MAX_ACTIONS + 1)]),
            TooManyActionsError,
            "actions",
        ),
        (explicit(exclude=["a", "b"]), NoCandidatesError, "exclude"),
        (explicit(slots=3), InvalidFieldError, "slots"),
        (explicit(slots=2, exclude=["a"]), InvalidFieldError, "slots"),
        (explicit(event_id=""), InvalidEventIdError, "event_id"),
        (explicit(event_id="é" * 129), InvalidEventIdError, "event_id"),
        (explicit(context={"x": 1e300}), NonFiniteNumberError, "context.x"),
        (explicit(context={"x": -1.1e19}), NonFiniteNumberError, "context.x"),
        (
            explicit(actions=[ActionRequest("a"), ActionRequest("b", {"y": 1e39})]),
            NonFiniteNumberError,
            "actions[1].features.y",
        ),
        (
            explicit(actions=[ActionRequest("a", scores={"cf": 1e39})]),
            NonFiniteNumberError,
            "actions[0].scores.cf",
        ),
        (RankRequest(user_id="nobody"), UnknownUserError, "user_id"),
        (RankRequest(user_id="nobody", history=["x"]), NoCandidatesError, "exclude"),
        (RankRequest(), NoCandidatesError, "exclude"),
    ],
)
async def test_a_request_that_cannot_be_answered_is_refused_by_the_name_of_its_field(
    wrong, error, target
):
    ranker = fresh_ranker(SPEC, [Speechless("cf", {}), Speechless("deep", {})])
    with pytest.raises(error) as refused:
        await ranker.rank(wrong)
    assert refused.value.target == target
    assert (await ranker.rank(explicit())).event_id == "e"  # and the next request is answered


async def test_a_policy_without_sources_asks_for_actions():
    with pytest.raises(EmptyActionsError, match="no source that proposes"):
        await fresh_ranker(PolicySpec("home")).rank(RankRequest(user_id="u"))


async def test_without_a_snapshot_it_is_not_ready():
    with pytest.raises(NotReadyError):
        await Ranker(SPEC, sources(), salt=SALT).rank(explicit())


async def test_a_snapshot_that_cannot_be_loaded_leaves_the_previous_one_serving():
    ranker = fresh_ranker(SPEC, sources())
    for bad in (Snapshot("ridge", "1-0", 0, b"junk"), Snapshot("vw-weights", "1-0", 0, b"")):
        with pytest.raises(SnapshotError):
            ranker.serve("bad", bad)
    assert (await ranker.rank(explicit())).snapshot_id == "s0"


async def test_event_ids_are_made_when_none_is_given():
    ranker = fresh_ranker(SPEC, sources())
    ids = {(await ranker.rank(explicit(event_id=None))).event_id for _ in range(20)}
    assert len(ids) == 20


async def test_a_raw_user_id_is_nowhere_in_the_record():
    spec = msgspec.structs.replace(SPEC, holdout=Holdout(0.5))
    ranker = fresh_ranker(spec, sources())
    record = await ranker.rank(
        RankRequest(user_id="alice@example.org", history=["a"], context={"x": 1.0})
    )
    assert b"alice" not in encode(record)
    assert record.user == pseudonym(SALT, "alice@example.org")
    assert pseudonym(b"other salt", "alice@example.org") != record.user
    assert pseudonym(SALT, "bob") != record.user
    assert (await ranker.rank(explicit())).user is None


@pytest.mark.parametrize(("field", "given"), [("user_id", ""), ("account", ""), ("account", None)])
async def test_requests_that_name_no_unit_are_not_one_unit_of_the_holdout(field, given):
    ranker = fresh_ranker(
        msgspec.structs.replace(SPEC, holdout=Holdout(0.5, field=field)), sources()
    )
    user, context = (
        (given if field == "user_id" else None),
        {} if field == "user_id" or given is None else {field: given},
    )
    asked = [explicit(event_id=f"e{number}", user_id=user, context=context) for number in range(64)]
    records = [await ranker.rank(each) for each in asked]
    assert {record.holdout for record in records} == {True, False}
    assert {record.user for record in records} == {None}


async def test_candidates_are_the_union_of_the_sources_in_their_order():
    record = await fresh_ranker(SPEC, sources()).rank(RankRequest(user_id="u"))
    assert record.action_ids == ["a", "b", "c"]
    scores = record.source_scores()
    np.testing.assert_array_equal(scores["cf"], np.array([3, 2, np.nan], np.float32))
    np.testing.assert_array_equal(scores["deep"], np.array([np.nan, 1, 0.5], np.float32))


async def test_in_a_blend_a_source_that_can_scores_what_the_others_proposed():
    knows = {"a": 3.0, "b": 2.0, "c": -1.0}
    cf = FakeSource(
        "cf", {"a": 3.0}, lambda ids: np.array([knows.get(i, np.nan) for i in ids], np.float32)
    )
    record = await fresh_ranker(SPEC, [cf, FakeSource("deep", {"c": 1.0, "d": 0.5})]).rank(
        RankRequest(user_id="u")
    )
    np.testing.assert_array_equal(
        record.source_scores()["cf"], np.array([3, -1, np.nan], np.float32)
    )


async def test_a_failing_source_drops_out_and_is_counted():
    cf, deep = sources()
    ranker = fresh_ranker(SPEC, [cf, deep])
    cf.failing = True
    record = await ranker.rank(RankRequest(user_id="u"))
    assert record.action_ids == ["b", "c"]
    assert list(record.scores) == ["deep"]
    assert ranker.proposers.answers.failures == {"cf": 1}
    cf.failing = False
    assert list((await ranker.rank(RankRequest(user_id="u"))).scores) == ["cf", "deep"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e30])
async def test_a_source_that_scores_with_what_is_no_number_has_failed(score):
    _, deep = sources()
    ranker = fresh_ranker(SPEC, [FakeSource("cf", {"a": score}), deep])
    assert list((await ranker.rank(RankRequest(user_id="u"))).scores) == ["deep"]
    assert ranker.proposers.answers.failures == {"cf": 1}


@pytest.mark.parametrize("score", [float("inf"), -float("inf"), 1e30])
async def test_a_scorer_of_the_pool_that_scores_with_what_is_no_number_has_failed(score):
    class Scorer:
        name = "deep"

        def score_actions(self, catalogue, request, ids, features, scores):
            return np.full(len(ids), score, np.float32)

    cf, _ = sources()
    ranker = fresh_ranker(SPEC, [cf, Scorer()])
    record = await ranker.rank(RankRequest(user_id="u"))
    assert list(record.scores) == ["cf"]
    assert record.failed == {"deep": "a score is a number up to 1e+12"}
    assert ranker.proposers.answers.failures == {"deep": 1}


async def test_when_every_source_failed_the_user_is_not_called_unknown():
    both = sources()
    for source in both:
        source.failing = True
    with pytest.raises(SourceError):
        await fresh_ranker(SPEC, both).rank(RankRequest(user_id="u"))


def test_features_beyond_the_limit_never_get_into_a_catalogue():
    with pytest.raises(ArtifactError) as error:
        Catalogue([Item("a", {"x": 1e20})])
    assert error.value.target == "features.x"


@pytest.mark.parametrize(
    "counts", [(800, 800), (1000, 10), (10, 1000), (500, 500, 500), (1000, 1000, 1000)]
)
@pytest.mark.parametrize("kind", ["blend", "mixture"])
async def test_each_source_keeps_its_best_of_too_many_candidates_and_the_rest_is_counted(
    kind, counts
):
    names = [f"s{number}" for number in range(len(counts))]
    sources = [RemoteSource(name, "http://127.0.0.1:9/") for name in names]
    spec = PolicySpec("home", kind=kind, sources=sources, limit=1000)
    sizes = dict(zip(names, counts, strict=True))
    many = [
        FakeSource(name, {f"{name}.{i}": -float(i) for i in range(count)})
        for name, count in sizes.items()
    ]
    ranker = fresh_ranker(spec, many)
    record = await ranker.rank(RankRequest(user_id="u"))
    assert len(record.action_ids) == MAX_ACTIONS
    assert all(len(column) == MAX_ACTIONS for column in record.source_scores().values())
    for name, count in sizes.items():
        own = [action_id for action_id in record.action_ids if action_id.startswith(f"{name}.")]
        assert own == [f"{name}.{i}" for i in range(len(own))]
        assert len(own) >= min(count, MAX_ACTIONS // len(counts))
        assert ranker.proposers.answers.partial[name] == (len(own) < count)
        if len(own) < count:
            assert (
                f"{count - len(own)} of its candidates"
                in ranker.proposers.answers.troubles[name].reason
            )


async def test_concurrent_requests_do_not_disturb_each_other():
    ranker = fresh_ranker(SPEC, sources())
    alone = [await ranker.rank(RankRequest(event_id=str(i), user_id="u")) for i in range(20)]
    together = await asyncio.gather(
        *(ranker.rank(RankRequest(event_id=str(i), user_id="u")) for i in range(20))
    )
    assert together == alone


@settings(max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["blend", "mixture"]),
    st.integers(0, 9),
    st.booleans(),
)
async def test_a_decision_is_derived_again_from_its_record_bit_for_bit(
    count, slots, kind, event, deferred
):
    """Features, every slot's PMF, draws and credit follow from the record, the snapshot and the salt."""
    rng = np.random.default_rng(count * 100 + event)
    actions = [
        ActionRequest(
            f"i{k}",
            {"x": float(rng.normal())},
            {"cf": float(rng.normal())} if rng.random() < 0.6 else {},
        )
        for k in range(count)
    ]
    spec = msgspec.structs.replace(SPEC, kind=kind, floor=0.1)
    ranker = fresh_ranker(spec)
    request = RankRequest(
        event_id=f"e{event}",
        context={"c": 1.5},
        actions=actions,
        slots=min(slots, count),
        defer_activation=deferred,
    )
    record = decode(encode(await ranker.rank(request)))
    assert record.deferred == deferred
    context, features = featurise_record(spec, Catalogue(), record)
    policy = load_policy(spec, FakeLog(spec).fold().snapshot())
    if kind == "mixture":
        policy = ranker.serving.policy
    for slot, chosen in enumerate(record.chosen):
        left = np.delete(np.arange(count), record.chosen[:slot])
        assert (
            record.pmfs()[slot, left].tobytes()
            == policy.pmf(context, features.take(left)).tobytes()
        )
        assert (
            draw(record.pmfs()[slot], uniform(SALT, "home", record.event_id, slot, PURPOSE_ACTION))
            == chosen
        )
    assert len(set(record.chosen)) == len(record.chosen)


async def test_the_record_names_what_it_was_decided_with():
    catalogue = Catalogue([Item("a", {"x": 1.0})])
    record = await fresh_ranker(SPEC, sources(), catalogue).rank(explicit())
    assert (record.policy, record.spec, record.snapshot_id) == ("home", SPEC.digest, "s0")
    assert record.catalogue == catalogue.digest


@pytest.mark.parametrize("use", [["item"], ["context", "item", "features", "scores"]])
async def test_what_the_log_would_refuse_is_refused_at_entry_whatever_the_learner_sees(use):
    """A context that no feature is made of is still logged, so it has to be valid all the same."""
    ranker = fresh_ranker(msgspec.structs.replace(SPEC, use=use), sources())
    with pytest.raises(NonFiniteNumberError) as error:
        await ranker.rank(RankRequest(actions=[ActionRequest("a")], context={"x": 1e30}))
    assert error.value.target == "context.x"


async def test_a_small_request_cannot_ask_for_millions_of_crossed_features():
    ranker = fresh_ranker(SPEC, sources())
    many = [f"v{i}" for i in range(3000)]
    with pytest.raises(TooManyFeaturesError) as context:
        await ranker.rank(RankRequest(actions=[ActionRequest("a")], context={"tags": many}))
    assert context.value.target == "context"
    actions = [ActionRequest(f"a{i}", {"tags": many[:200]}) for i in range(1000)]
    with pytest.raises(TooManyFeaturesError) as pairs:
        await ranker.rank(RankRequest(actions=actions, context={"tags": many[:200]}))
    assert pairs.value.target == "actions"
