"""What a request bars from single slots of its page, so that every slot can still be filled."""

from collections.abc import Iterator, Sequence

import numpy as np

from bandits.types import Float64
from policies.candidate_pool import Pool
from policies.requests import RankRequest, SlateRequest
from policies.rules.columns import Bools
from policies.rules.pages.ruled_page import RuledPage

BARRED = "the request's slots"


class BarredSlots:
    """The actions that may stand in each slot; see PageRule.

    Of those that a slot admits, one that a later slot cannot do without is barred, too: where every
    slot can have an action of its own at all, every slot gets one.
    """

    def __init__(self, admitted: Bools, rule: RuledPage | None = None) -> None:
        """Begin a page on which nothing is drawn yet.

        Args:
            admitted: bool[slots, K], which of the actions may stand where.
            rule: the policy's own rules of the page; None: there are none.
        """
        self._admitted = admitted
        self._rule = rule

    def after(self, chosen: Sequence[int]) -> Float64 | None:
        """Return what is added to the scores of the K actions in the next slot; see PageRule."""
        offsets = None if self._rule is None else self._rule.after(chosen)
        slot = len(chosen)
        left = self._admitted[slot:].copy()
        left[:, list(chosen)] = False
        barred = ~_fillable(left)
        barred[list(chosen)] = False
        if not barred.any():
            return offsets
        offsets = np.zeros(barred.size) if offsets is None else offsets.copy()
        offsets[barred] = np.nan
        return offsets

    def barring(self, chosen: Sequence[int]) -> list[str]:
        """Return what bars any of the actions that are left from the next slot."""
        offsets = self.after(chosen)
        others = [] if self._rule is None else self._rule.barring(chosen)
        barred = offsets is not None and bool(np.isnan(offsets).any())
        return [*others, BARRED] if barred or not others else others


def barred_slots(request: RankRequest, pool: Pool, rule: RuledPage | None) -> BarredSlots | None:
    """Return what a request bars; None: nothing.

    Args:
        request: what is asked.
        pool: the K actions.
        rule: the policy's own rules of the page.
    """
    if not isinstance(request, SlateRequest) or not request.barred:
        return None
    return BarredSlots(admitted_by_slot(request.barred, pool.ids), rule)


def admitted_by_slot(barred: Sequence[Sequence[str]], ids: Sequence[str]) -> Bools:
    """Return which of K actions may stand in which slot, bool[slots, K].

    Args:
        barred: by slot, the ids of those that may not.
        ids: of all K.
    """
    place = {name: at for at, name in enumerate(ids)}
    admitted: Bools = np.ones((len(barred), len(place)), np.bool_)
    for slot, names in enumerate(barred):
        admitted[slot, [place[name] for name in names if name in place]] = False
    return admitted


def _fillable(admitted: Bools) -> Bools:
    """Return which actions may stand in the first slot so that all others can be filled, bool[K].

    Where they cannot be filled whatever stands there, all that it admits.

    Args:
        admitted: bool[slots, K], of the slots that are left.
    """
    first: Bools = admitted[0]
    later: Bools = admitted[1:]
    # As a rule no later slot is short of actions, whatever earlier ones take.
    if (later.sum(axis=1) > np.arange(1, 1 + len(later))).all():
        return first

    can: Bools = np.zeros(first.size, np.bool_)
    for action in np.flatnonzero(first).tolist():
        without = later.copy()
        without[:, action] = False
        can[action] = _matches(without)
    return can if can.any() else first


def _matches(admitted: Bools) -> bool:
    """Return whether every slot can have an action of its own (Kuhn 1955)."""
    holder: dict[int, int] = {}

    def take(slot: int, tried: set[int]) -> bool:
        for action in _untried(admitted[slot], tried):
            tried.add(action)
            if action not in holder or take(holder[action], tried):
                holder[action] = slot
                return True
        return False

    return all(take(slot, set()) for slot in range(len(admitted)))


def _untried(admitted: Bools, tried: set[int]) -> Iterator[int]:
    return (action for action in np.flatnonzero(admitted).tolist() if action not in tried)
