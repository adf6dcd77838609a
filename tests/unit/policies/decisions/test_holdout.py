"""The holdout and its fixed policies, and what is excluded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, FakeSource, fresh_ranker

from bandits.types import ActionSet, Context, check_pmf
from policies.decisions.holdout import FixedPolicy, in_holdout
from policies.requests import ActionRequest, RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource

ACTIONS = [
    ActionRequest(name, scores={"cf": score})
    for name, score in [("a", 1.0), ("b", 3.0), ("c", 3.0)]
]


def held_out(fraction: float, unit: str) -> bool:
    return in_holdout(Holdout(fraction), salt=b"s", name="home", unit=unit)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9])
def test_the_share_held_out_is_the_fraction(fraction):
    """20,000 units, within 4 standard errors (false alarm 6e-5 each)."""
    share = np.mean([held_out(fraction, f"user{i}") for i in range(20_000)])
    assert abs(share - fraction) <= 4 * np.sqrt(fraction * (1 - fraction) / 20_000)


def test_nobody_and_everybody_are_exact():
    assert not any(held_out(0.0, str(i)) for i in range(1000))
    assert all(held_out(1.0, str(i)) for i in range(1000))
    assert not in_holdout(None, salt=b"s", name="home", unit="x")


@given(st.text(max_size=20))
def test_assignment_is_for_ever_and_grows_with_the_fraction(unit):
    assert held_out(0.3, unit) == held_out(0.3, unit)
    assert held_out(0.3, unit) <= held_out(0.6, unit)


def test_policies_and_salts_hold_out_independently():
    """Two assignments of 10,000 units overlap in a quarter, within 4 standard errors (6e-5)."""
    units = [str(i) for i in range(10_000)]
    rule = Holdout(0.5)
    pairs = [((b"s", "home"), (b"s", "other")), ((b"s", "home"), (b"t", "home"))]
    for (salt1, name1), (salt2, name2) in pairs:
        both = np.mean(
            [
                in_holdout(rule, salt=salt1, name=name1, unit=u)
                and in_holdout(rule, salt=salt2, name=name2, unit=u)
                for u in units
            ]
        )
        assert abs(both - 0.25) <= 4 * np.sqrt(0.1875 / 10_000)


def test_a_fixed_policy_is_uniform_or_a_sources_best():
    actions = ActionSet(("a", "b", "c"), scores={"cf": np.array([1, 3, 3], np.float32)})
    assert FixedPolicy("uniform").pmf(Context(), actions).tolist() == [1 / 3] * 3
    assert FixedPolicy("cf").pmf(Context(), actions).tolist() == [0, 0.5, 0.5]
    assert FixedPolicy("unknown").pmf(Context(), actions).tolist() == [1 / 3] * 3
    absent = ActionSet(("a", "b"), scores={"cf": np.array([np.nan, -9], np.float32)})
    assert FixedPolicy("cf").pmf(Context(), absent).tolist() == [0, 1]
    nothing = ActionSet(("a", "b"), scores={"cf": np.full(2, np.nan, np.float32)})
    assert check_pmf(FixedPolicy("cf").pmf(Context(), nothing)).tolist() == [0.5, 0.5]


async def test_a_held_out_decision_is_served_by_the_fixed_policy_and_says_so():
    spec = PolicySpec("home", holdout=Holdout(0.5), floor=0.0)
    ranker = fresh_ranker(spec)
    records = [
        await ranker.rank(RankRequest(event_id=f"e{i}", user_id=f"u{i % 40}", actions=ACTIONS))
        for i in range(200)
    ]
    for i, record in enumerate(records):
        assert record.holdout == in_holdout(
            spec.holdout, salt=SALT, name="home", unit=f"=u{i % 40}"
        )
        if record.holdout:
            assert record.pmfs().tolist() == [[1 / 3] * 3]
    assert {record.holdout for record in records} == {True, False}


async def test_the_unit_is_the_named_field_or_else_the_event():
    for rule, request in [
        (Holdout(0.5, field="device"), {"context": {"device": "tv"}}),
        (Holdout(0.5), {"user_id": "u"}),
    ]:
        ranker = fresh_ranker(PolicySpec("home", holdout=rule))
        same = {
            (await ranker.rank(RankRequest(event_id=f"e{i}", actions=ACTIONS, **request))).holdout
            for i in range(30)
        }
        assert len(same) == 1
        each = {
            (await ranker.rank(RankRequest(event_id=f"e{i}", actions=ACTIONS))).holdout
            for i in range(30)
        }
        assert each == {True, False}


async def test_a_slate_of_a_held_out_decision_is_the_sources_order():
    spec = PolicySpec(
        "home", sources=[RemoteSource("cf", "http://x")], holdout=Holdout(1.0, policy="cf")
    )
    ranker = fresh_ranker(spec, [FakeSource("cf", {"a": 1.0, "b": 3.0, "c": 2.0})])
    record = await ranker.rank(RankRequest(user_id="u", slots=3))
    assert [record.action_ids[k] for k in record.chosen] == ["b", "c", "a"]


async def test_what_is_excluded_is_gone_before_the_pmf():
    ranker = fresh_ranker(PolicySpec("home", floor=1.0))
    record = await ranker.rank(RankRequest(event_id="e", actions=ACTIONS, exclude=["b"]))
    assert record.action_ids == ["a", "c"]
    assert record.pmfs().tolist() == [[0.5, 0.5]]


async def test_sources_are_told_what_is_excluded():
    source = FakeSource("cf", {"a": 1.0, "b": 3.0})
    ranker = fresh_ranker(PolicySpec("home", sources=[RemoteSource("cf", "http://x")]), [source])
    record = await ranker.rank(RankRequest(user_id="u", exclude=["b"]))
    assert source.requests[0].exclude == {"b"}
    assert record.action_ids == ["a"]
