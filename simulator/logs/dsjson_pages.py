"""Pages of several slots in Vowpal Wabbit's JSON: conditional contextual bandits (CCB).

Source: VW 9.9, ``core/parse_example_json.h``. Actions are numbered from 0 there; in a decision of
one slot it is from 1.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from bandits.errors import BadRowError
from bandits.log.codec import MALFORMED
from bandits.types import Pmf, frozen
from simulator.logs.rows import LoggedDecision

PMF_SLACK = 1e-4
"""VW's probabilities are float32; what is further from a PMF than this is none."""


class _Outcome(msgspec.Struct, frozen=True):
    """A slot: its actions, the chosen one first, and their probabilities."""

    a: list[int] | int = msgspec.field(name="_a")
    p: list[float] | float = msgspec.field(name="_p")
    cost: float | None = msgspec.field(name="_label_cost", default=None)


_outcomes = msgspec.json.Decoder(list[_Outcome])


def page_slots(page: LoggedDecision, outcomes: bytes, where: str) -> list[LoggedDecision]:
    """Return a page's slots, each among the actions that those above it have left.

    Args:
        page: what its slots share, with all actions.
        outcomes: the JSON of the line's key ``_outcomes``.
        where: file and line, for errors.

    Returns:
        A row a slot; none where a slot has no label.

    Raises:
        BadRowError: they are no slots, or one shows what is not left.
    """
    try:
        slots = _outcomes.decode(outcomes)
    except MALFORMED as error:
        raise BadRowError(
            f"{where}: _outcomes are slots, each with _a, _p and _label_cost: {error}", "_outcomes"
        ) from error
    if any(slot.cost is None for slot in slots):
        return []

    left, rows = list(range(len(page.action_ids))), []
    for number, slot in enumerate(slots):
        shown, probabilities = one_or_more(slot.a), one_or_more(slot.p)
        if not shown or shown[0] not in left or not probabilities:
            raise BadRowError(
                f"{where}: slot {number} of _outcomes shows one of the actions that are left,"
                " numbered from 0, with its probability",
                "_outcomes",
            )

        chosen, pmf = left.index(shown[0]), _pmf(left, shown, probabilities)
        features = page.features
        rows.append(
            replace(
                page,
                action_ids=[page.action_ids[k] for k in left],
                features=None if features is None else [features[k] for k in left],
                chosen=chosen,
                propensity=probabilities[0] if pmf is None else float(pmf[chosen]),
                pmf=pmf,
                reward=-(slot.cost or 0.0),
                slot=number,
            )
        )
        left.remove(shown[0])
    return rows


def one_or_more(value: list[Any] | float | None) -> list[Any]:
    """Return what VW takes for a list: a number is a list of it, and null is nothing."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if item is not None]


def _pmf(left: Sequence[int], shown: list[int], probabilities: list[float]) -> Pmf | None:
    """Return float64[left], or None where a slot does not have the PMF of all that is left."""
    if sorted(shown) != left or len(probabilities) != len(left):
        return None
    places = {action: at for at, action in enumerate(left)}
    pmf = np.empty(len(left))
    pmf[[places[action] for action in shown]] = probabilities
    total = float(pmf.sum())
    return frozen(pmf / total) if abs(total - 1.0) <= PMF_SLACK and pmf.min() >= 0.0 else None
