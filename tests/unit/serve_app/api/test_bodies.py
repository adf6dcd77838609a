"""What callers really send has one meaning; what has none is refused by the name of its field."""

import gzip
import json
import math
from types import NoneType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FakeService, fresh_ranker

from banditloop_client.schemas import (
    CatalogueRequest,
    ItemPatch,
    ItemRequest,
    ItemsRequest,
    RewardRequest,
)
from bandits.errors import (
    InvalidFieldError,
    InvalidInputError,
    MalformedBodyError,
    NonFiniteNumberError,
    TooManyFeaturesError,
)
from policies.requests import BareRequest, Item, RankRequest, plain_features
from policies.spec import PolicySpec
from serve_app.api.bodies import RankDecoder, decode_body, whole
from serve_app.api.endpoints import ROUTES

rank = msgspec.json.Decoder(RankRequest)
catalogue = msgspec.json.Decoder(CatalogueRequest)
patch = msgspec.json.Decoder(ItemPatch)
names = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=8)
recorded = st.one_of(
    st.floats(-1e19, 1e19),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=4),
)


def asked(**fields) -> RankRequest:
    return decode_body(json.dumps(fields).encode(), rank)


def test_actions_stay_as_they_were_sent_where_nothing_says_that_they_are_needed_decoded():
    sent = {"context": {"hour": 21}, "actions": [{"id": "a"}]}
    bare = decode_body(json.dumps(sent).encode(), RankDecoder())
    assert type(bare) is BareRequest
    assert whole(bare) == asked(**sent)
    for more in (
        {"actions": [{"id": "a", "features": {}}]},
        {"actions": None, "user_id": "ann"},
        {"context": {"user": {"age": 30}}},
    ):
        body = json.dumps({**sent, **more}).encode()
        assert decode_body(body, RankDecoder()) == decode_body(body, rank)
    assert decode_body(b'{"user_id": "ann"}', RankDecoder()) == RankRequest(user_id="ann")


MEANINGS = {
    "null": ({"age": None}, {}),
    "null beside another": ({"age": None, "city": "Ulm"}, {"city": "Ulm"}),
    "a nested object": (
        {"user": {"age": 30, "city": "Ulm"}},
        {"user.age": 30.0, "user.city": "Ulm"},
    ),
    "an object three deep": ({"a": {"b": {"c": True}}}, {"a.b.c": True}),
    "an object of nothing": ({"user": {}, "deep": {"er": {"no": None}}}, {}),
    "a vector": ({"taste": [0.5, -2, 1e13]}, {"taste.0": 0.5, "taste.1": -2.0, "taste.2": 1e13}),
    "a vector of flags": ({"seen": [True, False]}, {"seen.0": True, "seen.1": False}),
    "a vector with a gap": ({"taste": [1, None, 3]}, {"taste.0": 1.0, "taste.2": 3.0}),
    "a matrix": ({"m": [[1, 2], [3]]}, {"m.0.0": 1.0, "m.0.1": 2.0, "m.1.0": 3.0}),
    "a set with a gap": ({"tags": ["a", None]}, {"tags": ["a"]}),
    "a list of objects": (
        {"basket": [{"sku": "a", "price": 2}, {"sku": "b", "price": 3}]},
        {"basket.sku": ["a", "b"], "basket.price": 5.0},
    ),
    "a list of nothing": ({"tags": [], "more": [None]}, {"tags": [], "more": []}),
    "a dotted name beside a nested one": ({"a.b": 1, "a": {"b": 2}}, {"a.b": 3.0}),
    "milliseconds": ({"now": 1732000000000}, {"now": 1732000000000.0}),
    "nanoseconds": ({"now": 1732000000000000000}, {"now": 1.732e18}),
    "the largest 64-bit integers": (
        {"id": 2**63 - 1, "no": -(2**63)},
        {"id": 2.0**63, "no": -(2.0**63)},
    ),
}


@pytest.mark.parametrize(("sent", "meant"), MEANINGS.values(), ids=MEANINGS)
def test_features_as_callers_have_them_become_features_of_a_record(sent, meant):
    """In the context, of an action and of an item alike."""
    assert asked(context=sent).context == meant
    (action,) = asked(actions=[{"id": "a", "features": sent}]).actions
    assert action.features == meant
    body = json.dumps({"items": [{"id": "a", "features": sent}]}).encode()
    assert decode_body(body, catalogue).items == [Item("a", meant)]


