"""From rows of a log to what a reward model sees: hashed features of every action, in units that do not matter.

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
STEADY = 1e-13
"""A standard deviation, in shares of the largest value, that is rounding: the feature does not vary."""
THERE = np.uint32(0x9E3779B9)
"""What the hash of a feature is mixed with for the fact that it is there at all."""
Bool = NDArray[np.bool_]
Pairs = list[tuple[int, float]]


@dataclass(frozen=True, slots=True, eq=False)
class HashedFeatures:
    """What n rows say of up to K actions each, as it is: hashes and values.

    NaN is a feature that is not there.

    ``ids``: uint32[n, K], hashes of the action ids, ``there``: float64[n, K], 1, or NaN for
    padding. ``context``: uint32[n, C] and ``values``: float64[n, C], shared by a row's actions.
    ``own``: uint32[n, K, F] and ``own_values``: float64[n, K, F], of each action: its features and
    the scores of the candidate sources.
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
        """Some rows, by a slice, a mask or their numbers."""
        return HashedFeatures(*(getattr(self, each.name)[rows] for each in fields(self)))


def concatenate_features(parts: Sequence[HashedFeatures]) -> HashedFeatures:
    """The rows of all, one below the other."""
    return HashedFeatures(
        *(_padded([getattr(part, each.name) for part in parts]) for each in fields(HashedFeatures))
    )


