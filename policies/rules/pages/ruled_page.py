"""The rules of one page, slot by slot."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, takewhile

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.log.records import slots_between
from bandits.types import Float64
from policies.rules.columns import Bools, ItemColumns
from policies.rules.pages.groups import Groups
from policies.rules.pages.page import Page


class RuledPage:
    """What may follow on one page, and what is taken from the scores there; see PageRule."""

    def __init__(
        self,
        page: Page,
        columns: ItemColumns,
        rows: NDArray[np.intp],
        placed: Sequence[int] = (),
        vectors: Float64 | None = None,
        *,
        diverse: bool = True,
    ) -> None:
        """Begin a page on which nothing is drawn yet.

        Args:
            page: the policy's.
            columns: the features of items.
            rows: int[N], those of the K actions, and then of the items that were placed.
            placed: the slots of the page where the latter stand, ascending.
            vectors: float64[N, d], of length 1, or zeros; None: they are not compared by vectors.
            diverse: whether diversity counts, beside the limits.
        """
        self._actions = len(rows) - len(placed)
        self._placed = {slot: self._actions + at for at, slot in enumerate(placed)}
        self._limits = page.limits
        self._groups = {
            name: Groups(columns.columns[name], columns.vocabulary, rows)
            for name in page.item_fields
        }
        self._diversity = None if not diverse or page.diversity is msgspec.UNSET else page.diversity
        self._vectors = vectors
        self._likenesses: dict[int, Float64] = {}

    @property
    def goes_by_order(self) -> bool:
        """Whether it matters in which order a page is filled, and not only with what."""
        return any(kind == "in_a_row" for kind, _, _ in self._limits)

    def after(self, chosen: Sequence[int]) -> Float64 | None:
        """Return what is added to the scores of the K actions in the next slot; see PageRule."""
        page = self._page(chosen)
        if not page:
            return None

        offsets = np.zeros(self._actions)
        if self._diversity is not None:
            likest = np.max([self._likeness(item) for item in page.values()], axis=0)
            offsets -= self._diversity.weight * likest
        for _, barred in self._barred(chosen, page):
            offsets[barred] = np.nan
        return offsets

    def barring(self, chosen: Sequence[int]) -> list[str]:
        """Return the limits that bar any of the actions that are left from the next slot."""
        left = np.ones(self._actions, np.bool_)
        left[list(chosen)] = False
        barred = self._barred(chosen, self._page(chosen))
        return [limit for limit, actions in barred if actions[left].any()]

    def _page(self, chosen: Sequence[int]) -> dict[int, int]:
        """Return what stands on the page, by slot: actions, or placed items."""
        slots = slots_between(self._placed, len(chosen))
        return {**self._placed, **dict(zip(slots, chosen, strict=True))}

    def _barred(self, chosen: Sequence[int], page: dict[int, int]) -> Iterator[tuple[str, Bools]]:
        """Yield each limit, and which actions it bars from the next slot, bool[K]."""
        slot = slots_between(self._placed, len(chosen) + 1)[-1]
        for kind, name, most in self._limits:
            groups = self._groups[name]
            if kind == "most":
                there = groups.among(list(page.values()))
            else:
                there = _run(groups, map(page.get, count(slot - 1, -1)))
                there = there + _run(groups, map(page.get, count(slot + 1)))
            yield f"page.{kind}.{name}", groups.of_any(there >= most)[: self._actions]

    def _likeness(self, item: int) -> Float64:
        """Return how like one of the N items the actions are, float64[K]: up to 1."""
        found = self._likenesses.get(item)
        if found is None:
            if self._vectors is not None:
                found = self._vectors[: self._actions] @ self._vectors[item]
            else:
                found = self._by.shared(item)[: self._actions]
            self._likenesses[item] = found
        return found

    @property
    def _by(self) -> Groups:
        assert self._diversity is not None  # noqa: S101 - else nothing is compared
        return self._groups[self._diversity.by]


def _run(groups: Groups, items: Iterable[int | None]) -> NDArray[np.intp]:
    """Return of each group how many of the first items are in it, one after the other, int[G]."""
    total = np.zeros(groups.members.shape[1], np.intp)
    alike = np.ones(total.size, np.bool_)
    for item in takewhile(lambda item: item is not None, items):
        alike &= groups.members[item]
        if not alike.any():
            break
        total += alike
    return total
