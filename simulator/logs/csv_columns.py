"""The columns of a CSV log, and how cells that hold actions are read."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from bandits.errors import InvalidInputError, ReplayError
from bandits.log.codec import MALFORMED
from bandits.values import FeatureMap
from policies.encoding import check_features
from policies.requests import plain_features
from simulator.logs.tables import CellKind

SEPARATOR = "|"
"""Separates the action ids in a cell."""
Column = Annotated[str, msgspec.Meta(min_length=1)]


class CsvColumns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which column is what. With an ``action`` a row is a decision, otherwise only numbers.

    Attributes:
        event_id: Column of event ids; without it, or where it is empty, a row is its own event.
        slot: Column of slots, from 0: the rows of an event id, one after the other, are the slots
            of its page. Each has the actions that those above it have left.
        time: Column of times, in milliseconds since the epoch.
        action: Column of the chosen action.
        actions: Column of all actions of the row, separated by ``|``.
        action_ids: All actions of every row, where no column has them.
        context: Columns of the context. An empty cell is no feature.
        features: Column of the actions' features, in JSON: a list of objects in the order of the
            actions, or an object of them by action id.
        kinds: ``number`` or ``text`` by column of the context; what is not declared is decided
            from the whole log.
        delimiter: What separates cells; without it, comma, semicolon or tab, whichever fits the
            header.
        decimal: The decimal point.
    """

    reward: Column = "reward"
    propensity: Column = "propensity"
    event_id: Column | None = None
    slot: Column | None = None
    time: Column | None = None
    action: Column | None = None
    actions: Column | None = None
    action_ids: list[str] = []
    context: list[Column] = []
    features: Column | None = None
    kinds: dict[str, CellKind] = {}
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        """Raise ReplayError if a kind is not of a context column, or slots are of no page."""
        if self.slot is not None and self.event_id is None:
            raise ReplayError("slots need event_id, the column that says whose they are", "columns")
        for name in self.kinds:
            if name not in self.context:
                raise ReplayError(
                    f"kinds names {name!r}, which is not a column of the context", "columns"
                )

    @property
    def texts(self) -> list[str]:
        """The columns that are read as text."""
        texts = (self.event_id, self.action, self.actions, self.features, *self.context)
        return [column for column in texts if column is not None]

    @property
    def numbers(self) -> list[str]:
        """The columns that are read as numbers."""
        numbers = (self.reward, self.propensity, self.time, self.slot)
        return [column for column in numbers if column is not None]


@lru_cache(maxsize=4096)
def places_in(text: str) -> Mapping[str, int] | None:
    """Return the place of each action in a cell; None if two are the same."""
    return places_of(tuple(text.split(SEPARATOR)))


def places_of(ids: tuple[str, ...]) -> Mapping[str, int] | None:
    """Return the place of each action; None if two are the same."""
    places = {action_id: at for at, action_id in enumerate(ids)}
    return places if len(places) == len(ids) else None


@lru_cache(maxsize=1024)
def features_in(text: str, ids: tuple[str, ...]) -> Sequence[FeatureMap | None] | None:
    """Read the actions' features from their cell.

    Args:
        text: The cell: a JSON object by action id, which may leave actions out, or a list in the
            order of the actions, in both an object or null for each. It may be blank.
        ids: The row's actions.

    Returns:
        A map or None for each action; None alone if the cell holds something else.
    """
    if not text.strip():
        return [None] * len(ids)

    # By action id or in the order of the actions: either way, one object or null for each.
    try:
        tree = msgspec.json.decode(text)
    except MALFORMED:
        return None
    if isinstance(tree, dict):
        tree = [tree.get(action_id) for action_id in ids] if tree.keys() <= set(ids) else None
    if not (isinstance(tree, list) and len(tree) == len(ids)):
        return None
    if not all(item is None or isinstance(item, dict) for item in tree):
        return None

    try:
        features = [None if item is None else plain_features(item, "features") for item in tree]
        for one in features:
            check_features(one or {}, "features")
    except InvalidInputError:
        return None
    return features
