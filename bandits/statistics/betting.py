"""Testing by betting: the money of a bettor who would lose if the hypothesis were true."""

import math

import numpy as np

from bandits.types import Float64

BETS_ABOVE = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001])
"""Bets that unlikely actions are chosen more than logged: this share of the choices was uniform."""


def p_value(log_money: Float64) -> float:
    """Return 1 / the money of all bettors, at most 1, where they began with 1 divided equally.

    Args:
        log_money: what each has by now, as the logarithm of a multiple of what it began with.
    """
    largest = float(log_money.max())
    total = largest + math.log(float(np.exp(log_money - largest).mean()))
    return math.exp(-max(total, 0.0))
