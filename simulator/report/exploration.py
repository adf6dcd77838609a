"""The price of exploration: what would be earned without it, by doubly robust evaluation.

It is what ``banditloop replay --policy greedy --estimator dr`` says on the same rows.
"""

import math
from collections.abc import Sequence

from bandits.errors import BanditloopError
from simulator.logs.rows import Piece
from simulator.ope.diagnostics import ROUNDING
from simulator.ope.targets import GreedyTarget, LoggingTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.report.report import ExplorationPrice


def exploration_price(pieces: Sequence[Piece]) -> ExplorationPrice:
    """Return the price of exploration on some rows of a log.

    Args:
        pieces: the rows.
    """
    question = OpeQuestion([GreedyTarget(), LoggingTarget()], estimators=["dr"])
    try:
        found = evaluate(question, pieces)
    except BanditloopError as error:
        return ExplorationPrice(0, math.nan, -math.inf, math.inf, "unreliable", error.message)
    (comparison,) = found.comparisons
    result = comparison.result
    low, high = result.interval

    # Where nothing is explored, as beside an apprentice, both are the same but for rounding.
    earned = abs(found.log.mean_reward)
    price, low, high = (
        0.0 if abs(each) <= ROUNDING * earned else each for each in (result.difference, low, high)
    )
    return ExplorationPrice(found.log.rows, price, low, high, result.verdict, result.reason)
