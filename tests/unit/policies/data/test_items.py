"""The kind of a column of items: what is a category, and what only names or describes."""

import pyarrow as pa
import pytest

from policies.data.items import column_kind


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
