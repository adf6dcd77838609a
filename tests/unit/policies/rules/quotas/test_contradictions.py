"""Quotas that no choice of items could keep together are refused, and no others."""

import pytest

from bandits.errors import SpecError
from policies.rules.filters import FilterRule
from policies.rules.quotas.quota import Exposure, Quota
from policies.spec import PolicySpec
from policies.spec.checks import admit

OLD = "item.title.startsWith('Old')"
A, B, BOTH = "item.f == 'a'", "item.f == 'b'", "item.f in ['a', 'b']"


def least(when: str, share: float) -> Quota:
    return Quota(when, at_least=share)


def most(when: str, share: float) -> Quota:
    return Quota(when, at_most=share)


@pytest.mark.parametrize(
    ("quotas", "exposure", "named"),
    [
        ([least(A, 0.6), least(B, 0.5)], None, [0, 1]),
        ([least(A, 0.3), most(A, 0.2), least(B, 0.1)], None, [0, 1]),
        ([least(B, 0.1), least(A, 0.4), most(BOTH, 0.3)], None, [1, 2]),
        (
            [most(A, 0.3), most("!(item.f == 'a')", 0.6), most("!has(item.f)", 0.05)],
            None,
            [0, 1, 2],
        ),
        ([least("item.n > 5", 0.6), least("item.n <= 5", 0.5)], None, [0, 1]),
        ([least(A, 0.5), most("item.g || true", 0.4)], None, [1]),
        ([least("item.n > 5 && item.f == 'a'", 0.6), most(A, 0.5)], None, [0, 1]),
        ([most(A, 0.05), least("item.n > 1", 0.2)], Exposure("f", 0.1), [0]),
        ([least(OLD, 0.6), least("!has(item.f)", 0.2), most(OLD, 0.3)], None, [0, 2]),
        ([least(OLD, 0.6), least(f"!({OLD})", 0.6)], None, [0, 1]),
        ([least("item.n + 1 > 2", 0.6), least("item.n + 1 <= 2", 0.6)], None, [0, 1]),
        ([least("item.n > item.m", 0.6), most("item.m < item.n", 0.3)], None, [0, 1]),
        ([least("item.m == item.f", 0.6), least("item.f != item.m", 0.6)], None, [0, 1]),
        ([least("item.id == 'a'", 0.6), least("item.id == 'b'", 0.6)], None, [0, 1]),
        (
            [least("item.id in ['a', 'b']", 0.6), most("item.id in ['b', 'a', 'c']", 0.3)],
            None,
            [0, 1],
        ),
        ([least("'x' in item.tags", 0.6), most("('x' in item.tags) || false", 0.3)], None, [0, 1]),
        ([least(f"{OLD} && item.n > 1", 0.6), most(f"{OLD} || {B}", 0.5)], None, [0, 1]),
        (
            [least(f"item.t{n}.contains('x')", 0.6) for n in range(12)]
            + [most(A, 0.6), least(A, 0.7)],
            None,
            [12, 13],
        ),
    ],
)
def test_what_contradicts_is_refused_and_nothing_else_is_named(quotas, exposure, named):
    given = {} if exposure is None else {"exposure": exposure}
    with pytest.raises(SpecError, match="keeps all of these") as caught:
        admit(PolicySpec("home", quota=quotas, **given))
    assert caught.value.target == "quota"
    told = [at for at, quota in enumerate(quotas) if quota.name in caught.value.message]
    assert told == named