def features_from_columns(columns: NDArray[np.integer[Any]], values: Float64) -> HashedFeatures:
    """Of features that have numbers for hashes, and of no ids.

    ``columns``, ``values``: [n, K, F], or [n, F].
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
    """Of no rows."""
    return arrange_features([], [], [])


def hash_decisions(rows: Sequence[LoggedDecision], *, chosen: bool = False) -> HashedFeatures:
    """Of every action of the rows, or of the chosen ones only (K = 1).

    Raises:
        ReplayError: a feature is no finite number, or is too large; names it.
    """
    ids, contexts, own = [], [], []
    for row in rows:
        which = [row.chosen] if chosen else range(len(row.action_ids))
        hashed = _hashed(tuple(row.action_ids))
        ids.append(hashed[[row.chosen]] if chosen else hashed)
        contexts.append(hash_pairs(row.context, CONTEXT))
        mine: list[Pairs] = [[] for _ in which]
        if row.features is not None:
            mine = [hash_pairs(row.features[k] or {}, FEATURES) for k in which]
        if row.scores:
            for pairs, k in zip(mine, which, strict=True):
                pairs.extend(_scores(row)[k])
        own.append(mine)
    found = arrange_features(ids, contexts, own)
    for values in (found.values, found.own_values):
        if np.isinf(values).any() or (np.abs(values) > LARGEST).any():
            _refuse(rows)
    if sum(map(len, contexts)) != np.count_nonzero(~np.isnan(found.values)):
        _refuse(rows)
    if sum(len(pairs) for each in own for pairs in each) != np.count_nonzero(
        ~np.isnan(found.own_values)
    ):
        _refuse(rows)
    return found


def arrange_features(
    ids: Sequence[UInt32], contexts: Sequence[Pairs], own: Sequence[Sequence[Pairs]]
) -> HashedFeatures:
    """As arrays, of each row the hashes of its actions, and (hash, value) of its context and of each action."""
    n, k = len(ids), max(map(len, ids), default=0)
    hashes, there = np.zeros((n, k), np.uint32), np.full((n, k), np.nan)
    for row, mine in enumerate(ids):
        hashes[row, : len(mine)], there[row, : len(mine)] = mine, 1.0
    width = max(map(len, contexts), default=0)
    context, values = _filled(contexts, width)
    deep = max((len(pairs) for each in own for pairs in each), default=0)
    if not deep:
        return HashedFeatures(
            hashes, there, context, values, np.zeros((n, k, 0), np.uint32), np.zeros((n, k, 0))
        )
    flat = [pairs for each in own for pairs in (*each, *[_NONE] * (k - len(each)))]
    columns, numbers = _filled(flat, deep)
    return HashedFeatures(
        hashes, there, context, values, columns.reshape(n, k, deep), numbers.reshape(n, k, deep)
    )


_NONE: Pairs = []


def _filled(rows: Sequence[Pairs], width: int) -> tuple[UInt32, Float64]:
    hashes = [[hashed for hashed, _ in pairs] + [0] * (width - len(pairs)) for pairs in rows]
    values = [[value for _, value in pairs] + [np.nan] * (width - len(pairs)) for pairs in rows]
    shape = (len(rows), width)
    return np.array(hashes, np.uint32).reshape(shape), np.array(values, np.float64).reshape(shape)


def _padded(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shape = np.max([part.shape for part in parts], axis=0)
    fill: Any = np.nan if parts[0].dtype == np.float64 else 0
    out = np.full((sum(map(len, parts)), *shape[1:]), fill, parts[0].dtype)
    at = 0
    for part in parts:
        out[(slice(at, at + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        at += len(part)
    return out


def _scores(row: LoggedDecision) -> list[Pairs]:
    """Of each action: score and rank of the sources that scored it, and which did."""
    found = score_features(row.scores)
    hashes, values = found.hashes.tolist(), found.values.astype(np.float64)
    return [
        [
            (hashes[at], float(value))
            for at, value in enumerate(mine)
            if at % 3 == 2 or mine[at - at % 3 + 2]  # presence, or of a source that scored it
        ]
        for mine in values
    ]


def _refuse(rows: Sequence[LoggedDecision]) -> None:
    """Names the feature at fault.

    Raises:
        ReplayError
    """
    for row in rows:
        for given in (row.context, *(row.features or ())):
            for name, value in (given or {}).items():
                if isinstance(value, float) and not abs(value) <= LARGEST:
                    raise ReplayError(
                        f"decision {row.event_id}: feature {name!r} is {value}, infinite, NaN or"
                        " too large; leave such"
                        " rows out",
                        "features",
                    )
    raise ReplayError("a source's score is infinite; leave such rows out", "scores")


@lru_cache(maxsize=1024)
def _hashed(ids: tuple[str, ...]) -> UInt32:
    hashes: UInt32 = np.array([hash_feature(ITEM, action_id) for action_id in ids], np.uint32)
    return frozen(hashes)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScales:
    """The units of features, from the rows that a model is fitted on.

    ``hashes``: uint32[m], sorted, all the features that these rows have. ``largest``, ``mean``,
    ``deviation``: float64[m]; the latter two in shares of the largest, and a deviation of 0 is of
    one that does not vary. ``partial``: bool[m], whether it varies and some rows lack it.
    """

    hashes: UInt32
    largest: Float64
    mean: Float64
    deviation: Float64
    partial: Bool

    @classmethod
    def of(cls, features: HashedFeatures) -> "FeatureScales":
        """Of rows with one action each, the chosen one."""
        n = len(features)
        hashes, values = (
            np.concatenate([each.ravel() for each in group])
            for group in (
                (features.ids, features.context, features.own),
                (features.there, features.values, features.own_values),
            )
        )
        here = ~np.isnan(values)
        names, which, counts = np.unique(hashes[here], return_inverse=True, return_counts=True)
        largest = np.zeros(len(names))
        np.maximum.at(largest, which, np.abs(values[here]))
        shares = values[here] / np.where(largest > 0.0, largest, 1.0)[which]
        mean = np.bincount(which, shares, len(names)) / np.maximum(counts, 1)
        deviation = np.sqrt(
            np.bincount(which, (shares - mean[which]) ** 2, len(names)) / np.maximum(counts, 1)
        )
        deviation[deviation <= STEADY] = 0.0
        return cls(names, largest, mean, deviation, (deviation > 0.0) & (counts < n))

    def standard(self, hashes: UInt32, values: Float64) -> tuple[Float64, Bool]:
        """What each enters with, and whether that it is there is to be said, too.

        0 for what is not there or not known.

        ``hashes``: uint32[...], ``values``: float64[...], NaN for what is not there.
        """
        if not self.hashes.size or not hashes.size:
            return np.zeros(hashes.shape), np.zeros(hashes.shape, np.bool_)
        at = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        known = (self.hashes[at] == hashes) & ~np.isnan(values)
        deviation = self.deviation[at]
        varies = known & (deviation > 0.0)
        out = known.astype(np.float64)
        mine = at[varies]
        out[varies] = (values[varies] / self.largest[mine] - self.mean[mine]) / deviation[varies]
        return out, known & self.partial[at]


@dataclass(frozen=True, slots=True, eq=False)
class HashedDesign:
    """Columns of a model: ``columns``: int64[n, K, W] hashes, ``values``: float64[n, K, W].

    Value 0 is padding.
    """

    columns: NDArray[np.int64]
    values: Float64


def hashed_design(features: HashedFeatures, scales: FeatureScales) -> HashedDesign:
    """Id, context, context crossed with id, and what the action has of its own."""
    ids, context = features.ids[:, :, None], features.context[:, None, :]
    known, _ = scales.standard(ids, features.there[:, :, None])
    shared, also = scales.standard(context, features.values[:, None, :])
    own, own_also = scales.standard(features.own, features.own_values)
    anyone = ~np.isnan(features.there[:, :, None])
    columns: list[UInt32] = [ids]
    values: list[Any] = [known]
    for hashes, each in (
        ((context, shared), (context ^ THERE, also * 1.0)) if also.any() else ((context, shared),)
    ):
        columns += [
            np.broadcast_to(hashes, known.shape[:2] + hashes.shape[2:]),
            (ids * FNV_PRIME) ^ hashes,
        ]
        values += [each * anyone, each * known]
    columns += [features.own, features.own ^ THERE] if own_also.any() else [features.own]
    values += [own, own_also * 1.0] if own_also.any() else [own]
    return HashedDesign(
        np.concatenate(columns, axis=2, dtype=np.int64), np.concatenate(values, axis=2)
    )


def hash_in_parts(rows: Sequence[LoggedDecision]) -> Iterator[tuple[slice, HashedFeatures]]:
    """All rows, in parts that fit the memory."""
    start, actions, width = 0, 0, 0
    for number, row in enumerate(rows):
        actions, width = max(actions, len(row.action_ids)), max(width, 1 + 2 * len(row.context))
        if (number + 1 - start) * actions * width > CELLS and number > start:
            yield slice(start, number), hash_decisions(rows[start:number])
            start, actions, width = number, len(row.action_ids), 1 + 2 * len(row.context)
    if start < len(rows):
        yield slice(start, len(rows)), hash_decisions(rows[start:])


def to_dense(columns: NDArray[np.int64], values: Float64, size: int) -> Float64:
    """Features as columns by their hashes modulo ``size``, those that collide added: float64[n, size] of [n, W]."""
    at = np.arange(len(columns))[:, None] * size + columns % size
    flat = np.bincount(at.ravel(), values.ravel(), len(columns) * size)
    return cast("Float64", flat.astype(np.float64, copy=False).reshape(len(columns), size))
