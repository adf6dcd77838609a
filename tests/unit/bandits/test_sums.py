import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from bandits.sums import sum_products

STRIDES = [(0, 0), (0, 8), (8, 0), (8, 8), (40, 8), (8, 40)]


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("step", [0, 8])
def test_a_sum_over_nothing_is_0_whatever_lies_behind_it_in_memory(strides, step):
    """A replica before its first snapshot of any feature scores so: one NaN, and it serves none."""
    nan = np.full(100, np.nan)
    features, weights = as_strided(nan, (5, 0), strides), as_strided(nan, (0,), (step,))
    assert sum_products("kn,n->k", features, weights).tolist() == [0.0] * 5

    other = as_strided(nan, (5, 0), (0, step))
    assert sum_products("kn,kn->k", features, other).tolist() == [0.0] * 5


def test_a_sum_is_of_products():
    features, weights = np.arange(6.0).reshape(2, 3), np.array([1.0, 10.0, 100.0])
    assert sum_products("kn,n->k", features, weights).tolist() == [210.0, 543.0]
