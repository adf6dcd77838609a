"""The kind of a column of items: what is a category, and what only names or describes."""

import datetime as dt

import msgspec
import pyarrow as pa
import pytest

from policies.data.items import catalogue_items, column_kind
from policies.items.changes import MAX_TEXT_BYTES, check_item
from policies.requests import Item


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ([f"film {n}" for n in range(100)], "text"),  # names: one of them for each item
        (["drama", "comedy"] * 50, "category"),
        ([f"brand {n // 2}" for n in range(100)], "category"),
        (["a", "b", "c"], "category"),  # of three nobody can tell
        (["a long description " * 10] * 5, "text"),
        ([None] * 60 + ["a", "b"], "category"),
        ([None] * 5, "category"),
    ],
)
def test_strings_that_name_one_row_each_are_texts(texts, kind):
    assert column_kind(pa.chunked_array([pa.array(texts, pa.string())])) == kind


def test_what_no_item_may_have_is_left_out():
    """Numbers that are none in features and vectors, times that no calendar has, text of 1 MB."""
    table = pa.table(
        {
            "id": ["a", "b"],
            "price": [float("nan"), 2.0],
            "ean": [1e25, 4e12],
            "look": [[1.0, float("inf")], [1.0, 2.0]],
            "embedding": [[], [1.0, None]],
            "taste": [[1e308, 1.0], [-3.5e38, 1.0]],
            "title": ["ä" * 1_000_000, ""],
            "blurb": ["more", None],
            "available_from": pa.array([10**16, 1000], pa.timestamp("ms", "UTC")),
            "available_until": pa.array([None, 2000], pa.timestamp("ms", "UTC")),
        }
    )
    kinds = {
        "price": "number",
        "ean": "number",
        "look": "vector",
        "embedding": "vector",
        "taste": "vector",
        "title": "text",
        "blurb": "text",
        "available_from": "time",
        "available_until": "time",
    }
    first, second = catalogue_items(table, kinds)
    assert first == {
        "id": "a",
        "features": {},
        "metadata": {"title": "ä" * (MAX_TEXT_BYTES // 2)},
    }
    assert second == {
        "id": "b",
        "features": {"price": 2.0, "ean": 4e12},
        "vectors": {"look": [1.0, 2.0]},
        "available_from": "1970-01-01T00:00:01.000Z",
        "available_until": "1970-01-01T00:00:02.000Z",
    }

    item = check_item(msgspec.convert(second, Item))
    assert item.available_from == dt.datetime.fromtimestamp(1, dt.UTC)
    check_item(msgspec.convert(first, Item))


@pytest.mark.parametrize(
    ("name", "texts", "kind"),
    [
        ("title", ["Green tea", "A blue mug", "Kettle"], "text"),
        ("product_name", ["Green tea", "A blue mug", None], "text"),
        ("title", ["Tea", "Mug"], "category"),  # single words
        ("title", ["Green tea"] * 3 + ["A blue mug"], "category"),
        ("brand_name", ["Acme Corp", "Hill & Sons"], "category"),
    ],
)
def test_titles_are_texts_however_few_they_are(name, texts, kind):
    assert column_kind(pa.chunked_array([pa.array(texts, pa.string())]), name) == kind