@given(st.dictionaries(names, recorded, max_size=6))
def test_features_in_the_form_of_a_record_stay_as_they_are(features):
    assert plain_features(features, "context") == features
    assert asked(context=features).context == features


@given(
    st.recursive(recorded, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=12)
)
def test_a_nested_feature_is_the_one_with_the_dotted_name(value):
    def leaves(name: str, value: object) -> dict:
        if not isinstance(value, dict):
            return {name: value}
        return {
            path: each
            for key in value
            for path, each in leaves(f"{name}.{key}", value[key]).items()
        }

    assert plain_features({"x": value}, "context") == leaves("x", value)


async def test_the_log_has_one_form_of_what_was_sent_in_two():
    """A decision on nested features is the decision on dotted ones, to the byte."""
    service = FakeService(fresh_ranker(PolicySpec("home")))
    flat = {
        "event_id": "e",
        "actions": [{"id": "a"}, {"id": "b"}],
        "context": {"user.age": 30.0, "t.0": 1.0},
    }
    nested = {**flat, "context": {"user": {"age": 30, "gone": None}, "t": [1]}}
    records = [(await service.rank(asked(**each)))[0] for each in (flat, nested)]
    assert records[0] == records[1]


REFUSED = {
    "texts and numbers": ({"x": ["a", 1]}, InvalidFieldError, ".x"),
    "objects and texts": ({"x": [{"a": 1}, "b"]}, InvalidFieldError, ".x"),
    "lists and numbers": ({"x": [[1], 2]}, InvalidFieldError, ".x"),
    "one name, a text and a number": ({"a.b": "x", "a": {"b": 1}}, InvalidFieldError, ".a.b"),
    "a text and a number in two objects": (
        {"a": [{"b": 1}, {"b": "x"}]},
        InvalidFieldError,
        ".a[1].b",
    ),
    "a mixture far inside": ({"u": {"v": {"w": [1, "2"]}}}, InvalidFieldError, ".u.v.w"),
    "a number no float holds": ({"x": {"y": [10**400]}}, NonFiniteNumberError, ".x.y[0]"),
    "a hundred deep": (
        {"x": json.loads('{"x":' * 100 + "1" + "}" * 100)},
        InvalidFieldError,
        ".x" * 17,
    ),
    "a vector of thousands": ({"taste": [0.5] * 5000}, TooManyFeaturesError, ""),
}


