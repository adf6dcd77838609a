"""Features that are a table of numbers: they become what they become one by one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import NonFiniteNumberError
from bandits.features.namespaces import FEATURES
from bandits.types import Namespace
from policies.candidate_pool import explicit_pool
from policies.encoding import coded_rows, numbers_alike, rows_alike
from policies.requests import ActionRequest

NUMBERS = st.floats(-1e19, 1e19)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@given(TABLES)
@settings(max_examples=50)
def test_a_table_has_the_bytes_of_its_maps(rows):
    maps = [{f"f{at}": value for at, value in enumerate(row)} for row in rows]
    numbers = numbers_alike(maps)
    assert numbers is not None
    alike = rows_alike(numbers, FEATURES)
    hashes, codes, values = coded_rows(maps)
    assert alike is not None
    assert alike.hashes.tobytes() == hashes.tobytes()
    assert alike.values.tobytes() == values.tobytes()
    one_by_one = Namespace(FEATURES, hashes, values, codes)
    assert np.broadcast_to(alike.cells(), values.shape).tolist() == one_by_one.cells().tolist()
    assert rows_alike(numbers.at([0]), FEATURES).values.tobytes() == values[:1].tobytes()


@pytest.mark.parametrize(
    "maps",
    [
        [],
        [{}],
        [{"a": 1.0}, None],
        [{"a": 1.0}, {"b": 1.0}],
        [{"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}],
        [{"a": 1.0}, {"a": "x"}],
        [{"a": True}],
        [{"a": math.nan}],
        [{"a": 1e20}],
        [{f"f{at}": 1.0 for at in range(257)}],
    ],
)
def test_what_is_no_table_is_looked_at_one_by_one(maps):
    assert numbers_alike(maps) is None


def test_a_number_that_is_too_large_is_named_though_all_others_are_alike():
    actions = [ActionRequest(f"a{k}", {"x": 1.0, "y": 1e20 if k == 2 else 0.0}) for k in range(4)]
    with pytest.raises(NonFiniteNumberError) as caught:
        explicit_pool(actions)
    assert caught.value.target == "actions[2].features.y"
    with pytest.raises(NonFiniteNumberError):
        explicit_pool(actions, frozenset({"a2"}))
    kept = explicit_pool(actions[:2], frozenset({"a0"}))
    assert kept.numbers is not None
    assert kept.numbers.values.tolist() == [[1.0, 0.0]]
