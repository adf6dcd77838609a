"""The features of the chosen actions of a batch of rows, made at once for a learner.

They are those that ``policies.features.chosen_rows`` makes of one record after the other.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES
from bandits.types import ChosenRows, DecisionRows, Float32, Float64, UInt32
from policies.features import discounts_of_ranks, score_hashes
from policies.items.catalogue import Catalogue
from simulator.learners.features import too_large
from simulator.logs.actions.columns import (
    FeatureColumns,
    Int64,
    distinct_codes,
    no_maps,
    spread,
)
from simulator.logs.actions.records import (
    ChosenActions,
    ChosenFeatures,
    EventIds,
    RecordColumns,
    RecordScores,
)
from simulator.logs.rows import LogBatch

SPACES = (CONTEXT, ITEM, FEATURES, SCORES)
"""The namespaces in the order in which a policy sees them; only the context's are shared."""


DISTINCT = 4096
"""The most actions, with features of their own, of which columns are made."""


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
    use: Collection[str],
    records: RecordColumns,
    rewards: Float64,
    propensities: Float64,
    unseen: Collection[str] = (),
) -> ChosenRows:
    """Return n rows as a learner that learns from the chosen actions alone takes them.

    Args:
        use: The namespaces that the policy sees.
        records: What the rows are slots of.
        rewards: float64[n].
        propensities: float64[n].
        unseen: Features of the context that the policy does not see.

    Raises:
        ReplayError: A feature is too large for a policy, which computes with float32.
    """
    actions = records.actions
    chosen = actions.codes.astype(np.int64)
    nothing = _nothing(len(chosen))
    parts = [
        _context(records, unseen) if CONTEXT in use else nothing,
        _items(actions.names, chosen) if ITEM in use else nothing,
        _features(actions.names, chosen, records) if FEATURES in use else nothing,
        _scores(records) if SCORES in use else nothing,
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
        slots=records.slots,
    )


def decision_columns(use: Collection[str], batch: LogBatch, rows: slice) -> DecisionRows | None:
    """Return rows as a learner that learns from all actions takes them.

    Args:
        use: The namespaces that the policy sees.
        batch: Of an archive, read as columns.
        rows: Which of its rows.

    Returns:
        None where an action is not the same in every decision, but has scores, or features of the
        request; or where there are too many.

    Raises:
        ReplayError: A feature is too large for a policy.
    """
    part = batch.take(rows)
    actions, records = part.actions, part.records
    if actions is None or records is None:
        return None
    if (FEATURES in use and actions.features is not None) or (
        SCORES in use and records.scores.sources
    ):
        return None

    # An action is an id with a catalogue.
    catalogues = np.repeat(records.catalogues.astype(np.int64), actions.counts)
    distinct, codes = np.unique(catalogues * len(actions.names) + actions.ids, return_inverse=True)
    if distinct.size > DISTINCT:
        return None
    seen = [CONTEXT] if CONTEXT in use else []
    contexts = chosen_columns(seen, records, part.reward, part.propensity)
    own = chosen_columns(
        [name for name in (ITEM, FEATURES) if name in use],
        _of_catalogues(actions.names, distinct, records.known),
        np.zeros(distinct.size),
        np.ones(distinct.size),
    )
    return DecisionRows(contexts, own, codes, actions.offsets, actions.chosen)


def _of_catalogues(names: Sequence[str], items: Int64, known: Sequence[Catalogue]) -> RecordColumns:
    """Return rows of which each has chosen an item of a catalogue."""
    count, none = len(items), np.zeros(len(items), np.int64)
    which, ids = np.divmod(items, len(names))
    chosen = ChosenFeatures(no_maps(count), np.zeros(count, np.bool_))
    return RecordColumns(
        none,
        none,
        none,
        which.astype(np.int32),
        known,
        lambda: ChosenActions(names, ids, none + 1),
        lambda: EventIds.of([""] * count),
        lambda: no_maps(count),
        lambda: RecordScores(np.zeros(1, np.int64), {}),
        lambda: chosen,
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


def _context(records: RecordColumns, unseen: Collection[str]) -> _Cells:
    maps = records.context if not unseen else records.context.without(unseen)
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

    # An item of a catalogue is looked up once. The rows of each catalogue are side by side.
    rows = np.flatnonzero(~given)
    rows = rows[np.argsort(records.catalogues[rows], kind="stable")]
    bounds = np.searchsorted(records.catalogues[rows], np.arange(len(records.known) + 1))
    all_hashes, all_values, filled = [hashes], [values], values.size
    for catalogue, (begin, end) in zip(records.known, pairwise(bounds.tolist()), strict=True):
        here = rows[begin:end]
        codes, which = distinct_codes(chosen[here], len(names))
        known = catalogue.namespace([names[code] for code in codes.tolist()])
        width = known.values.shape[1]
        starts[here], counts[here] = filled + width * which, width
        all_hashes.append(np.broadcast_to(known.cells(), known.values.shape).ravel())
        all_values.append(known.values.ravel())
        filled += known.values.size
    return _Cells(starts, counts, np.concatenate(all_hashes), np.concatenate(all_values))


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
