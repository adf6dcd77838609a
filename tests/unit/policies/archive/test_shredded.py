"""Decisions that compiled code takes apart say what decoding says, and what it is unsure of is decoded."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.full_logs import (
    full_decisions,
    full_logs,
    same,
    without_apprentice,
    without_artifact,
    without_profile,
    without_rules,
)
from support.logs import decision
from support.strategies import tries

from bandits.log.codec import encode
from bandits.log.records import NO_RULES, Apprentice, Credit, Placed, Removed, Ruled
from policies.archive.columns import COLUMNS, columns_of, decoded
from policies.archive.parts import shredded
from policies.archive.parts.shredded import rows_of


def check(data: list[bytes]) -> bool:
    """Compare both ways; whether compiled code took the decisions."""
    ids = [f"1700000000000-{n + 1}" for n in range(len(data))]
    rows = rows_of(ids, data)
    found, expected = rows.columns(COLUMNS.names), columns_of(ids, list(map(decoded, data)))
    found.validate(full=True)
    assert same(found.to_pylist(), expected.to_pylist())
    return type(rows) is shredded.ShreddedRows


@tries(100)
@given(full_logs().filter(bool))
def test_all_columns_are_those_of_the_decoded_records(log):
    check([data for _, data in log])


@tries(100)
@given(st.lists(full_decisions(), min_size=1, max_size=4))
def test_what_this_build_writes_is_taken_apart(records):
    """But for a mixture's credits and failures, which few logs have."""
    plain = [msgspec.structs.replace(record, credit=None, failed=None) for record in records]
    data = [encode(record) for record in plain]
    assert check(data)
    assert check(
        [
            *data,
            *map(without_artifact, data),
            *map(without_profile, data),
            *map(without_rules, data),
            *map(without_apprentice, data),
        ]
    )


@tries(200)
@given(full_decisions(), st.data())
def test_a_byte_that_was_changed_is_judged_as_by_the_codec(record, data):
    """Whatever becomes of a record, it is undecodable here if and only if it is there."""
    good = bytearray(encode(msgspec.structs.replace(record, credit=None, failed=None)))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] = data.draw(st.integers(0, 255))
    check([bytes(good)])
    check([bytes(good[: data.draw(st.integers(0, len(good)))])])


LONG = ["x" * 31, "y" * 32, "z" * 255, "w" * 256, "ü" * 40, ""]


@pytest.mark.parametrize(
    "record",
    [
        decision(user="u" * 300, context={name: name for name in LONG}),
        decision(artifact="v" * 32),
        decision(profile="p" * 16, user="u"),
        decision(profile="", user="u"),
        decision(features=[{name: [name, "a"] for name in LONG}, {}, None]),
        decision(ids=tuple(f"a{n}" for n in range(300)), chosen=(299, 130, 5)),
        decision(context={f"n{n}": float(n) for n in range(40)}),
        decision(scores={"cf": np.array([math.nan, -0.0, 1e-45], "<f4").tobytes()}),
        decision(rules=NO_RULES),
        decision(
            rules=Ruled(
                filter="x" * 300,
                now_ms=1_764_000_000_000,
                did={"view": ["y" * 40, ""] * 10, "": []},
                removed={"filter": Removed([f"a{n}" for n in range(200)], 1 << 31)},
                placed=[Placed(0, "p"), Placed(65_535, "q")],
            )
        ),
        decision(apprentice=Apprentice("request", decision().pmf, [2])),
        decision(
            chosen=(2, 0),
            apprentice=Apprentice("holdout", decision(chosen=(1, 2)).pmf, [1, 2]),
        ),
        decision(unserved=True),
        decision(unserved=True, holdout=True, deferred=True),
        decision(context={"big": 1e19, "small": -1e19, "least": 5e-324}),
    ],
)
def test_sizes_and_values_at_their_limits_are_taken_apart(record):
    assert check([encode(record)])


def test_parts_of_hardly_any_bytes_find_room():
    ids = tuple(map(chr, range(128)))
    features = [{"": [""] * 15}, {"": ""}] * 64
    record = decision(ids=ids, context=dict.fromkeys(ids, True), features=features, scores={})
    assert check([encode(record)] * 3)


@pytest.mark.parametrize(
    "record",
    [
        decision(context={"big": 1.0000001e19}),
        decision(context={"none": math.nan}),
        decision(scores={"cf": np.array([math.inf, 0, 0], "<f4").tobytes()}),
        decision(scores={"cf": bytes(8)}),
        decision(chosen=(0, 1), pmf=np.full(6, 1 / 3).tobytes(), ids=("a", "a", "b")),
        decision(pmf=np.array([0.5, 0.5, 1e-11]).tobytes()),
        decision(pmf=np.array([1.5, -0.5, 0.0]).tobytes()),
        decision(pmf=np.array([0.0, 0.5, 0.5]).tobytes()),
        decision(pmf=np.array([math.nan, 0.5, 0.5]).tobytes()),
        decision("e" * 257),
        decision(""),
        decision(features=[{}, {}]),
        decision(credit=Credit(["a"], np.array([1.0]).tobytes(), [0])),
        decision(failed={"cf": "why"}),
        decision(apprentice=Apprentice("nobody", decision().pmf, [0])),
        decision(apprentice=Apprentice("first", decision().pmf, [3])),
        decision(apprentice=Apprentice("first", decision().pmf, [0, 1])),
        decision(apprentice=Apprentice("first", bytes(24), [0])),
        decision(apprentice=Apprentice("first", decision().pmf[:16], [0])),
        decision(apprentice=Apprentice("first", np.array([0.0, 0.5, 0.5]).tobytes(), [0])),
        decision(
            chosen=(0, 1), apprentice=Apprentice("first", decision(chosen=(0, 1)).pmf, [1, 1])
        ),
        decision(rules=Ruled(boosts=bytes(8))),
        decision(rules=Ruled(boosts=np.array([math.nan, 0, 0], "<f4").tobytes())),
        decision(rules=Ruled(placed=[Placed(1, "p"), Placed(0, "q")])),
        decision(rules=Ruled(now_ms=-1)),
        decision(rules=Ruled(removed={"filter": Removed([], 1 << 63)})),
    ],
)
def test_what_is_no_decision_or_has_rare_parts_is_decoded(record):
    assert not check([encode(record)])


def test_maps_with_a_name_twice_are_decoded():
    """A dict keeps one of them, so its bytes are others."""
    data = encode(decision(context={"aa": 1.0, "ab": 2.0}, scores={}))
    twice = data.replace(b"\xa2ab", b"\xa2aa")
    assert decoded(twice).context == {"aa": 2.0}
    assert not check([twice])


def test_more_distinct_words_than_there_was_place_for(monkeypatch):
    monkeypatch.setattr(shredded, "WORDS", 2)
    assert check([encode(decision(f"e{n}", ids=(f"a{n}", f"b{n}"))) for n in range(50)])


def test_one_that_is_unsure_has_all_of_its_group_decoded():
    data = [encode(decision(f"e{n}")) for n in range(3)]
    assert check(data)
    assert not check([*data, encode(decision("f", failed={"cf": "why"}))])
