"""From a request, or from its record, to the features a policy sees: by the same function."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.features.hashing import hash_feature, hash_namespace
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES
from bandits.kernels.actions import columns_of_scores
from bandits.kernels.lessons import features_of_chosen, find_chosen
from bandits.log.records import DecisionRecord
from bandits.types import (
    ActionSet,
    ChosenRows,
    Context,
    Float32,
    Float64,
    Namespace,
    Row,
    UInt32,
    frozen,
)
from bandits.values import FeatureMap
from policies.encoding import NumberTable, coded_rows, namespace_of, numbers_alike, rows_alike
from policies.items.catalogue import Catalogue
from policies.requests import without_private
from policies.spec import PolicySpec

SCORE_KINDS = ("score", "rank", "present")
"""What is a feature of each source's score."""
_SPACES = (CONTEXT, ITEM, FEATURES, SCORES)
"""The namespaces as ``bandits.kernels.lessons`` numbers them."""
_SEEDS: UInt32 = frozen(np.array([hash_namespace(name) for name in _SPACES], np.uint32))
_ONE: Float32 = frozen(np.ones(1, np.float32))


MOST_HASHES = 100_000
"""Items whose hashes are kept; when there are more, all are forgotten."""


class _ItemHashes(dict[str, int]):
    """The hash of each item's own feature, found when it is first asked for."""

    def __missing__(self, item_id: str) -> int:
        found = self[item_id] = hash_feature(ITEM, item_id)
        return found


_item_hashes = _ItemHashes()


