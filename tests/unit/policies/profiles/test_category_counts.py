"""How often a user did something with items of each category."""

from policies.items.catalogue import Item
from policies.profiles import category_counts
from policies.profiles.category_counts import CategoryCounts


def test_each_text_of_a_feature_counts_once_an_event_and_the_most_come_first():
    counts = CategoryCounts()
    for item in (
        Item("a", {"kind": "shoes", "tags": ["new", "red", "red"], "price": 3.0, "sale": True}),
        Item("b", {"kind": "shirts", "tags": ["red"]}),
        None,
        Item("a", {"kind": "shoes", "tags": []}),
    ):
        counts.add(item)
    told = counts.told()
    assert told == {"kind": {"shoes": 2, "shirts": 1}, "tags": {"red": 2, "new": 1}}
    assert [*told["tags"]] == ["red", "new"]
    assert CategoryCounts().told() == {}


def test_of_many_values_the_most_frequent_are_told(monkeypatch):
    monkeypatch.setattr(category_counts, "MOST_VALUES", 2)
    counts = CategoryCounts()
    for brand in "cabbc":
        counts.add(Item("i", {"brand": brand}))
    assert counts.told() == {"brand": {"b": 2, "c": 2}}
