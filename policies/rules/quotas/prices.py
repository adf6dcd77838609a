"""What quotas add to the scores of items: each the price of its group, as the controller has it.

And which groups have too few of some items for any price to bring about their share.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64, frozen
from policies.rules.columns import CODES, Bools, ItemColumns, Vocabulary
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.quota import MOST_FLOORS, MOST_GROUPS, Control, group_name
from policies.rules.values import Frame

AT_ONCE: Final = 4
"""Groups with a floor that one decision sees to; those of the next are others."""


class ScarceGroup(NamedTuple):
    """A group of which there are too few items.

    ``name``: as in the log; ``wanted``: how many there should be; ``members``: which of the items
    of some rows are of it, whenever it is asked.
    """

    name: str
    wanted: int
    members: Callable[[NDArray[np.intp]], Bools]


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
        self._values: dict[str, None] = {}
        self._looked_at: list[NDArray[np.intp]] = []
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
        if self._quotas.group is not None:
            self._looked_at.append(rows)

    @property
    def lifts(self) -> bool:
        """Whether a group is to have a share of at least so much."""
        return self._quotas.floor is not None or any(
            goal.sign > 0 for goal in self._quotas.goals.values()
        )

    def scarce(self, rows: NDArray[np.intp], limit: int, turn: int) -> list[ScarceGroup]:
        """Return the groups that are to have a share, and of which some items hold too few.

        As large a share of the items as of what is shown is enough, and one item of a group. Of
        groups with a floor ``AT_ONCE`` are returned.

        Args:
            rows: int[n], of the items.
            limit: how many items one source proposes.
            turn: another number, and others of the groups with a floor are returned.
        """
        members = self._members[rows]
        held: list[int] = members.sum(axis=0).tolist()
        scarce = []
        for at, (name, goal) in enumerate(self._quotas.goals.items()):
            wanted = math.ceil(goal.share * limit)
            if goal.sign > 0 and held[at] < wanted:
                scarce.append(ScarceGroup(name, wanted, partial(self._of_quota, at)))

        floor, group = self._quotas.floor, self._quotas.group
        if floor is None or group is None or not self._values_met():
            return scarce
        goal_of_each = min(floor.share, MOST_FLOORS / len(self._values))
        wanted = math.ceil(goal_of_each * limit)
        known = {value: self._columns.vocabulary.known(value) for value in self._values}
        there = np.bincount(self._codes(rows), minlength=max(known.values()) + 1)
        lacking = [value for value, code in known.items() if code > 0 and there[code] < wanted]
        first = turn % max(len(lacking), 1)
        return scarce + [
            ScarceGroup(group_name(group, value), wanted, partial(self._of_value, value))
            for value in (lacking[first:] + lacking[:first])[:AT_ONCE]
        ]

    def _of_quota(self, at: int, rows: NDArray[np.intp]) -> Bools:
        members: Bools = self._members[rows, at]
        return members

    def _of_value(self, value: str, rows: NDArray[np.intp]) -> Bools:
        of_value: Bools = self._codes(rows) == self._columns.vocabulary.known(value)
        return of_value

    def _values_met(self) -> bool:
        """Find out which values of the feature items have; return whether any has one."""
        texts = self._columns.vocabulary.texts
        for rows in self._looked_at:
            if len(self._values) < MOST_GROUPS:
                codes = np.unique(self._codes(rows))
                self._values |= dict.fromkeys(texts[code] for code in codes[codes > 0].tolist())
        self._looked_at.clear()
        return bool(self._values)

    def _codes(self, rows: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the code of each item's group, int32[n]; 0 where it is of none."""
        group = self._quotas.group
        assert group is not None  # noqa: S101 - else nobody asks
        column = self._columns.columns[group]
        codes: NDArray[np.int32] = np.where(
            column.kinds[rows] == CODES["text"], column.codes[rows], 0
        )
        return codes

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
        added += self._of_texts(group, control)[self._codes(rows)]
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