class ItemRows(Protocol):
    """The rows of items in a table of features, as a catalogue has them."""

    @property
    def table(self) -> tuple[UInt32, NDArray[np.int32], Float32]:
        """All features; see ``Catalogue.table``."""
        ...

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each id, -1 for one that is not there."""
        ...


def featurise(
    spec: PolicySpec,
    catalogue: Catalogue,
    context: FeatureMap,
    ids: Sequence[str],
    features: Sequence[FeatureMap | None] | None,
    scores: Mapping[str, Float32],
    numbers: NumberTable | None = None,
) -> tuple[Context, ActionSet]:
    """Return the context and the actions as hashed features.

    Namespaces: ``context`` (shared), ``item`` (the id), ``features`` (the request's, or else the
    catalogue's) and ``scores`` (per source: score, rank, presence).

    Args:
        spec: which namespaces its policy uses.
        catalogue: has the features of items.
        context: the decision's features.
        ids: the K actions.
        features: the request's own, by action; None if it sent none.
        scores: by source, float32[K], NaN where it has none.
        numbers: the request's own features as a table, where they are known to be one.
    """
    actions: list[Namespace] = []
    if ITEM in spec.use:
        actions.append(item_indicators(ids))
    if FEATURES in spec.use:
        actions.append(_item_features(catalogue, ids, features, numbers))
    if SCORES in spec.use and scores:
        actions.append(score_features(scores))

    shared = _shared(spec, context)
    return Context(shared), ActionSet(tuple(ids), tuple(actions), scores)


def item_indicators(ids: Sequence[str]) -> Namespace:
    """Return a feature of its own of each action, by its id."""
    if len(_item_hashes) > MOST_HASHES:
        _item_hashes.clear()
    hashes = np.fromiter(map(_item_hashes.__getitem__, ids), np.uint32, len(ids))
    ones = np.ones((len(ids), 1), np.float32)
    return Namespace(ITEM, hashes, ones, np.arange(len(ids))[:, None])


def featurise_record(
    spec: PolicySpec, catalogue: Catalogue, record: DecisionRecord
) -> tuple[Context, ActionSet]:
    """Return what the policy saw when it made this decision, rebuilt from its record.

    Args:
        spec: the one that the record names.
        catalogue: the one that the record names.
        record: the decision.
    """
    scores = record.source_scores()
    context, actions = featurise(
        spec, catalogue, record.context, record.action_ids, record.features, scores
    )
    return context, boosted(actions, record.boosts)


def boosted(actions: ActionSet, boosts: Float64 | None) -> ActionSet:
    """Return the actions with what rules add to their scores.

    Args:
        actions: K of them.
        boosts: float64[K]; None: nothing is added.
    """
    return actions if boosts is None else msgspec.structs.replace(actions, boosts=boosts)


def chosen_rows(
    spec: PolicySpec, catalogue: Catalogue, record: DecisionRecord, indices: Sequence[int]
) -> list[tuple[str, Row, Row]]:
    """Return some actions of ``featurise_record``: each one's id, the context's features, its own.

    Args:
        spec: the one that the record names.
        catalogue: the one that the record names.
        record: the decision.
        indices: places of the actions in the record.
    """
    # What all actions share is made once.
    shared = _shared(spec, record.context)
    ranked = (
        score_features(record.source_scores()) if SCORES in spec.use and record.scores else None
    )

    rows: list[tuple[str, Row, Row]] = []
    for index in indices:
        action_id = record.action_ids[index]
        row: list[Namespace] = []
        if ITEM in spec.use:
            row.append(Namespace(ITEM, np.array([hash_feature(ITEM, action_id)], np.uint32), _ONE))
        if FEATURES in spec.use:
            own = None if record.features is None else record.features[index]
            row.append(catalogue.one(action_id) if own is None else namespace_of(own, FEATURES))
        if ranked is not None:
            row.append(ranked.row(index))
        rows.append((action_id, shared, row))
    return rows


def rows_of_chosen(
    spec: PolicySpec,
    catalogue: ItemRows,
    data: bytes,
    starts: NDArray[np.int64],
    slots: NDArray[np.int64],
    rewards: Float64,
    learns: NDArray[np.bool_] | None = None,
) -> ChosenRows:
    """Return what ``chosen_rows`` does of many decisions at once, none of which is decoded.

    Args:
        spec: the one that the records name; it has nothing ``unseen``.
        catalogue: the one that the records name; it is asked for the rows of all at once.
        data: the bytes of valid records, as EncodedDecision has them.
        starts: int64[L], by row, where its record begins; rows of one record are side by side.
        slots: int64[L], by row, the slot that it is of.
        rewards: float64[L].
        learns: bool[L], see ChosenRows.
    """
    joined = np.frombuffer(data, np.uint8)
    found, propensities = find_chosen(joined, starts, slots)
    ids = [data[begin:end].decode() for begin, end in found[:, :2].tolist()]
    numbers = {action_id: number for number, action_id in enumerate(dict.fromkeys(ids))}

    # The longest text in a record is no longer than the record.
    longest = int(np.diff(np.append(starts, len(data))).max(initial=0))
    most = int(found[:, 3].max(initial=0))
    bounds, hashes, values = features_of_chosen(
        joined,
        found,
        np.array([name in spec.use for name in _SPACES], np.bool_),
        _SEEDS,
        catalogue.rows(ids),
        *catalogue.table,
        discounts_of_ranks(1 << most.bit_length()),
        longest,
    )
    return ChosenRows(
        list(numbers),
        np.fromiter(map(numbers.__getitem__, ids), np.int64, len(ids)),
        _SPACES,
        1,
        bounds,
        hashes,
        values,
        rewards,
        found[:, 4],
        propensities,
        learns,
        slots=slots,
    )


def score_features(scores: Mapping[str, Float32]) -> Namespace:
    """Return three columns per source: its score, its rank, and 1 if it scored.

    The rank is nDCG's discount 1 / log2(2 + rank). It counts the actions with a higher score, so
    ties share it. All three are 0 for an action the source did not score.
    """
    names = tuple(sorted(scores))
    matrix = np.stack([scores[name] for name in names])
    columns = columns_of_scores(matrix, discounts_of_ranks(matrix.shape[1]))
    return Namespace(SCORES, score_hashes(names), columns)


@lru_cache(maxsize=64)
def score_hashes(names: tuple[str, ...]) -> UInt32:
    """Return the hashes of the columns of ``score_features``; ``names``: the sources, sorted."""
    hashes: UInt32 = np.array(
        [hash_feature(SCORES, f"{name}.{kind}") for name in names for kind in SCORE_KINDS],
        np.uint32,
    )
    return frozen(hashes)


@lru_cache(maxsize=1024)
def discounts_of_ranks(count: int) -> Float64:
    """Return the discount of each rank from 0 to ``count``, float64[count + 1]."""
    discounts: Float64 = 1.0 / np.log2(2.0 + np.arange(count + 1))
    return frozen(discounts)


def _shared(spec: PolicySpec, context: FeatureMap) -> tuple[Namespace, ...]:
    """Return what the learner sees of a context."""
    if CONTEXT not in spec.use:
        return ()
    seen = without_private(context, spec.unseen)
    return (namespace_of(seen, CONTEXT),) if seen else ()


def _item_features(
    catalogue: Catalogue,
    ids: Sequence[str],
    features: Sequence[FeatureMap | None] | None,
    numbers: NumberTable | None,
) -> Namespace:
    """Return the request's features of an action that has any, and else the catalogue's."""
    if features is None:
        return catalogue.namespace(ids)

    # What is a table is encoded at once, to the same as below.
    numbers = numbers or numbers_alike(features)
    alike = None if numbers is None else rows_alike(numbers, FEATURES)
    if alike is not None:
        return alike

    names, codes, values = coded_rows(features)
    if all(each is not None for each in features):
        return Namespace(FEATURES, names, values, codes)

    # The catalogue's stand in columns of their own, behind the request's; 0 elsewhere is padding.
    known = catalogue.namespace(
        [action_id for action_id, own in zip(ids, features, strict=True) if own is None]
    )
    rows = np.flatnonzero([own is None for own in features])
    width = known.values.shape[1]
    wide, which = np.zeros((len(ids), width), np.float32), np.zeros((len(ids), width), np.intp)
    wide[rows] = known.values
    which[rows] = names.size + (np.arange(width) if known.codes is None else known.codes)
    return Namespace(
        FEATURES,
        np.concatenate([names, known.hashes]),
        np.concatenate([values, wide], axis=1),
        np.concatenate([codes, which], axis=1),
    )
