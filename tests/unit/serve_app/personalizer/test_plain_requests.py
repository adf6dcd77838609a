"""A request that is decoded quickly says what it says when it is decoded with care."""

import json
from typing import Any

import msgspec
import pytest

from bandits.errors import InvalidInputError
from serve_app.personalizer.bodies import PlainRankCall, RankCall
from serve_app.personalizer.operations import OPERATIONS
from serve_app.personalizer.single_slot import actions_of, context_of

RANK = OPERATIONS[0]
PLAIN: dict[str, Any] = {
    "actions": [
        {"id": "a", "features": [{"topic": "sport", "price": 2, "live": True, "was": -0.5}]},
        {"id": "é世界", "features": [{"topic": "war"}], "rank": 3},
    ],
    "contextFeatures": [{"user": {"age": 30, "none": None}}, {"hour": 8}],
    "excludedActions": None,
    "eventId": "e",
    "deferActivation": True,
    "learningEnabled": False,
}


def with_features(*features: Any) -> dict[str, Any]:
    return {**PLAIN, "actions": [*PLAIN["actions"], {"id": "z", "features": [*features]}]}


def meaning(call: Any) -> tuple[Any, ...]:
    """What a request asks for: its actions and context as a record has them, and the rest."""
    fields = msgspec.structs.asdict(call)
    del fields["actions"], fields["context_features"]
    return actions_of(call.actions), context_of(call.context_features), fields


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PLAIN, PlainRankCall),
        ({"actions": PLAIN["actions"]}, PlainRankCall),
        (
            {**PLAIN, "contextFeatures": [{"user": {"age": 30, "vip": True}, "hour": 8}]},
            PlainRankCall,
        ),
        ({**PLAIN, "contextFeatures": [{"a": {"b.c": 1}, "a.b": {"c": 2}}]}, PlainRankCall),
        ({**PLAIN, "contextFeatures": [{"a": {"b": {"c": "x"}, "d": None}}]}, PlainRankCall),
        (with_features({"x": 1}, {"x": 2}), RankCall),
        (with_features({"n": {"x": 1}}), RankCall),
        (with_features({"taste": [0.5, 1]}), RankCall),
        (with_features({"none": None, "x": 1}), RankCall),
        (with_features({"_hidden": 1, "x": 1}), RankCall),
        (with_features({"x": "_said"}), RankCall),
        (with_features({"x": "", "a_b": 1}), PlainRankCall),
        (with_features({"a\\b": 1}), RankCall),
        (with_features(None, {"x": 1}), RankCall),
    ],
)
def test_both_decodings_mean_the_same(body, kind):
    """The quick one is of actions with one object of features each, and no name that is ignored."""
    data = json.dumps(body, ensure_ascii=False).encode()
    call = RANK.decoded(data)
    assert type(call) is kind
    assert meaning(call) == meaning(RANK.decoder.decode(data))


@pytest.mark.parametrize(
    "data",
    [
        b'{"actions": [{"id": "a", "features": [{"\\u005fhidden": 1, "x": 1}]}]}',
        b'{"actions": [{"id": "a", "features": [{"\\u005f": "hidden", "x": 1}]}]}',
    ],
)
def test_a_name_that_is_written_with_an_escape_is_ignored_all_the_same(data):
    (action,) = actions_of(RANK.decoded(data).actions)
    assert action.features == {"x": 1.0}


@pytest.mark.parametrize(
    "body",
    [
        with_features(),
        with_features({"": 1}),
        with_features({"x": ["a"]}),
        with_features("x"),
        {**PLAIN, "actions": []},
        {**PLAIN, "actions": [PLAIN["actions"][0]] * 2},
        {**PLAIN, "actions": None},
        {},
        {**PLAIN, "eventId": 5},
    ],
)
def test_what_is_wrong_is_refused_whichever_way_it_is_decoded(body):
    with pytest.raises(InvalidInputError) as caught:
        meaning(RANK.decoded(json.dumps(body).encode()))
    assert caught.value.target
