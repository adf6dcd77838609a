"""Columns that grow, and are put in another order, a part at a time."""

import numpy as np
import pytest

from simulator.report import growing
from simulator.report.growing import GrowingColumn


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_a_column_is_put_in_order_whatever_its_parts(monkeypatch, count):
    """What is added afterwards comes after it."""
    monkeypatch.setattr(growing, "AT_ONCE", 7)
    monkeypatch.setattr(growing, "LEAST", 4)
    rng = np.random.default_rng(0)
    numbers, order = rng.integers(100, size=count), rng.permutation(count).astype(np.uint32)
    column = GrowingColumn(np.int64)
    for part in np.array_split(numbers, 3):
        column.add(part)

    column.put_in_order(order)
    assert column.values().tolist() == numbers[order].tolist()
    column.add(np.array([5]))
    assert column.values().tolist() == [*numbers[order].tolist(), 5]
