"""What the catalogue lacks is no candidate, whoever proposes it, however a decision is asked for."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker
from support.small_artifact import HISTORIES, ITEMS, NAMES, make_artifact

from bandits.errors import NoCandidatesError, SourceError, UnknownUserError
from bandits.exploration import EpsilonGreedy
from policies.artifacts.profiles import Profiles
from policies.features import featurise_record
from policies.holdout import FixedPolicy
from policies.items.catalogue import Catalogue, Item
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, Holdout, PolicySpec

ARTIFACT = make_artifact()
BLEND = PolicySpec("p", sources=[ArtifactSource(name) for name in NAMES], artifact="a", limit=4)
WAYS = {
    "blend": BLEND,
    "mixture": msgspec.structs.replace(BLEND, kind="mixture", exploration=EpsilonGreedy(0.2)),
    "held out, a source": msgspec.structs.replace(BLEND, holdout=Holdout(1.0, "als")),
    "held out, uniform": msgspec.structs.replace(BLEND, holdout=Holdout(1.0)),
}


def serving(spec: PolicySpec, catalogue: Catalogue) -> Ranker:
    sources = list(load_sources(ARTIFACT, spec.sources).values())
    ranker = Ranker(spec, sources, salt=SALT, profiles=Profiles.of(HISTORIES, SALT))
    ranker.serve("s0", FakeLog(spec).fold().snapshot(), catalogue)
    return ranker


def holding(*ids: str) -> Catalogue:
    return Catalogue.put([Item(each) for each in ids])


@pytest.mark.parametrize("way", WAYS)
@given(
    held=st.sets(st.sampled_from(ITEMS[2:]), min_size=1),
    slots=st.integers(1, 3),
    exclude=st.sets(st.sampled_from(ITEMS)),
)
@settings(max_examples=25, deadline=None)
async def test_of_any_catalogue_every_source_fills_its_part_of_the_pool(way, held, slots, exclude):
    spec, ranker, left = WAYS[way], serving(WAYS[way], holding(*held)), held - exclude
    request = RankRequest(
        user_id="known", slots=min(slots, max(1, len(left))), exclude=sorted(exclude)
    )
    if not left:
        with pytest.raises((NoCandidatesError, UnknownUserError)):
            await ranker.rank(request)
        return
    record = await ranker.rank(request)
    assert set(record.action_ids) <= left
    assert len(record.action_ids) >= min(spec.limit, len(left))
    scores = record.source_scores()
    assert set(scores) == set(NAMES)
    # in a mixture, what it proposed; in a blend each scores all that any has proposed
    for name in NAMES:
        assert np.count_nonzero(~np.isnan(scores[name])) >= min(spec.limit, len(left)), name
    assert not record.unserved
    assert record.failed is None
    if record.holdout and spec.holdout is not None and not (record.chosen[1:]):
        context, actions = featurise_record(spec, ranker.serving.catalogue, record)
        np.testing.assert_array_equal(
            FixedPolicy(spec.holdout.policy).pmf(context, actions), record.pmfs()[0]
        )


@pytest.mark.parametrize("way", WAYS)
async def test_an_emptied_catalogue_leaves_no_candidate_and_says_so(way):
    ranker = serving(WAYS[way], Catalogue.put([]))
    for request in (
        RankRequest(user_id="known"),
        RankRequest(user_id="nobody"),
        RankRequest(history=["i01", "i02"]),
    ):
        with pytest.raises(NoCandidatesError, match="the catalogue has no items") as caught:
            await ranker.rank(request)
        assert caught.value.target == "actions"


async def test_explicit_actions_are_the_callers_affair():
    for catalogue in (Catalogue.put([]), holding("other")):
        record = await serving(BLEND, catalogue).rank(
            RankRequest(actions=[ActionRequest("i05"), ActionRequest("i06")])
        )
        assert record.action_ids == ["i05", "i06"]


async def test_while_no_catalogue_was_ever_put_nobody_said_what_there_is():
    """With a remote source alone, say, only the source knows its items."""
    spec = PolicySpec("home", limit=2)
    source = FakeSource("cf", {"a": 3.0, "b": 2.0, "c": 1.0})
    ranker = fresh_ranker(spec, [source])
    assert (await ranker.rank(RankRequest())).action_ids == ["a", "b"]
    ranker.serve("s1", ranker.serving.snapshot, holding("b", "c"))
    assert (await ranker.rank(RankRequest())).action_ids == ["b", "c"]
    ranker.serve("s2", ranker.serving.snapshot, Catalogue.put([]))
    with pytest.raises(NoCandidatesError):
        await ranker.rank(RankRequest())
    ranker.serve("s3", ranker.serving.snapshot, holding("a"))
    assert (await ranker.rank(RankRequest())).action_ids == ["a"]


async def test_a_decision_is_made_of_the_catalogue_that_its_record_names():
    """Also if another is served while the sources are asked."""
    spec = PolicySpec("home")
    swapped = []

    class Slow(FakeSource):
        async def candidates(self, request, limit):
            found = await super().candidates(request, limit)
            if not swapped:
                swapped.append(1)
                ranker.serve("s2", ranker.serving.snapshot, holding("c"))
            return found

    ranker = fresh_ranker(spec, [Slow("cf", {"a": 3.0, "c": 1.0})], holding("a"))
    first, second = await ranker.rank(RankRequest()), await ranker.rank(RankRequest())
    assert (first.action_ids, first.catalogue, first.snapshot_id) == (
        ["a"],
        holding("a").digest,
        "s0",
    )
    assert (second.action_ids, second.catalogue, second.snapshot_id) == (
        ["c"],
        holding("c").digest,
        "s2",
    )


def test_what_may_be_proposed_is_found_once_for_a_catalogue_not_for_each_snapshot():
    ranker = serving(BLEND, holding("i04", "i05"))
    before = ranker.serving.sources
    ranker.serve("s1", ranker.serving.snapshot, holding("i04", "i05"))
    assert ranker.serving.sources is before
    whole = serving(BLEND, holding(*ITEMS))
    assert whole.serving.sources == whole.sources, "nothing is removed, so nothing is looked at"


def test_an_emptied_catalogue_is_another_than_none_and_comes_back_from_its_bytes():
    none, emptied = Catalogue(), Catalogue.put([])
    assert none.digest != emptied.digest
    assert (none.limits, emptied.limits, holding("a").limits) == (False, True, True)
    for catalogue in (none, emptied, holding("a")):
        again = Catalogue.decode(catalogue.encoded)
        assert (again.digest, again.ids, again.limits) == (
            catalogue.digest,
            catalogue.ids,
            catalogue.limits,
        )
    assert len(emptied) == 0
    assert emptied.namespace(["a"]).values.shape == (1, 0)


# --- sources that fail, and what is held out while they do
# ------------------------------------------------------------


def failing(name: str) -> FakeSource:
    source = FakeSource(name, {"x": 1.0})
    source.failing = True
    return source


@pytest.mark.parametrize(
    ("policy", "source", "slots", "unserved"),
    [
        ("cf", FakeSource("cf", {"a": 2.0, "b": 1.0}), 1, False),
        ("cf", FakeSource("cf", {"a": 2.0, "b": 1.0}), 2, False),
        ("cf", FakeSource("cf", {"a": 2.0}), 2, True),  # the second slot is nobody's
        ("cf", FakeSource("cf", {}), 1, True),  # it knows nothing of this user
        ("cf", failing("cf"), 1, True),
        ("cf", FakeSource("cf", {"a": float("nan")}), 1, True),
        ("uniform", failing("cf"), 1, False),
    ],
)
@pytest.mark.parametrize("kind", ["blend", "mixture"])
async def test_a_held_out_decision_that_its_policy_did_not_make_says_so(
    kind, policy, source, slots, unserved
):
    spec = PolicySpec(
        "home",
        kind=kind,
        sources=[ArtifactSource("cf"), ArtifactSource("deep")],
        artifact="a",
        exploration=EpsilonGreedy(0.1),
        holdout=Holdout(1.0, policy),
    )
    deep = FakeSource("deep", {"b": 1.0, "c": 0.5, "d": 0.1})
    record = await fresh_ranker(spec, [source, deep]).rank(RankRequest(slots=slots))
    assert (record.holdout, record.unserved, record.control) == (True, unserved, not unserved)


async def test_a_held_out_decision_among_actions_without_its_sources_scores_is_no_control():
    spec = PolicySpec(
        "home", sources=[ArtifactSource("cf")], artifact="a", holdout=Holdout(1.0, "cf")
    )
    ranker = fresh_ranker(spec, [FakeSource("cf", {})])
    scored = [ActionRequest("a", scores={"cf": 1.0}), ActionRequest("b")]
    assert (await ranker.rank(RankRequest(actions=scored))).control
    assert (await ranker.rank(RankRequest(actions=scored, slots=2))).unserved
    assert (
        await ranker.rank(RankRequest(actions=[ActionRequest("a"), ActionRequest("b")]))
    ).unserved


async def test_what_is_wrong_with_a_source_is_kept_counted_and_in_the_record(caplog):
    spec = PolicySpec("home", sources=[ArtifactSource("cf"), ArtifactSource("deep")], artifact="a")
    cf, deep = failing("cf"), FakeSource("deep", {"b": 1.0})
    ranker = fresh_ranker(spec, [cf, deep])
    for _ in range(50):
        record = await ranker.rank(RankRequest())
        assert record.failed == {"cf": "cf is down"}
        assert record.holdout is record.unserved is False
    assert ranker.source_failures == {"cf": 50}
    assert ranker.source_troubles["cf"].reason == "cf is down"
    assert len([each for each in caplog.records if "cf is down" in each.getMessage()]) == 1, (
        "not fifty times"
    )
    cf.failing = False
    assert (await ranker.rank(RankRequest())).failed is None
    deep.failing = cf.failing = True
    with pytest.raises(SourceError, match=r"cf is down; deep is down"):
        await ranker.rank(RankRequest())
