"""The actions that one decision chooses from, before they have features."""

from collections.abc import Collection, Container, Mapping, Sequence

import msgspec
import numpy as np

from bandits.errors import (
    DuplicateActionError,
    EmptyActionsError,
    InvalidFieldError,
    InvalidInputError,
    NoCandidatesError,
    NonFiniteNumberError,
    TooManyActionsError,
)
from bandits.types import Float32
from bandits.values import MAX_NUMBER, FeatureMap
from policies.encoding import NumberTable, check_features, numbers_alike
from policies.requests import MAX_ACTIONS, ActionRequest


class Pool(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The K actions of one decision before featurising.

    ``features``: the request's own, by action; None if it sent none. ``scores``: by source,
    float32[K], NaN where it has none. ``failed``: by source that failed, why it has none.
    ``artifact``: the version of the artifact whose sources were asked; None if none was.
    ``for_quotas``: those of the actions that are there because a quota has too few of their group.
    ``numbers``: the same features as a table, where they are one.
    """

    ids: tuple[str, ...]
    features: list[FeatureMap | None] | None
    scores: Mapping[str, Float32]
    failed: dict[str, str] | None = None
    artifact: str | None = None
    for_quotas: frozenset[str] = frozenset()
    numbers: NumberTable | None = None

    def within(self, offered: Container[str]) -> "Pool":
        """Return the pool of those that are offered."""
        return self.at([at for at, item in enumerate(self.ids) if item in offered])

    def without(self, ids: Collection[str]) -> "Pool":
        """Return the pool of all but some."""
        if not ids:
            return self
        return self.at([at for at, item in enumerate(self.ids) if item not in ids])

    def at(self, kept: Sequence[int]) -> "Pool":
        """Return the pool of the actions at some places, ascending."""
        if len(kept) == len(self.ids):
            return self
        return Pool(
            tuple(map(self.ids.__getitem__, kept)),
            None if self.features is None else [*map(self.features.__getitem__, kept)],
            {name: column[kept] for name, column in self.scores.items()},
            self.failed,
            self.artifact,
            self.for_quotas,
            None if self.numbers is None else self.numbers.at(kept),
        )


NOTHING = Pool((), None, {})
"""The pool of a page on which all is placed."""


def explicit_pool(
    actions: Sequence[ActionRequest],
    excluded: frozenset[str] = frozenset(),
    *,
    repeats: bool = False,
) -> Pool:
    """Return the pool of a request that brings its actions.

    Args:
        actions: all that the request has.
        excluded: ids of those that may not be chosen.
        repeats: whether some of these are held back by the policy's ``repeat``.

    Raises:
        InvalidInputError: an action is wrong, or there are none or too many.
        NoCandidatesError: every action is excluded.
    """
    if not actions:
        raise EmptyActionsError("a decision needs at least one action", "actions")
    if len(actions) > MAX_ACTIONS:
        raise TooManyActionsError(f"at most {MAX_ACTIONS} actions, not {len(actions)}", "actions")
    ids = [action.id for action in actions]
    distinct = set(ids)
    if len(distinct) < len(ids) or "" in distinct:
        raise _wrong_id(ids)

    kept = actions
    if excluded:
        kept = [action for action in actions if action.id not in excluded]
        ids = [action.id for action in kept]
    if not kept:
        back = " or held back by repeat" if repeats else ""
        raise NoCandidatesError(f"every action is excluded{back}", "exclude")

    # What is wrong with an excluded action is an error too, and names its place in the request.
    scores = [action.scores for action in kept]
    if scores.count(None) < len(scores):
        _check_scores(actions)
    features = [action.features for action in kept]
    inline = features.count(None) < len(features)
    numbers = numbers_alike(features) if inline else None
    if inline and (numbers is None or kept is not actions):
        for i, action in enumerate(actions):
            check_features(action.features or {}, f"actions[{i}].features")

    return Pool(
        tuple(ids),
        features if inline else None,
        {} if scores.count(None) == len(scores) else _columns(scores),
        numbers=numbers,
    )


def _columns(scores: Sequence[Mapping[str, float] | None]) -> dict[str, Float32]:
    """Return float32[K] scores by source, NaN where it has none of an action."""
    rows = [row or {} for row in scores]
    columns: dict[str, Float32] = {}
    for name in sorted(set[str]().union(*rows)):
        columns[name] = np.array([row.get(name, np.nan) for row in rows], np.float32)
    return columns


def _check_scores(actions: Sequence[ActionRequest]) -> None:
    for i, action in enumerate(actions):
        for name, score in (action.scores or {}).items():
            if not abs(score) <= MAX_NUMBER:
                raise NonFiniteNumberError(
                    f"scores are numbers up to {MAX_NUMBER:g}", f"actions[{i}].scores.{name}"
                )


def _wrong_id(ids: Sequence[str]) -> InvalidInputError:
    """Return the error of the first id that is empty, or that came before."""
    seen: set[str] = set()
    for index, action_id in enumerate(ids):
        if not action_id:
            return InvalidFieldError("an action id is not empty", f"actions[{index}].id")
        if action_id in seen:
            return DuplicateActionError(
                f"two actions have the id {action_id!r}", f"actions[{index}].id"
            )
        seen.add(action_id)
    raise AssertionError("unreachable: called with ids that are wrong")
