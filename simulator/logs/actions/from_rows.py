"""From rows that are objects to columns, so that an evaluation has one way through any log."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bandits.types import Float64
from bandits.values import FeatureMap
from simulator.logs.actions.columns import (
    ActionColumns,
    FeatureColumns,
    Int32,
    Int64,
    SourceScores,
    Term,
)
from simulator.logs.rows import LogBatch, LoggedDecision


def with_actions(batch: LogBatch) -> LogBatch:
    """Return the batch with the columns of its actions, made from its rows if it has none.

    A batch of numbers only, without rows, stays as it is.
    """
    if batch.actions is not None or not len(batch) or len(batch.decisions) != len(batch):
        return batch
    return replace(batch, actions=columns_from_rows(batch.decisions))


def columns_from_rows(rows: Sequence[LoggedDecision]) -> ActionColumns:
    """Return the actions of n rows as columns."""
    offsets, ids, names = _coded_ids(rows)
    return ActionColumns(
        offsets,
        lambda: (ids, names),
        np.fromiter((row.chosen for row in rows), np.int64, len(rows)),
        _pmf(rows, offsets),
        lambda: _scores(rows, offsets),
        lambda: columns_from_maps([row.context for row in rows]),
        lambda: _features(rows),
    )


def columns_from_maps(maps: Iterable[FeatureMap | None]) -> FeatureColumns:
    """Return feature maps as columns."""
    out = _Coded()
    for features in maps:
        out.add(features)
    return out.columns()


class _Coded:
    """Feature maps, coded one after the other."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, str], int] = {}
        self._ends, self._codes, self._values = array("q", [0]), array("i"), array("d")

    def add(self, features: FeatureMap | None) -> None:
        """Add a map; terms that are new get the next places."""
        places, codes, values = self._places, self._codes, self._values
        for name, value in (features or {}).items():
            if isinstance(value, float):
                codes.append(places.setdefault((name, "number", ""), len(places)))
                values.append(value)
            elif isinstance(value, str):
                codes.append(places.setdefault((name, "text", value), len(places)))
                values.append(1.0)
            elif isinstance(value, list):
                terms = [(name, "texts", text) for text in value] or [(name, "empty", "")]
                codes.extend([places.setdefault(term, len(places)) for term in terms])
                values.extend([1.0] * len(terms))
            else:
                kind = "flag" if isinstance(value, bool) else "number"
                codes.append(places.setdefault((name, kind, ""), len(places)))
                values.append(float(value))
        self._ends.append(len(codes))

    def repeat(self, first: int, stop: int) -> None:
        """Add some of the maps once more, by their numbers."""
        start, end = self._ends[first], self._ends[stop]
        shift = len(self._codes) - start
        self._codes.extend(self._codes[start:end])
        self._values.extend(self._values[start:end])
        self._ends.extend([at + shift for at in self._ends[first + 1 : stop + 1]])

    def columns(self) -> FeatureColumns:
        """Return them all."""
        return FeatureColumns(
            np.array(self._ends, np.int64),
            np.array(self._codes, np.int32),
            np.array(self._values, np.float64),
            [Term(*term) for term in self._places],  # type: ignore[arg-type] # of these kinds
        )


def _coded_ids(rows: Sequence[LoggedDecision]) -> tuple[Int64, Int32, list[str]]:
    """Return where each row's actions start, the codes of their ids, and the ids."""
    places: dict[str, int] = {}
    known: dict[tuple[str, ...], Int32] = {}
    parts: list[Int32] = []
    for row in rows:
        ids = tuple(row.action_ids)
        coded = known.get(ids)
        if coded is None:
            codes = [places.setdefault(action_id, len(places)) for action_id in ids]
            coded = known[ids] = np.array(codes, np.int32)
        parts.append(coded)

    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return offsets, np.concatenate(parts) if parts else np.zeros(0, np.int32), list(places)


def _pmf(rows: Sequence[LoggedDecision], offsets: Int64) -> Float64 | None:
    """Return the PMFs one after the other, NaN for those that are not known."""
    if all(row.pmf is None for row in rows):
        return None
    if all(row.pmf is not None for row in rows):
        return np.concatenate([row.pmf for row in rows], dtype=np.float64)  # type: ignore[misc]

    out = np.full(offsets[-1], np.nan)
    for at, row in enumerate(rows):
        if row.pmf is not None:
            out[offsets[at] : offsets[at + 1]] = row.pmf
    return out


def _scores(rows: Sequence[LoggedDecision], offsets: Int64) -> Mapping[str, SourceScores]:
    """Return by source the scores of all rows' actions."""
    out: dict[str, SourceScores] = {}
    for source in sorted(set[str]().union(*(row.scores for row in rows))):
        answered = np.fromiter((source in row.scores for row in rows), np.bool_, len(rows))
        values = np.full(offsets[-1], np.nan, np.float32)
        for at in np.flatnonzero(answered).tolist():
            values[offsets[at] : offsets[at + 1]] = rows[at].scores[source]
        out[source] = SourceScores(values, None if answered.all() else answered)
    return out


def _features(rows: Sequence[LoggedDecision]) -> FeatureColumns | None:
    """Return the features of all rows' actions, None where no row has any.

    Rows that share their features, as those of a table may, have them read once.
    """
    if all(row.features is None for row in rows):
        return None

    out, known, at = _Coded(), dict[tuple[int, int], int](), 0
    for row in rows:
        count = len(row.action_ids)
        first = known.setdefault((id(row.features), count), at)
        if first < at:
            out.repeat(first, first + count)
        else:
            for features in [None] * count if row.features is None else row.features:
                out.add(features)
        at += count
    return out.columns()
