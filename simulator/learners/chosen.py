"""What a learner needs of a batch of a log's rows: the features of the chosen actions, at once.

They are those that ``policies.features.chosen_rows`` makes of one record after the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES
from bandits.types import ChosenRows, Float32, Float64, UInt32
from policies.features import discounts_of_ranks, score_hashes
from policies.spec import PolicySpec
from simulator.learners.online import too_large
from simulator.logs.actions.columns import (
    FeatureColumns,
    Int64,
    distinct_codes,
    spread,
)
from simulator.logs.actions.records import RecordColumns

SPACES = (CONTEXT, ITEM, FEATURES, SCORES)
"""The namespaces in the order in which a policy sees them; only the context's are shared."""


class _Cells(NamedTuple):
    """The features of n rows in one namespace.

    ``starts``, ``counts``: int64[n], where each row's features are in ``hashes`` and ``values``;
    rows may share them.
    """

    starts: Int64
    counts: Int64
    hashes: UInt32
    values: Float32


def chosen_columns(
    spec: PolicySpec,
    records: RecordColumns,
    rewards: Float64,
    propensities: Float64,
) -> ChosenRows:
    """Return n rows as a learner that learns from the chosen actions alone takes them.

    Args:
        spec: The policy, which says what namespaces it uses.
        records: What the rows are slots of.
        rewards: float64[n].
        propensities: float64[n].

    Raises:
        ReplayError: A feature is too large for a policy, which computes with float32.
    """
    actions = records.actions
    chosen = actions.codes.astype(np.int64)
    nothing = _nothing(len(chosen))
    parts = [
        _context(records) if CONTEXT in spec.use else nothing,
        _items(actions.names, chosen) if ITEM in spec.use else nothing,
        _features(actions.names, chosen, records) if FEATURES in spec.use else nothing,
        _scores(records) if SCORES in spec.use else nothing,
    ]

    # One namespace of a row after the other.
    bounds = np.zeros(len(chosen) * len(SPACES) + 1, np.int64)
    np.cumsum(np.stack([part.counts for part in parts], axis=1).ravel(), out=bounds[1:])
    hashes, values = np.empty(bounds[-1], np.uint32), np.empty(bounds[-1], np.float32)
    for space, part in enumerate(parts):
        to = spread(bounds[space : -1 : len(SPACES)], part.counts)
        source = spread(part.starts, part.counts)
        hashes[to], values[to] = part.hashes[source], part.values[source]

    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        row = int(np.searchsorted(bounds, wrong[0], side="right") - 1) // len(SPACES)
        raise too_large(records.ids.text(row))
    return ChosenRows(
        actions.names,
        chosen,
        SPACES,
        1,
        bounds,
        hashes,
        values,
        rewards,
        actions.available,
        propensities,
    )


def _nothing(rows: int) -> _Cells:
    none = np.zeros(rows, np.int64)
    return _Cells(none, none, np.zeros(0, np.uint32), np.zeros(0, np.float32))


def _hashed(maps: FeatureColumns, namespace: str) -> tuple[UInt32, Float32]:
    """Return the hash and the value of each entry; see ``policies.encoding.hash_pairs``."""
    hashes = np.array(
        [
            hash_feature(namespace, f"{name}={text}" if kind in {"text", "texts"} else name)
            for name, kind, text in maps.terms
        ],
        np.uint32,
    )
    with np.errstate(over="ignore"):
        values = maps.values.astype(np.float32)

    # A list without texts is no feature.
    empty = np.array([kind == "empty" for _, kind, _ in maps.terms], np.bool_)
    if empty.any():
        values[empty[maps.codes]] = 0.0
    return hashes[maps.codes], values


def _context(records: RecordColumns) -> _Cells:
    maps = records.context
    starts, counts = maps.offsets[:-1][records.records], np.diff(maps.offsets)[records.records]
    return _Cells(starts, counts, *_hashed(maps, CONTEXT))


def _items(names: Sequence[str], chosen: Int64) -> _Cells:
    codes, which = distinct_codes(chosen, len(names))
    hashes = np.array([hash_feature(ITEM, names[code]) for code in codes.tolist()], np.uint32)
    ones = np.ones(len(codes), np.float32)
    return _Cells(which, np.ones(len(chosen), np.int64), hashes, ones)


def _features(names: Sequence[str], chosen: Int64, records: RecordColumns) -> _Cells:
    """Return each chosen action's own features, or else those of its catalogue."""
    maps, given = records.chosen
    hashes, values = _hashed(maps, FEATURES)
    starts, counts = maps.offsets[:-1].copy(), np.diff(maps.offsets)
    if given.all():
        return _Cells(starts, counts, hashes, values)

    # An item of a catalogue is looked up once.
    for at, catalogue in enumerate(records.known):
        here = np.flatnonzero(~given & (records.catalogues == at))
        codes, which = distinct_codes(chosen[here], len(names))
        known = catalogue.namespace([names[code] for code in codes.tolist()])
        width = known.values.shape[1]
        starts[here], counts[here] = values.size + width * which, width
        cells = np.broadcast_to(known.cells(), known.values.shape)
        hashes = np.concatenate([hashes, cells.ravel()])
        values = np.concatenate([values, known.values.ravel()])
    return _Cells(starts, counts, hashes, values)


def _scores(records: RecordColumns) -> _Cells:
    """Return three features per source of each chosen action; see ``score_features``.

    Those of a source that the record does not have are 0, which is no feature.
    """
    offsets, sources = records.scores
    names, count = tuple(sorted(sources)), len(records)
    if not names or not count:
        return _nothing(count)

    # All actions of a record are ranked, those among them that earlier slots took.
    first, sizes = offsets[:-1][records.records], np.diff(offsets)[records.records]
    every, edges = spread(first, sizes), np.cumsum(sizes) - sizes
    discounts = discounts_of_ranks(int(sizes.max()))

    columns = np.empty((count, 3 * len(names)), np.float32)
    for at, name in enumerate(names):
        scores = sources[name].values
        own = scores[first + records.places]
        # No score is above one that is not there.
        rank = np.add.reduceat(scores[every] > np.repeat(own, sizes), edges, dtype=np.int64)
        present = ~np.isnan(own)
        columns[:, 3 * at] = np.where(present, own, np.float32(0.0))
        columns[:, 3 * at + 1] = discounts[rank] * present
        columns[:, 3 * at + 2] = present

    width = 3 * len(names)
    return _Cells(
        width * np.arange(count),
        np.full(count, width),
        np.tile(score_hashes(names), count),
        columns.ravel(),
    )