@pytest.mark.parametrize(
    ("quotas", "where", "unknown", "named"),
    [
        ([least(A, 0.2)], B, "refuse", [0]),
        ([least(A, 0.2)], "item.f != 'a' && context.region in item.regions", "refuse", [0]),
        ([least(B, 0.1), most("item.n > 5", 0.4)], "item.n > 9 && item.n < 20", "refuse", [1]),
        ([least("!has(item.f)", 0.1)], "item.f in ['a', 'b']", "refuse", [0]),
        ([least(A, 0.2)], B, "admit", [0]),
        ([least(OLD, 0.2)], f"!({OLD})", "refuse", [0]),
        ([least(OLD, 0.2)], f"!({OLD}) && item.n > 1", "admit", [0]),
        ([least("item.id == 'a'", 0.2)], "item.id != 'a'", "refuse", [0]),
        ([least("'x' in item.tags", 0.2)], "!('x' in item.tags) && context.vip", "refuse", [0]),
    ],
)
def test_a_quota_of_what_the_filter_refuses_is_refused(quotas, where, unknown, named):
    """Whoever asks: so no decision could ever come nearer to the share."""
    rule = FilterRule(where, unknown=unknown)
    with pytest.raises(SpecError, match=r"that filter\.where admits keeps all of these") as caught:
        admit(PolicySpec("home", quota=quotas, filter=rule))
    assert caught.value.target == "quota"
    told = [at for at, quota in enumerate(quotas) if quota.name in caught.value.message]
    assert told == named


def test_a_filter_of_many_fields_hides_no_contradiction_of_the_quotas():
    where = " && ".join(f"item.n{at} > {at}" for at in range(12))
    with pytest.raises(SpecError, match="no choice of items keeps all of these"):
        admit(PolicySpec("home", quota=[least(A, 0.6), least(B, 0.5)], filter=FilterRule(where)))


@pytest.mark.parametrize(
    ("quotas", "exposure", "where", "unknown"),
    [
        ([least(A, 0.2)], None, BOTH, "refuse"),
        ([most(A, 0.2)], None, "item.f != 'a'", "refuse"),
        ([least(A, 0.2)], None, "item.f == 'b' || context.vip", "refuse"),
        ([least("!has(item.f)", 0.1)], None, "item.f in ['a', 'b']", "admit"),
        ([least(A, 0.2)], None, "item.title.startsWith('b')", "refuse"),
        ([least(A, 0.2)], None, "item.id == 'i1'", "refuse"),
        ([most(A, 0.2)], Exposure("f", 0.1), "item.f != 'a'", "refuse"),
        ([least(A, 0.2)], Exposure("f", 0.1), "item.f != 'c'", "refuse"),
        ([least(A, 0.2)], None, "item.n > 5 && item.n < 3", "refuse"),
    ],
)
def test_a_quota_that_some_item_past_the_filter_can_hold_is_taken(quotas, exposure, where, unknown):
    """Also where the filter says nothing of items that can be thought of, or lets nothing through."""
    given = {} if exposure is None else {"exposure": exposure}
    admit(PolicySpec("home", quota=quotas, filter=FilterRule(where, unknown=unknown), **given))


@pytest.mark.parametrize(
    ("quotas", "exposure"),
    [
        ([least(A, 0.5), least(B, 0.5)], None),
        ([least(A, 0.3), most(A, 0.3)], None),
        ([least(A, 0.6), least("item.g == 'b'", 0.6)], None),
        ([least("item.n > 5", 0.6), least("item.n < 6", 0.6)], None),
        ([least("item.n * 2 > 5", 0.6), least("item.n < 1 + 1", 0.6)], None),
        ([least("item.f.startsWith('a')", 0.6), least(B, 0.6)], None),
        ([most(A, 0.3), most("item.f != 'a'", 0.3)], None),
        ([most(A, 0.2)], Exposure("f", 0.1)),
        ([least("item.id in ['i1', 'i2']", 0.2)], None),
        ([least("item.id == 'a'", 0.5), least("item.id == 'b'", 0.5)], None),
        ([least(OLD, 0.5), least(f"!({OLD})", 0.5)], None),
        ([most(OLD, 0.3), most(f"!({OLD})", 0.3)], None),
        ([least(OLD, 0.6), least("item.title.startsWith('Older')", 0.6)], None),
        ([least("item.f == 'a'", 0.5), least("item.f > 3", 0.5)], None),
        ([least("'x' in item.tags", 0.6), least("has(item.tags)", 0.6)], None),
        ([least("item.id == 'i1'", 0.2), most("item.id != 'i1' && item.f == 'a'", 0.7)], None),
    ],
)
def test_what_can_be_held_is_taken_also_where_nothing_is_known(quotas, exposure):
    given = {} if exposure is None else {"exposure": exposure}
    admit(PolicySpec("home", quota=quotas, **given))
