"""From rows of a log to what the reward model sees: hashed features of every action."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.columns import FNV_PRIME
from bandits.types import Float64
from policies.catalogue import Catalogue
from policies.features import featurise
from policies.spec import PolicySpec
from simulator.logs.base import LoggedDecision

CELLS = 1 << 20
"""Features of actions that are held at once."""
_EVERYTHING = PolicySpec("design")
_NO_ITEMS = Catalogue()


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Some rows of a batch, from ``start``. ``columns``: int64[n, K, F] hashes, ``values``: float64[n, K, F].

    K is the most actions and F the most features that a row has; the rest is padding, with value 0.
    """

    start: int
    columns: NDArray[np.int64]
    values: Float64

    def chosen(self, chosen: NDArray[np.intp]) -> tuple[NDArray[np.int64], Float64]:
        """Of the chosen actions: int64[n, F] and float64[n, F]. ``chosen``: intp[n]."""
        rows = np.arange(len(chosen))
        return self.columns[rows, chosen], self.values[rows, chosen]


def designs(rows: Sequence[LoggedDecision]) -> Iterator[Design]:
    """All rows, in parts that fit the memory."""
    start, width, count = 0, 0, 0
    held: list[tuple[NDArray[np.uint32], Float64]] = []
    for row in rows:
        hashes, values = _features(row)
        wider, more = max(width, hashes.shape[1]), max(count, len(hashes))
        if held and (len(held) + 1) * wider * more > CELLS:
            yield _padded(start, held, count, width)
            start, held, wider, more = start + len(held), [], hashes.shape[1], len(hashes)
        held.append((hashes, values))
        width, count = wider, more
    if held:
        yield _padded(start, held, count, width)


def _features(row: LoggedDecision) -> tuple[NDArray[np.uint32], Float64]:
    """Id, features and scores of each action, the context, and the context crossed with the id: [K, F] each."""
    context, actions = featurise(_EVERYTHING, _NO_ITEMS, row.context, row.action_ids, row.features, row.scores)
    count = len(actions)
    item = actions.namespaces[0]
    hashes, values = [], []
    for ns in actions.namespaces:
        hashes.append(np.broadcast_to(ns.hashes, (count, ns.hashes.shape[-1])))
        values.append(ns.values)
    for shared in context.namespaces:
        wide = (count, shared.hashes.size)
        hashes += [np.broadcast_to(shared.hashes, wide), (item.hashes * FNV_PRIME) ^ shared.hashes]
        values += [np.broadcast_to(shared.values, wide)] * 2
    return np.concatenate(hashes, axis=1), np.concatenate(values, axis=1, dtype=np.float64)


def _padded(start: int, held: list[tuple[NDArray[np.uint32], Float64]], count: int, width: int) -> Design:
    columns = np.zeros((len(held), count, width), np.int64)
    values = np.zeros((len(held), count, width))
    for row, (hashes, given) in enumerate(held):
        columns[row, : hashes.shape[0], : hashes.shape[1]] = hashes
        values[row, : given.shape[0], : given.shape[1]] = given
    return Design(start, columns, values)
