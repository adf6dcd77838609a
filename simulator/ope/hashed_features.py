"""From rows of a log to what a reward model sees: hashed features of every action.

A feature that varies enters as (x - mean) / standard deviation, both of the rows that the model is
fitted on, before it is crossed or shares a column with others. So what a model predicts does not
depend on the unit or the zero of any feature. One that does not vary, as text never does, says only
that it is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM
from bandits.kernels.features import FNV_PRIME
from bandits.types import Float64, UInt32, frozen
from policies.encoding import hash_pairs
from policies.features import score_features
from simulator.logs.rows import LoggedDecision

CELLS = 1 << 20
"""Features of actions that are held at once."""
LARGEST = 1e300
"""A feature's value: beyond it, sums of several would not be finite."""
CONSTANT = 1e-13
"""A standard deviation, as a share of the largest value, that is rounding: nothing varies."""
PRESENCE = np.uint32(0x9E3779B9)
"""Mixed with the hash of a feature to say only that the feature is there."""
Bool = NDArray[np.bool_]
Pairs = list[tuple[int, float]]
"""Hashes and values of features."""
NO_PAIRS: Pairs = []


@dataclass(frozen=True, slots=True, eq=False)
class HashedFeatures:
    """The features of n rows of up to K actions each: hashes and values, NaN where there is none.

    Attributes:
        ids: uint32[n, K], hashes of the action ids.
        there: float64[n, K], 1, or NaN for padding.
        context: uint32[n, C], hashes of the features that a row's actions share.
        values: float64[n, C], their values.
        own: uint32[n, K, F], hashes of each action's own features and its sources' scores.
        own_values: float64[n, K, F], their values.
    """

    ids: UInt32
    there: Float64
    context: UInt32
    values: Float64
    own: UInt32
    own_values: Float64

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> "HashedFeatures":
        """Return some rows, by a slice, a mask or their numbers."""
        return HashedFeatures(*(getattr(self, field.name)[rows] for field in fields(self)))


def concatenate_features(parts: Sequence[HashedFeatures]) -> HashedFeatures:
    """Return the rows of all parts, one below the other."""
    return HashedFeatures(
        *(
            _stack_padded([getattr(part, field.name) for part in parts])
            for field in fields(HashedFeatures)
        )
    )


def features_from_columns(columns: NDArray[np.integer[Any]], values: Float64) -> HashedFeatures:
    """Return features that have numbers for hashes, of actions without ids.

    Args:
        columns: int[n, K, F], or [n, F] for one action a row.
        values: float64 of the same shape.
    """
    own: UInt32 = (columns if columns.ndim == 3 else columns[:, None]).astype(np.uint32)
    numbers: Float64 = values if values.ndim == 3 else values[:, None]
    n, k, _ = own.shape

    nobody = np.zeros((n, 0))
    return HashedFeatures(
        np.zeros((n, k), np.uint32),
        np.full((n, k), np.nan),
        nobody.astype(np.uint32),
        nobody,
        own.astype(np.uint32),
        numbers,
    )


def no_features() -> HashedFeatures:
    """Return the features of no rows."""
    return arrange_features([], [], [])


def hash_decisions(rows: Sequence[LoggedDecision], *, chosen: bool = False) -> HashedFeatures:
    """Hash the features of every action of the rows, or of the chosen ones only.

    Args:
        rows: n of them.
        chosen: only the chosen action of each (K = 1).

    Raises:
        ReplayError: a feature is no finite number, or is too large; names it.
    """
    ids, contexts, own = [], [], []
    for row in rows:
        which = [row.chosen] if chosen else range(len(row.action_ids))
        hashed = _hashed_ids(tuple(row.action_ids))
        ids.append(hashed[[row.chosen]] if chosen else hashed)
        contexts.append(hash_pairs(row.context, CONTEXT))

        # An action's own features are those it was sent with, then its sources' scores.
        actions: list[Pairs] = [[] for _ in which]
        if row.features is not None:
            actions = [hash_pairs(row.features[k] or {}, FEATURES) for k in which]
        if row.scores:
            for pairs, k in zip(actions, which, strict=True):
                pairs.extend(_hashed_scores(row)[k])
        own.append(actions)

    features = arrange_features(ids, contexts, own)
    _check_finite(features, rows, contexts, own)
    return features


def _check_finite(
    features: HashedFeatures,
    rows: Sequence[LoggedDecision],
    contexts: Sequence[Pairs],
    own: Sequence[Sequence[Pairs]],
) -> None:
    """Refuse values that are infinite, too large, or NaN.

    Raises:
        ReplayError: names the feature at fault.
    """
    for values in (features.values, features.own_values):
        if np.isinf(values).any() or (np.abs(values) > LARGEST).any():
            _refuse(rows)

    # A NaN that was sent looks like what is not there, so fewer are there than were sent.
    if sum(map(len, contexts)) != np.count_nonzero(~np.isnan(features.values)):
        _refuse(rows)
    sent = sum(len(pairs) for actions in own for pairs in actions)
    if sent != np.count_nonzero(~np.isnan(features.own_values)):
        _refuse(rows)


