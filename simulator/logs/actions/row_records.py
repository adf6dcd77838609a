"""From rows that are objects to the columns of their records, so that all logs teach alike."""

from collections.abc import Mapping, Sequence

import numpy as np

from bandits.types import Float32
from policies.items.catalogue import Catalogue
from simulator.logs.actions.columns import SourceScores
from simulator.logs.actions.from_rows import columns_from_maps
from simulator.logs.actions.records import (
    ChosenActions,
    ChosenFeatures,
    EventIds,
    RecordColumns,
    RecordScores,
)
from simulator.logs.rows import LoggedDecision

_NO_ITEMS = Catalogue()


def records_from_rows(rows: Sequence[LoggedDecision]) -> RecordColumns:
    """Return the records of n rows, one of each row; a row without one has no scores."""
    count = len(rows)
    catalogues = {id(row.catalogue): row.catalogue or _NO_ITEMS for row in rows}
    place = {name: at for at, name in enumerate(catalogues)}
    return RecordColumns(
        np.fromiter((row.slot for row in rows), np.int64, count),
        np.arange(count),
        np.fromiter(map(_place, rows), np.int64, count),
        np.fromiter((place[id(row.catalogue)] for row in rows), np.int32, count),
        list(catalogues.values()),
        lambda: _actions(rows),
        lambda: EventIds.of([row.event_id for row in rows]),
        lambda: columns_from_maps([row.context for row in rows]),
        lambda: _scores(rows),
        lambda: _chosen(rows),
    )


def _place(row: LoggedDecision) -> int:
    return row.chosen if row.record is None else row.record.chosen[row.slot]


def _available(row: LoggedDecision) -> int:
    """Return how many actions earlier slots have left, as a learner counts them."""
    if row.record is None:
        return len(row.action_ids)
    return len(row.record.action_ids) - row.slot


def _actions(rows: Sequence[LoggedDecision]) -> ChosenActions:
    places: dict[str, int] = {}
    codes = [places.setdefault(row.action_ids[row.chosen], len(places)) for row in rows]
    available = np.fromiter(map(_available, rows), np.int64, len(rows))
    return ChosenActions(list(places), np.array(codes, np.int64), available)


def _chosen(rows: Sequence[LoggedDecision]) -> ChosenFeatures:
    own = [None if row.features is None else row.features[row.chosen] for row in rows]
    given = np.fromiter((each is not None for each in own), np.bool_, len(rows))
    return ChosenFeatures(columns_from_maps(own), given)


def _scores(rows: Sequence[LoggedDecision]) -> RecordScores:
    records = [row.record for row in rows]
    counts = [len(row.action_ids if row.record is None else row.record.action_ids) for row in rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])

    by_row: list[Mapping[str, Float32]] = [
        {} if record is None else record.source_scores() for record in records
    ]
    sources = {}
    for source in set[str]().union(*by_row):
        answered = np.fromiter((source in scores for scores in by_row), np.bool_, len(rows))
        values = np.full(offsets[-1], np.nan, np.float32)
        for at in np.flatnonzero(answered).tolist():
            values[offsets[at] : offsets[at + 1]] = by_row[at][source]
        sources[source] = SourceScores(values, answered)
    return RecordScores(offsets, sources)
