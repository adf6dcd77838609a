"""Features depend on the decision alone, and are rebuilt from its record bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import fresh_ranker

from bandits.errors import ArtifactError
from bandits.features.hashing import hash_feature
from bandits.log.codec import decode, encode
from bandits.types import ActionSet, Context, Namespace
from policies.encoding import hash_pairs, namespace_of
from policies.features import featurise, featurise_record, score_features
from policies.items.catalogue import Catalogue, Item
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec

SPEC = PolicySpec("home")
CATALOGUE = Catalogue([Item("a", {"price": 2.0, "genre": ["x", "y"]}), Item("b", {"genre": ["z"]})])


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def column(namespace: Namespace, name: str) -> list[float]:
    at = namespace.hashes.tolist().index(hash_feature("scores", name))
    return namespace.values[:, at].tolist()


def as_bytes(context: Context, actions: ActionSet) -> list[object]:
    groups = [
        (ns.name, ns.cells().tobytes(), ns.values.tobytes())
        for ns in (*context.namespaces, *actions.namespaces)
    ]
    return [
        actions.ids,
        groups,
        {source: values.tobytes() for source, values in actions.scores.items()},
    ]


def test_ranks_count_the_higher_scores_so_ties_share_one():
    namespace = score_features({"cf": scores(3, 5, 3, 1)})
    assert column(namespace, "cf.rank") == pytest.approx(
        [1 / np.log2(3), 1.0, 1 / np.log2(3), 1 / np.log2(5)]
    )


def test_a_score_that_is_absent_is_zero_in_every_column_and_does_not_count_in_ranks():
    namespace = score_features({"cf": scores(-5, np.nan, -7)})
    assert column(namespace, "cf.score") == [-5, 0, -7]
    assert column(namespace, "cf.present") == [1, 0, 1]
    assert column(namespace, "cf.rank") == pytest.approx([1.0, 0.0, 1 / np.log2(3)])


def test_a_source_that_scored_nothing_has_zero_columns():
    namespace = score_features({"cf": scores(np.nan, np.nan)})
    assert not namespace.values.any()


@settings(max_examples=50)
@given(
    st.lists(st.one_of(st.just(float("nan")), st.integers(-3, 3)), min_size=1, max_size=12),
    st.randoms(),
)
def test_features_of_an_action_do_not_depend_on_where_it_stands(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    ids = [f"i{k}" for k in range(len(values))]
    given_scores = {"cf": scores(*values)}
    context, actions = featurise(SPEC, CATALOGUE, {"x": 1.0}, ids, None, given_scores)
    shuffled = {"cf": given_scores["cf"][order]}
    moved_context, moved = featurise(
        SPEC, CATALOGUE, {"x": 1.0}, [ids[k] for k in order], None, shuffled
    )
    assert as_bytes(moved_context, moved) == as_bytes(context, actions.take(order))


def test_only_the_namespaces_in_use_are_made():
    spec = PolicySpec("home", use=["item"])
    context, actions = featurise(spec, CATALOGUE, {"x": 1.0}, ["a"], None, {"cf": scores(1)})
    assert not context.namespaces
    assert [ns.name for ns in actions.namespaces] == ["item"]
    assert list(actions.scores) == ["cf"]  # the holdout sees them all the same


def test_features_of_the_request_replace_those_of_the_catalogue():
    """An empty map is a statement too: this item has no features now."""
    own = [{"price": 9.0}, {}, None]
    _, actions = featurise(SPEC, CATALOGUE, {}, ["a", "b", "a"], own, {})
    features = next(ns for ns in actions.namespaces if ns.name == "features")
    seen = [
        {int(h): float(v) for h, v in zip(hashes, values, strict=True) if v != 0}
        for hashes, values in zip(features.cells(), features.values, strict=True)
    ]
    price = hash_feature("features", "price")
    assert seen[0] == {price: 9.0}
    assert seen[1] == {}
    assert seen[2] == {
        price: 2.0,
        hash_feature("features", "genre=x"): 1.0,
        hash_feature("features", "genre=y"): 1.0,
    }


def test_numbers_text_lists_and_booleans_become_features():
    features = {"n": 2.5, "t": "tv", "l": ["a", "b"], "yes": True, "no": False}
    named = {
        hash_feature("context", name): value
        for name, value in [("n", 2.5), ("t=tv", 1), ("l=a", 1), ("l=b", 1)]
    }
    named |= {hash_feature("context", "yes"): 1, hash_feature("context", "no"): 0}
    assert dict(hash_pairs(features, "context")) == named


def test_maps_of_the_same_names_share_their_hashes_and_mean_what_they_mean_one_by_one():
    first, second, other = (
        {"age": 3.0, "hour": 21.5},
        {"age": 0.25, "hour": 7.0},
        {"hour": 7.0, "age": 0.25},
    )
    made = [
        namespace_of(features, "context")
        for features in (first, second, other, {**first, "device": "tv"}, {})
    ]
    for features, namespace in zip((first, second, other), made, strict=False):
        assert list(zip(namespace.hashes, namespace.values, strict=True)) == hash_pairs(
            features, "context"
        )
    assert made[0].hashes is made[1].hashes
    assert made[0].hashes is not made[2].hashes
    assert not made[0].hashes.flags.writeable
    assert made[3].hashes.tolist() == [*made[0].hashes, hash_feature("context", "device=tv")]
    assert made[4].hashes.size == 0


def test_an_item_nobody_knows_has_no_features():
    _, actions = featurise(SPEC, CATALOGUE, {}, ["nobody"], None, {})
    features = next(ns for ns in actions.namespaces if ns.name == "features")
    assert not features.values.any()


def test_a_catalogue_is_named_by_its_content_and_refuses_what_contradicts_itself():
    assert Catalogue.decode(CATALOGUE.encoded).digest == CATALOGUE.digest
    for bad in (
        b"{}",
        b"[{}]",
        b'[{"id":"a"},{"id":"a"}]',
        b'[{"id":"a","features":{"x":1e999}}]',
        b"\xff",
    ):
        with pytest.raises(ArtifactError):
            Catalogue.decode(bad)


VALUES = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.text(max_size=5),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=3),
)
MAPS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)
ACTIONS = st.builds(
    ActionRequest,
    st.sampled_from([f"{c}{i}" for c in "ab" for i in range(9)] + ["a", "b"]),
    st.none() | MAPS,
    st.dictionaries(st.sampled_from(["cf", "deep"]), st.floats(-1e6, 1e6), max_size=2),
)


@settings(max_examples=50)
@given(MAPS, st.lists(ACTIONS, min_size=1, max_size=8, unique_by=lambda a: a.id))
async def test_a_record_gives_the_features_the_policy_saw_bit_for_bit(context, actions):
    """The rounding to 32 bits happens once, whichever way the numbers go."""
    ranker, seen = fresh_ranker(SPEC, catalogue=CATALOGUE), []
    assert ranker.serving is not None
    inner = ranker.serving.policy

    class Watch:
        def pmf(self, *given):
            seen.append(as_bytes(*given))
            return inner.pmf(*given)

    object.__setattr__(ranker.serving, "policy", Watch())
    record = await ranker.rank(RankRequest(event_id="e", context=context, actions=actions))
    assert as_bytes(*featurise_record(SPEC, CATALOGUE, decode(encode(record)))) == seen[0]