def arrange_features(
    ids: Sequence[UInt32], contexts: Sequence[Pairs], own: Sequence[Sequence[Pairs]]
) -> HashedFeatures:
    """Arrange the features of rows as arrays.

    Args:
        ids: of each row the hashes of its actions.
        contexts: of each row the hashes and values of its context.
        own: of each row, of each action, the hashes and values of its own features.
    """
    n, k = len(ids), max(map(len, ids), default=0)
    hashes, there = np.zeros((n, k), np.uint32), np.full((n, k), np.nan)
    for row, actions in enumerate(ids):
        hashes[row, : len(actions)], there[row, : len(actions)] = actions, 1.0

    width = max(map(len, contexts), default=0)
    context, values = _fill(contexts, width)

    depth = max((len(pairs) for actions in own for pairs in actions), default=0)
    if not depth:
        return HashedFeatures(
            hashes, there, context, values, np.zeros((n, k, 0), np.uint32), np.zeros((n, k, 0))
        )

    # Rows with fewer than K actions are padded with actions that have nothing.
    flat = [pairs for actions in own for pairs in (*actions, *[NO_PAIRS] * (k - len(actions)))]
    columns, numbers = _fill(flat, depth)
    return HashedFeatures(
        hashes, there, context, values, columns.reshape(n, k, depth), numbers.reshape(n, k, depth)
    )


def _fill(rows: Sequence[Pairs], width: int) -> tuple[UInt32, Float64]:
    """Return hashes and values, [rows, width] each, padded with 0 and NaN."""
    hashes = [[hashed for hashed, _ in pairs] + [0] * (width - len(pairs)) for pairs in rows]
    values = [[value for _, value in pairs] + [np.nan] * (width - len(pairs)) for pairs in rows]
    shape = (len(rows), width)
    return np.array(hashes, np.uint32).reshape(shape), np.array(values, np.float64).reshape(shape)


