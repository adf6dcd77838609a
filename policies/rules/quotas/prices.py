"""What quotas add to the scores of items: each the price of its group, as the controller has it."""

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64, frozen
from policies.rules.columns import CODES, ItemColumns, Vocabulary
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.quota import Control, group_name
from policies.rules.values import Frame


class GroupPrices:
    """Of which groups items are, kept row by row, and what is added to them.

    Args:
        quotas: the policy's.
        columns: the items' features.
    """

    def __init__(self, quotas: Quotas, columns: ItemColumns) -> None:
        self._quotas = quotas
        self._columns = columns
        self._members = np.zeros((0, len(quotas.names)), np.bool_)
        self._of_codes: tuple[Control, Vocabulary, int, Float64] | None = None

    def look(self, rows: NDArray[np.intp]) -> None:
        """Find out of which groups some rows are.

        Args:
            rows: those that are new, or have changed.
        """
        if len(self._members) < len(self._columns):
            grown = np.zeros((2 * len(self._columns), self._members.shape[1]), np.bool_)
            grown[: len(self._members)] = self._members
            self._members = grown
        frame = Frame(self._columns, rows, {}, {}, {}, [])
        self._members[rows] = self._quotas.members(frame)

    def of(self, rows: NDArray[np.intp], control: Control) -> Float64:
        """Return what is added to the score of each item, float64[n].

        Args:
            rows: int[n], of the items.
            control: the state of the controller.
        """
        # One after the other: the sums do not depend on how many items are asked about.
        members, added = self._members[rows], np.zeros(len(rows))
        for at, name in enumerate(self._quotas.names):
            if price := control.prices.get(name, 0.0):
                added += price * members[:, at]
        group = self._quotas.group
        if group is None:
            return added
        column = self._columns.columns[group]
        of_texts = np.where(column.kinds[rows] == CODES["text"], column.codes[rows], 0)
        added += self._of_texts(group, control)[of_texts]
        return added

    def _of_texts(self, group: str, control: Control) -> Float64:
        """Return the price of the group that each text is, float64[texts]; 0 for code 0."""
        words = self._columns.vocabulary
        known = self._of_codes
        if known is not None:
            made_for, of_words, count, prices = known
            if made_for is control and of_words is words and count == len(words.texts):
                return prices

        prices = np.zeros(len(words.texts))
        prefix = group_name(group, "")
        for name, price in control.prices.items():
            if name.startswith(prefix) and (code := words.known(name[len(prefix) :])) > 0:
                prices[code] = price
        self._of_codes = control, words, len(words.texts), frozen(prices)
        return prices
