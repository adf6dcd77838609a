"""What compiled functions are made of."""

import numba
import numpy as np

from bandits.kernels.compiled import borrowed


def test_a_borrowed_array_is_the_one_that_was_given():
    @numba.njit
    def double_all(numbers):
        taken = borrowed(numbers)
        for part in (taken[:2], taken[2:]):
            part[:] = 2 * part
        return taken.sum()

    numbers = np.arange(5.0)
    assert double_all(numbers) == 20.0
    assert numbers.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
