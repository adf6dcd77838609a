"""Which of some items have the same value of a feature."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from policies.rules.columns import CODES, Bools, Column, Vocabulary
from policies.rules.kinds import Kind

ALONE: Final[tuple[Kind, ...]] = ("number", "flag")
"""Kinds of which an item has one value."""


class Groups:
    """N items by the values that they have of one feature.

    An item with a list of texts is in the group of each of them; one that lacks the feature is in
    none. ``members``: bool[N, G], who is in which group.
    """

    def __init__(self, column: Column, vocabulary: Vocabulary, rows: NDArray[np.intp]) -> None:
        """Sort items.

        Args:
            column: the feature.
            vocabulary: of its texts.
            rows: int[N], of the items.
        """
        kinds, values, codes = column.kinds[rows], column.values[rows], column.codes[rows]
        parts = [_sorted(len(rows), *_texts_of(kinds, codes, vocabulary))]
        for kind in ALONE:
            own = np.flatnonzero(kinds == CODES[kind])
            if own.size:
                parts.append(_sorted(len(rows), own, values[own]))
        self.members: Bools = np.concatenate(parts, axis=1)
        self._sizes = self.members.sum(axis=1)

    def shared(self, item: int) -> Float64:
        """Return the share of all values of two items that both have, with one of them, float64[N].

        Of texts the index of Jaccard (1901).
        """
        both = self.members[:, self.members[item]].sum(axis=1)
        either = self._sizes + self._sizes[item] - both
        share: Float64 = np.divide(both, either, out=np.zeros(len(both)), where=either > 0)
        return share

    def among(self, items: list[int]) -> NDArray[np.intp]:
        """Return how many of some items are in each group, int[G]."""
        counts: NDArray[np.intp] = self.members[items].sum(axis=0)
        return counts

    def of_any(self, groups: Bools) -> Bools:
        """Return which items are in any of some groups, bool[N]."""
        found: Bools = np.any(self.members[:, groups], axis=1)
        return found


def _texts_of(
    kinds: NDArray[np.int8], codes: NDArray[np.int32], vocabulary: Vocabulary
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return pairs of an item and the code of a text that it has."""
    alone = np.flatnonzero(kinds == CODES["text"])
    listed = np.flatnonzero(kinds == CODES["texts"])
    if not listed.size:
        return alone, codes[alone]

    # The members of a list stand together, the lists in the order of their codes.
    which, texts = vocabulary.members
    first = np.searchsorted(which, codes[listed], side="left")
    counts = np.searchsorted(which, codes[listed], side="right") - first
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    found = texts[np.repeat(first, counts) + steps]
    return (
        np.concatenate([alone, np.repeat(listed, counts)]),
        np.concatenate([codes[alone], found]),
    )


def _sorted(count: int, who: NDArray[np.intp], what: NDArray[np.generic]) -> Bools:
    """Return who of ``count`` items has which of the values that occur, bool[count, values]."""
    distinct, group = np.unique(what, return_inverse=True)
    members = np.zeros((count, distinct.size), np.bool_)
    members[who, group] = True
    return members
