"""The parts of frozen worlds, their answers, and the formulas that several of them use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from bandits.values import FeatureMap
from simulator.worlds.frozen.parameters import VisitParameters

Indexes = NDArray[np.int64]
"""Indexes of visits, items or slots: int64[n]."""

DAY_MS = 86_400_000


class Coded(NamedTuple):
    """A column of few values: row i has ``values[codes[i]]``."""

    values: Sequence[Any]
    codes: Indexes


@dataclass(frozen=True, slots=True)
class SignalKind:
    """A kind of signal; each needs the one before to have come.

    Attributes:
        name: Its name in tables.
        worth: What it adds to the reward.
        worth_of_value: What a unit of its value adds to the reward.
        delay_ms: Median delay after the signal before, or after the visit.
        spread: Standard deviation of the logarithm of its value around the mean.
    """

    name: str
    worth: float
    delay_ms: float
    worth_of_value: float = 0.0
    spread: float = 0.0


class WorldSignal(NamedTuple):
    """An act of a user about an item that was shown.

    ``slot`` counts from 0, ``delay_ms`` from the visit; ``value`` is 1, or the amount of a
    purchase.
    """

    kind: str
    slot: int
    item_id: str
    delay_ms: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class FrozenVisit:
    """A user who comes.

    Attributes:
        number: Number of the visit, from 0, in the order of time.
        time_ms: When, in milliseconds since 1970, UTC.
        user_id: Who.
        session: Session of the visit; visits of one session are a user's, minutes apart.
        context: What a caller would send as the context of a request.
        recent: Ids of the items that the user has opened in this session, the last one last: what a
            caller would send as the history.
        offered: int64[n], indexes of the items on offer, ascending.
    """

    number: int
    time_ms: int
    user_id: str
    session: str
    context: FeatureMap
    recent: tuple[str, ...]
    offered: Indexes


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSignals:
    """The signals of n items that were shown: arrays [kinds, n].

    Attributes:
        happened: bool; whether each signal came.
        delays_ms: int64; delays from the visit, also of what did not come.
        values: float64; values, also of what did not come.
    """

    happened: NDArray[np.bool_]
    delays_ms: NDArray[np.int64]
    values: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Who and what there is, and who comes when; n visits.

    Attributes:
        item_ids: Ids of the items.
        user_ids: Ids of the users.
        times: int64[n], milliseconds since 1970, ascending.
        users: int64[n], index of the user of each visit.
        context: Columns of the context by name, coded by visit.
        items: Columns of items.csv by name, but for the id; a value of None is an empty cell.
        features: Features of each item, as a caller would send them.
        user_columns: Columns of users.csv by name, but for the id.
        views: int64[n], index of the item whose page is open at each visit; None: no pages.
        sessions: int64[n], session of each visit; None: every visit is one.
    """

    item_ids: Sequence[str]
    user_ids: Sequence[str]
    times: Indexes
    users: Indexes
    context: Mapping[str, Coded]
    items: Mapping[str, Sequence[Any]]
    features: Sequence[FeatureMap]
    user_columns: Mapping[str, Sequence[Any]]
    views: Indexes | None = None
    sessions: Indexes | None = None


def start_ms(parameters: VisitParameters) -> int:
    """Return when a world begins, in milliseconds since 1970."""
    return int(datetime.fromisoformat(parameters.start).replace(tzinfo=UTC).timestamp() * 1000)


def examination_by_slot(slots: int, decay: float) -> Float64:
    """Return float64[slots]: (slot + 1) to the power of minus ``decay``.

    The position-based model of Craswell et al. 2008 (doi:10.1145/1341531.1341545), with the usual
    curve of examination.

    Args:
        slots: How many slots there are.
        decay: 0: every slot is looked at.
    """
    examined: Float64 = np.power(np.arange(1.0, slots + 1.0), -decay)
    return examined


def logistic(logits: Float64) -> Float64:
    """Return 1 / (1 + exp(-logit)) of each logit."""
    # By tanh, which does not overflow.
    probabilities: Float64 = 0.5 + 0.5 * np.tanh(0.5 * logits)
    return probabilities


def drawn_by_weight(weights: Float64, uniforms: Float64) -> Indexes:
    """Return indexes drawn with probability proportional to weights, by inverse CDF.

    Args:
        weights: float64[m], 0 or more.
        uniforms: What they are drawn by.
    """
    cumulative = np.cumsum(weights)
    places: Indexes = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    return places.clip(max=len(weights) - 1)
