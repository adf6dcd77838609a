"""Sums of products in a fixed order: the same bits however a log was cut into batches."""

import numpy as np

from bandits.types import Float64


def add_products(total: Float64, left: Float64, right: Float64) -> Float64:
    """``total`` + the outer products of each row of ``left`` with that row of ``right``, added row by row.

    A matrix product would add them in an order that depends on how many there are.
    """
    if ORDERED and len(left) >= len(total):
        return _in_one_loop(total, left, right)
    return _one_by_one(total, left, right)


def _one_by_one(total: Float64, left: Float64, right: Float64) -> Float64:
    out, product = total.copy(), np.empty_like(total)
    for column, row in zip(left[:, :, None], right, strict=True):
        np.multiply(column, row, out=product)
        np.add(out, product, out=out)
    return out


def _in_one_loop(total: Float64, left: Float64, right: Float64) -> Float64:
    """The same: einsum starts from zeros, so the rows of ``total``, each times 1, come first."""
    rows = np.concatenate([np.eye(len(total)), left]), np.concatenate([total, right])
    sums: Float64 = np.einsum("ni,nj->ij", *rows)
    return sums


def _ordered() -> bool:
    """Whether einsum adds in order and rounds each product, as a build of numpy for some machines does not."""
    rng = np.random.default_rng(0)
    for rows, columns in ((3, 1), (40, 2), (256, 65)):
        total, left = rng.normal(size=(columns + 1, columns)), rng.normal(size=(rows, columns + 1))
        right = rng.normal(size=(rows, columns))
        if _in_one_loop(total, left, right).tobytes() != _one_by_one(total, left, right).tobytes():
            return False
    return True


ORDERED = _ordered()
"""Then one loop in C does it; else a loop in Python does, with the same bits on any machine."""
