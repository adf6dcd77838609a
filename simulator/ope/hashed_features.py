"""From rows of a log to what a reward model sees: hashed features of every action."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES
from bandits.types import Float64, UInt32
from simulator.logs.actions.columns import ActionColumns, FeatureColumns, Term
from simulator.logs.actions.from_rows import with_actions
from simulator.logs.rows import LogBatch, LoggedDecision
from simulator.ope.kernels import rank_discounts

CELLS = 1 << 20
"""Features of actions that are held at once."""
LARGEST = 1e300
"""A feature's value: beyond it, sums of several would not be finite."""


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
    return features_from_columns(np.zeros((0, 0, 0), np.int64), np.zeros((0, 0, 0)))


def hash_rows(batch: LogBatch, *, chosen: bool = False) -> HashedFeatures:
    """Hash the features of every action of the rows, or of the chosen ones only.

    Args:
        batch: n rows with their actions.
        chosen: only the chosen action of each (K = 1).

    Raises:
        ReplayError: a feature is no finite number, or is too large; names it.
    """
    actions = with_actions(batch).actions
    if actions is None or not len(batch):
        return no_features()
    check_finite(actions, batch.decisions)

    # Where each action goes: its row, and its place among the row's actions.
    rows, n = np.arange(len(actions)), len(actions)
    at, place, width = actions.chosen_at, np.zeros(n, np.int64), 1
    if not chosen:
        at, rows = np.arange(actions.total), np.repeat(rows, actions.counts)
        place, width = at - actions.offsets[rows], int(actions.counts.max())

    ids, there = np.zeros((n, width), np.uint32), np.full((n, width), np.nan)
    ids[rows, place], there[rows, place] = hash_ids(actions.names)[actions.ids[at]], 1.0
    context, values = _padded(actions.context, CONTEXT)

    # An action's own features are those it was sent with, then its sources' scores.
    parts = [(np.zeros((len(at), 0), np.uint32), np.zeros((len(at), 0)))]
    if actions.features is not None:
        parts.append(_padded(actions.features.take(at), FEATURES))
    for name, column in score_columns(actions):
        parts.append((np.full((len(at), 1), name, np.uint32), column[at, None]))
    hashes, numbers = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))

    own = np.zeros((n, width, hashes.shape[1]), np.uint32)
    own_values = np.full((n, width, hashes.shape[1]), np.nan)
    own[rows, place], own_values[rows, place] = hashes, numbers
    return HashedFeatures(ids, there, context, values, own, own_values)


def check_finite(actions: ActionColumns, rows: Sequence[LoggedDecision]) -> None:
    """Refuse values that are infinite, too large, or NaN.

    Args:
        actions: n rows.
        rows: the same, to name the one at fault.

    Raises:
        ReplayError: names the feature at fault.
    """
    maps = (actions.context, actions.features)
    good = all((np.abs(each.values) <= LARGEST).all() for each in maps if each is not None)
    if not good or any(np.isinf(scores.values).any() for scores in actions.scores.values()):
        _refuse(rows)


def hash_ids(names: Sequence[str]) -> UInt32:
    """Return the hashes of action ids, uint32[U]."""
    return np.array([hash_feature(ITEM, name) for name in names], np.uint32)


def hash_terms(terms: Sequence[Term], namespace: str) -> UInt32:
    """Return the hashes of what features say, uint32[U], as ``policies.encoding`` hashes them.

    Args:
        terms: U of them.
        namespace: which names are hashed with.
    """
    return np.array(
        [
            hash_feature(namespace, f"{name}={text}" if kind in {"text", "texts"} else name)
            for name, kind, text in terms
        ],
        np.uint32,
    )


def without_empty(columns: FeatureColumns) -> FeatureColumns:
    """Return the maps without the entries of empty lists, which are no features."""
    empty = np.array([term.kind == "empty" for term in columns.terms], np.bool_)
    if not empty.any():
        return columns
    kept = ~empty[columns.codes]
    before = np.concatenate([[0], np.cumsum(kept)])
    return FeatureColumns(
        before[columns.offsets], columns.codes[kept], columns.values[kept], columns.terms
    )


def score_columns(actions: ActionColumns) -> Iterator[tuple[int, Float64]]:
    """Yield the features that sources' scores are, with the hash of each.

    They are a source's score, the discount of the action's rank by it, and whether it scored, as in
    ``policies.features.score_features``: float64[total], NaN where there is none.

    Args:
        actions: n rows, total actions.
    """
    most = int(actions.counts.max(initial=0))
    discounts = (1.0 / np.log2(2.0 + np.arange(most + 1))).astype(np.float32).astype(np.float64)

    for source in sorted(actions.scores):
        values, answered = actions.scores[source]
        present = (~np.isnan(values)).astype(np.float64)
        if answered is not None:
            present[~np.repeat(answered, actions.counts)] = np.nan
        columns = {
            "score": values.astype(np.float64),
            "rank": rank_discounts(actions.offsets, values, discounts),
            "present": present,
        }
        for kind, column in columns.items():
            yield hash_feature(SCORES, f"{source}.{kind}"), column


def _padded(columns: FeatureColumns, namespace: str) -> tuple[UInt32, Float64]:
    """Return the hashes and values of m maps, [m, F] each, padded with 0 and NaN."""
    columns = without_empty(columns)
    counts = np.diff(columns.offsets)
    shape = (len(columns), int(counts.max(initial=0)))
    hashes, values = np.zeros(shape, np.uint32), np.full(shape, np.nan)
    here = np.arange(shape[1]) < counts[:, None]
    hashes[here] = hash_terms(columns.terms, namespace)[columns.codes]
    values[here] = columns.values
    return hashes, values


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


def hash_in_parts(batch: LogBatch) -> Iterator[tuple[slice, HashedFeatures]]:
    """Yield all rows' features, in parts that fit the memory, each with its place."""
    batch = with_actions(batch)
    if batch.actions is None:
        return
    counts = batch.actions.counts.tolist()
    widths = (1 + 2 * np.diff(batch.actions.context.offsets)).tolist()

    start, actions, width = 0, 0, 0
    for number, (count, wide) in enumerate(zip(counts, widths, strict=True)):
        actions, width = max(actions, count), max(width, wide)
        if (number + 1 - start) * actions * width > CELLS and number > start:
            yield slice(start, number), hash_rows(batch.take(slice(start, number)))
            start, actions, width = number, count, wide

    if start < len(batch):
        yield slice(start, len(batch)), hash_rows(batch.take(slice(start, len(batch))))