def _stack_padded(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays one below the other, each padded to the largest shape."""
    shape = np.max([part.shape for part in parts], axis=0)
    fill: Any = np.nan if parts[0].dtype == np.float64 else 0
    out = np.full((sum(map(len, parts)), *shape[1:]), fill, parts[0].dtype)

    at = 0
    for part in parts:
        out[(slice(at, at + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        at += len(part)
    return out


def _hashed_scores(row: LoggedDecision) -> list[Pairs]:
    """Return, of each action, score and rank of the sources that scored it, and which did."""
    scored = score_features(row.scores)
    hashes, values = scored.hashes.tolist(), scored.values.astype(np.float64)
    return [
        [
            (hashes[at], float(value))
            for at, value in enumerate(action)
            if at % 3 == 2 or action[at - at % 3 + 2]  # presence, or of a source that scored it
        ]
        for action in values
    ]


def _refuse(rows: Sequence[LoggedDecision]) -> None:
    """Name the feature at fault.

    Raises:
        ReplayError: always.
    """
    for row in rows:
        for features in (row.context, *(row.features or ())):
            for name, value in (features or {}).items():
                if isinstance(value, float) and not abs(value) <= LARGEST:
                    raise ReplayError(
                        f"decision {row.event_id}: feature {name!r} is {value}, infinite, NaN or"
                        " too large; leave such rows out",
                        "features",
                    )
    raise ReplayError("a source's score is infinite; leave such rows out", "scores")


@lru_cache(maxsize=1024)
def _hashed_ids(ids: tuple[str, ...]) -> UInt32:
    hashes: UInt32 = np.array([hash_feature(ITEM, action_id) for action_id in ids], np.uint32)
    return frozen(hashes)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScales:
    """The units of features, from the rows that a model is fitted on.

    Attributes:
        hashes: uint32[m], sorted: all the features that these rows have.
        largest: float64[m], the largest absolute value of each.
        mean: float64[m], as a share of the largest.
        deviation: float64[m], as a share of the largest; 0 for a feature that does not vary.
        partial: bool[m], whether it varies and some rows lack it.
    """

    hashes: UInt32
    largest: Float64
    mean: Float64
    deviation: Float64
    partial: Bool

    @classmethod
    def of(cls, features: HashedFeatures) -> "FeatureScales":
        """Measure the features of rows with one action each, the chosen one."""
        n = len(features)
        hashes, values = (
            np.concatenate([array.ravel() for array in group])
            for group in (
                (features.ids, features.context, features.own),
                (features.there, features.values, features.own_values),
            )
        )
        here = ~np.isnan(values)
        names, which, counts = np.unique(hashes[here], return_inverse=True, return_counts=True)

        # Means are of shares of the largest value, so that no sum overflows.
        largest = np.zeros(len(names))
        np.maximum.at(largest, which, np.abs(values[here]))
        shares = values[here] / np.where(largest > 0.0, largest, 1.0)[which]
        mean = np.bincount(which, shares, len(names)) / np.maximum(counts, 1)
        deviation = np.sqrt(
            np.bincount(which, (shares - mean[which]) ** 2, len(names)) / np.maximum(counts, 1)
        )
        deviation[deviation <= CONSTANT] = 0.0

        return cls(names, largest, mean, deviation, (deviation > 0.0) & (counts < n))

    def standard(self, hashes: UInt32, values: Float64) -> tuple[Float64, Bool]:
        """Standardise features.

        Args:
            hashes: uint32[...].
            values: float64[...], NaN for what is not there.

        Returns:
            What each feature enters with, float64[...], 0 for what is not there or not known; and
            whether to say that it is there, too, bool[...].
        """
        if not self.hashes.size or not hashes.size:
            return np.zeros(hashes.shape), np.zeros(hashes.shape, np.bool_)

        at = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        present = (self.hashes[at] == hashes) & ~np.isnan(values)
        deviation = self.deviation[at]
        varies = present & (deviation > 0.0)

        # What does not vary enters with 1: that it is there.
        out = present.astype(np.float64)
        places = at[varies]
        shares = values[varies] / self.largest[places]
        out[varies] = (shares - self.mean[places]) / deviation[varies]
        return out, present & self.partial[at]


@dataclass(frozen=True, slots=True, eq=False)
class HashedDesign:
    """The design of a fit, by row and action.

    ``columns``: int64[n, K, W], hashes; ``values``: float64[n, K, W], 0 for padding.
    """

    columns: NDArray[np.int64]
    values: Float64


def hashed_design(features: HashedFeatures, scales: FeatureScales) -> HashedDesign:
    """Cross and standardise features.

    The columns are an action's id, the context, the context crossed with the id, and what the
    action has of its own.

    Args:
        features: of n rows of K actions.
        scales: the units of the features.
    """
    ids, context = features.ids[:, :, None], features.context[:, None, :]
    known_id, _ = scales.standard(ids, features.there[:, :, None])
    shared, shared_partial = scales.standard(context, features.values[:, None, :])
    own, own_partial = scales.standard(features.own, features.own_values)
    real = ~np.isnan(features.there[:, :, None])

    columns: list[UInt32] = [ids]
    values: list[Any] = [known_id]

    # The context speaks for all actions alike, and for each by itself.
    contexts: list[tuple[UInt32, Any]] = [(context, shared)]
    if shared_partial.any():
        contexts.append((context ^ PRESENCE, shared_partial * 1.0))
    for hashes, numbers in contexts:
        columns += [
            np.broadcast_to(hashes, known_id.shape[:2] + hashes.shape[2:]),
            (ids * FNV_PRIME) ^ hashes,
        ]
        values += [numbers * real, numbers * known_id]

    columns.append(features.own)
    values.append(own)
    if own_partial.any():
        columns.append(features.own ^ PRESENCE)
        values.append(own_partial * 1.0)

    return HashedDesign(
        np.concatenate(columns, axis=2, dtype=np.int64), np.concatenate(values, axis=2)
    )


def hash_in_parts(rows: Sequence[LoggedDecision]) -> Iterator[tuple[slice, HashedFeatures]]:
    """Yield all rows' features, in parts that fit the memory, each with its place."""
    start, actions, width = 0, 0, 0
    for number, row in enumerate(rows):
        actions, width = max(actions, len(row.action_ids)), max(width, 1 + 2 * len(row.context))
        if (number + 1 - start) * actions * width > CELLS and number > start:
            yield slice(start, number), hash_decisions(rows[start:number])
            start, actions, width = number, len(row.action_ids), 1 + 2 * len(row.context)

    if start < len(rows):
        yield slice(start, len(rows)), hash_decisions(rows[start:])


def to_dense(columns: NDArray[np.int64], values: Float64, size: int) -> Float64:
    """Return features as a dense matrix, float64[n, size]; those that collide are added.

    Args:
        columns: int64[n, W], hashes: a feature's column is its hash modulo ``size``.
        values: float64[n, W].
        size: how many columns there are.
    """
    at = np.arange(len(columns))[:, None] * size + columns % size
    flat = np.bincount(at.ravel(), values.ravel(), len(columns) * size)
    return cast("Float64", flat.astype(np.float64, copy=False).reshape(len(columns), size))
