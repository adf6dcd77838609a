"""The signals that the rules of an archive weigh, as the compiled join takes them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.kernels import joins
from bandits.log.join_rule import UNNAMED, Aggregation, JoinRule, SignalledRule, SignalRule
from bandits.types import Float64
from simulator.logs.archive.entries import Bools, Int32, Int64

AGGREGATIONS: Mapping[Aggregation, int] = {
    "first": joins.FIRST,
    "last": joins.LAST,
    "sum": joins.SUM,
    "max": joins.MAX,
    "min": joins.MIN,
    "average": joins.AVERAGE,
    "median": joins.MEDIAN,
}


class WeighedSignals:
    """Tables of R rules by G signals, those that any of them weighs, in the order of their names.

    Attributes:
        names: the signals; the first is that of rewards which name none.
        aggregations: int8[R, G], see ``joins.join_entries``.
        windows: int64[R, G], in milliseconds.
        weights: float64[R, G].
        columns: int32[signals], the column of each signal that a reward has named, or UNKNOWN.
    """

    def __init__(self, rules: Sequence[JoinRule], numbers: Mapping[str, int]) -> None:
        """Take rules.

        Args:
            rules: by number.
            numbers: those of the signals that rewards have named, UNNAMED among them.
        """
        by_rule = [_signals_of(rule) for rule in rules]
        self.names = sorted({UNNAMED}.union(*by_rule))
        place = {name: column for column, name in enumerate(self.names)}

        shape = len(rules), len(self.names)
        self.aggregations = np.full(shape, joins.UNKNOWN, np.int8)
        self.windows: Int64 = np.zeros(shape, np.int64)
        self.weights: Float64 = np.zeros(shape)
        for row, signals in enumerate(by_rule):
            for name, each in signals.items():
                at = row, place[name]
                self.aggregations[at] = AGGREGATIONS[each.aggregation]
                self.windows[at], self.weights[at] = each.window_ms, each.weight

        self.columns: Int32 = np.full(len(numbers), joins.UNKNOWN, np.int32)
        for name, number in numbers.items():
            self.columns[number] = place.get(name, joins.UNKNOWN)
        self._defaults = np.array([rule.default_reward for rule in rules])

    def settle(self, values: Float64, rule: NDArray[np.int32], cell: Int64, value: Float64) -> None:
        """Turn aggregates that need all rewards of a cell into what they are to be.

        Args:
            values: float64[S, G], as ``joins.join_entries`` leaves them; brought up to date.
            rule: int32[S], that of the slot's decision, by number.
            cell: int64[n], where each of n rewards has its aggregate in ``values``, or UNUSED.
            value: float64[n], of each reward.
        """
        ways = self.aggregations[rule]
        averaged, halved = ways == joins.AVERAGE, ways == joins.MEDIAN
        if not (averaged.any() or halved.any()):
            return

        used = np.flatnonzero(cell != joins.UNUSED)
        counts = np.bincount(cell[used], minlength=values.size).reshape(values.shape)
        several = averaged & (counts > 1)
        values[several] /= counts[several]

        # Sorted by cell, then by value, the middle of each cell is at a known place.
        mine = used[halved.ravel()[cell[used]]]
        order = mine[np.lexsort((value[mine], cell[mine]))]
        cells, firsts = np.unique(cell[order], return_index=True)
        sizes = np.diff(np.append(firsts, len(order)))
        low, high = value[order[firsts + (sizes - 1) // 2]], value[order[firsts + sizes // 2]]
        values.ravel()[cells] = np.where(sizes % 2 == 1, high, (low + high) / 2.0)

    def rewards(self, rule: NDArray[np.int32], values: Float64, came: Bools) -> Float64:
        """Return the reward of each of S slots, as ``SignalledRule.total`` adds it up.

        Args:
            rule: int32[S], that of the slot's decision, by number.
            values: float64[S, G], the aggregate of each signal.
            came: bool[S, G], whether it has one.
        """
        out, has = self._defaults[rule], np.zeros(len(rule), np.bool_)
        for column in range(len(self.names)):
            here = came[:, column]
            worth = self.weights[rule, column] * values[:, column]
            out = np.where(here, np.where(has, out + worth, worth), out)
            has |= here
        return out


def _signals_of(rule: JoinRule) -> Mapping[str, SignalRule]:
    if isinstance(rule, SignalledRule):
        return rule.signals
    return {UNNAMED: SignalRule(1.0, rule.window_ms, rule.aggregation)}
