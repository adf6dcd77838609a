"""What requests say of their actions is kept, and is for each request what that request said."""

import numpy as np
import pytest

from policies.rules import sent
from policies.rules.filters import FilterRule
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import Asked
from policies.rules.sent import SentItems

RULES = PolicyRules(FilterRule("item.price < 5.0 && item.live == true", fields=["title", "tags"]))
ASKED = Asked({}, dict, 0)


def admitted(items, ids) -> list[bool]:
    return items.admits(items.rows(ids), ASKED).tolist()


def test_what_is_sent_again_is_found_and_what_changes_is_looked_at_anew():
    kept = SentItems(RULES)
    cheap, dear = {"price": 1.0, "live": True}, {"price": 9.0, "live": True, "tags": ["a"]}
    first = kept.take_in(["a", "b"], [cheap, dear])
    assert admitted(first, ["a", "b"]) == [True, False]
    again = kept.take_in(["b", "a"], [dict(dear), dict(cheap)])
    assert again.rows(["a", "b"]).tolist() == first.rows(["a", "b"]).tolist()
    assert again.rows(["c"]).tolist() == [0]

    changed = kept.take_in(["a", "c"], [dear, cheap])
    assert admitted(changed, ["a", "c"]) == [False, True]
    assert changed.columns.features("a") == dear


def test_a_request_that_waits_has_its_own_whatever_comes_meanwhile(monkeypatch):
    """Also where all is forgotten, for there was too much of it."""
    monkeypatch.setattr(sent, "MOST", 12)
    kept, ids = SentItems(RULES), ["a", "b", "c"]
    waits = kept.take_in(ids, [{"price": float(at), "live": True} for at in range(3)])
    for round_ in range(9):
        kept.take_in(ids, [{"price": 7.0 + round_, "live": True}] * 3)
        assert admitted(waits, ids) == [True, True, True]
        assert [waits.columns.features(each)["price"] for each in ids] == [0.0, 1.0, 2.0]
    assert len(kept._items) <= 12


@pytest.mark.parametrize(("before", "now"), [(1.0, True), (False, 0.0)])
def test_true_is_not_one(before, now):
    kept = SentItems(RULES)
    said = [{"price": 1.0, "live": live} for live in (before, now)]
    found = [admitted(kept.take_in(["a"], [each]), ["a"]) for each in said]
    assert found == [[before is True], [now is True]]


def test_many_items_are_what_they_are_one_by_one():
    rng, kept = np.random.default_rng(0), SentItems(RULES)
    for _ in range(30):
        ids = [f"i{number}" for number in rng.choice(40, 12, replace=False)]
        features = [
            {"price": float(rng.integers(10)), "live": bool(rng.integers(2)), "title": f"t{n}"}
            for n in rng.integers(5, size=12)
        ]
        items = kept.take_in(ids, features)
        assert admitted(items, ids) == [own["price"] < 5 and own["live"] for own in features]
        assert [items.columns.features(each) for each in ids] == features