@pytest.mark.parametrize(("features", "error", "where"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("place", ["context", "actions[1].features"])
def test_features_without_one_meaning_are_refused_by_name(features, error, where, place):
    one = {"id": "b", "features": features}
    fields = {"context": features} if place == "context" else {"actions": [{"id": "a"}, one]}
    with pytest.raises(error) as caught:
        asked(**fields)
    assert caught.value.target == place + where


def test_a_score_that_is_null_is_none():
    (action,) = asked(actions=[{"id": "a", "scores": {"cf": None, "deep": 2}}]).actions
    assert action.scores == {"deep": 2.0}


MAPS = {
    "context": (rank, lambda found: {"context": found}, "context", [["a", 1], [[1], "x"]]),
    "features": (
        rank,
        lambda found: {
            "actions": [{"id": "a", "features": {"fine": 1}}, {"id": "b", "features": found}]
        },
        "actions[1].features",
        [["a", 1], [{}, 5]],
    ),
    "scores": (
        rank,
        lambda found: {"actions": [{"id": "a"}, {"id": "b"}, {"id": "c", "scores": found}]},
        "actions[2].scores",
        ["high", True, [1], {}],
    ),
    "probabilities": (
        rank,
        lambda found: {"actions": [{"id": "a"}], "baseline": {"probabilities": found}},
        "baseline.probabilities",
        ["high", True, [1], {}],
    ),
    "an item's features": (
        catalogue,
        lambda found: {"items": [{"id": "a"}, {"id": "b", "features": found}]},
        "items[1].features",
        [["a", 1]],
    ),
    "an item's metadata": (
        catalogue,
        lambda found: {"items": [{"id": "a", "metadata": found}]},
        "items[0].metadata",
        [5, None, ["x"], {}],
    ),
    "an item's vectors": (
        catalogue,
        lambda found: {"items": [{"id": "a", "vectors": found}]},
        "items[0].vectors",
        [5, None, "x", [1, "x"], [None], {}],
    ),
    "a patch's features": (patch, lambda found: {"features": found}, "features", [["a", 1]]),
    "a patch's metadata": (patch, lambda found: {"metadata": found}, "metadata", [5, ["x"], {}]),
    "a patch's vectors": (patch, lambda found: {"vectors": found}, "vectors", [5, [None], {}]),
}


@pytest.mark.parametrize(("decoder", "around", "where", "wrong"), MAPS.values(), ids=MAPS)
@given(name=names, others=st.dictionaries(names, st.none(), max_size=3), data=st.data())
def test_every_entry_of_every_map_is_named(decoder, around, where, wrong, name, others, data):
    """Whatever its name, and whatever else is in the map."""
    fine = {"scores": 1.0, "metadata": "x", "vectors": [1.0]}.get(where.rpartition(".")[2], 1.0)
    found = {**dict.fromkeys(others, fine), name: data.draw(st.sampled_from(wrong))}
    with pytest.raises(InvalidInputError) as caught:
        decode_body(json.dumps(around(found)).encode(), decoder)
    assert caught.value.target == f"{where}.{name}"
    assert "[...]" not in caught.value.message


def test_no_request_has_a_map_that_is_not_tried_here():
    """A map that is added to a request gets a row in MAPS, or its errors say ``[...]``."""
    found = set()
    for kind in {route.endpoint.request for route in ROUTES} - {NoneType}:
        for struct in msgspec.json.schema(kind)["$defs"].values():
            found |= {
                name
                for name, each in struct["properties"].items()
                if "additionalProperties" in str(each)
            }
    assert found == {
        *("context", "features", "scores", "metadata", "vectors", "probabilities"),
    }


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('{"context": {"b": 1, "a": %s}}', "context.a"),
        ('{"actions": [{"id": "a"}, {"id": "b", "features": {"x": %s}}]}', "actions[1].features.x"),
        ('{"actions": [{"id": "b", "scores": {"cf": %s}}]}', "actions[0].scores.cf"),
        ('{"context": {"u": {"v": [1, %s]}}}', "context.u.v[1]"),
    ],
)
def test_a_number_that_no_float_holds_is_named_as_well(number, body, where):
    with pytest.raises(NonFiniteNumberError) as caught:
        decode_body((body % number).encode(), rank)
    assert caught.value.target == where


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        (ItemRequest, {"price": 3}, "price`: there are available_from, available_until, features"),
        (ItemRequest, {"vector": [1]}, "`vector`: did you mean vectors"),
        (ItemsRequest, {"items": [{"id": "a"}, {"id": "b", "Features": {}}]}, "mean features"),
        (RankRequest, {"actions": [{"id": "a", "feature": {}}]}, "mean features"),
        (RankRequest, {"context": {"a": [1, 2]}, "userId": "u"}, "mean user_id"),
        (RewardRequest, {"reward": 1}, "there are action_id"),
    ],
)
def test_of_a_field_that_is_none_it_is_said_which_there_are_or_which_was_meant(kind, body, says):
    with pytest.raises(InvalidFieldError, match=says):
        decode_body(json.dumps(body).encode(), msgspec.json.Decoder(kind))


def test_a_feature_at_the_bound_can_be_crossed():
    assert math.isfinite(float.fromhex("0x1.fffffep127") / (1e19 * 1e19))
    assert float.fromhex("0x1.fffffep127") > 1e19 * 1e19


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (gzip.compress(b"{}", mtime=0), "compressed by gzip"),
        (b"\xef\xbb\xbf{}", "a byte order mark: leave it out"),
        ("{}".encode("utf-16"), "UTF-16: send UTF-8"),
        (b'{"event_id": "\\uD83D"}', "needs the other half of its pair"),
        (b'{"event_id": "\\ud83d\\ude00', "truncated"),
    ],
)
def test_what_is_no_json_is_called_what_it_is(body, says):
    with pytest.raises(MalformedBodyError, match=says):
        decode_body(body, rank)
