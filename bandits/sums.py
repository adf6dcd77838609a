"""Sums of products, by NumPy's einsum."""

import numpy as np

from bandits.types import Float64


def sum_products(subscripts: str, one: Float64, other: Float64) -> Float64:
    """Return sums of the products of two arrays; a sum over nothing is 0.

    The sum of a row does not depend on where it stands, as it may in a product of matrices.

    Args:
        subscripts: which axes are multiplied, and which are summed; see ``numpy.einsum``.
        one: float64.
        other: float64, of a shape that fits.
    """
    # Over an empty axis einsum may add 0 times whatever lies behind one of the arrays in memory,
    # which may be NaN. It does not with arrays as NumPy makes them.
    if not one.size:
        one, other = np.zeros(one.shape), np.zeros(other.shape)
    sums: Float64 = np.einsum(subscripts, one, other)
    return sums
