"""From a request, or from its record, to the features a policy sees. The same function serves both."""

from collections.abc import Mapping, Sequence

import numpy as np

from bandits.hashing import hash_feature
from bandits.records import DecisionRecord, FeatureMap
from bandits.types import ActionSet, Context, Float32, Namespace
from policies.catalogue import FEATURES, Catalogue, hash_map, hash_rows
from policies.spec import PolicySpec

CONTEXT, ITEM, SCORES = "context", "item", "scores"


def featurise(
    spec: PolicySpec,
    catalogue: Catalogue,
    context: FeatureMap,
    ids: Sequence[str],
    features: Sequence[FeatureMap | None] | None,
    scores: Mapping[str, Float32],
) -> tuple[Context, ActionSet]:
    """The context and the actions as hashed features.

    Namespaces: ``context`` (shared), ``item`` (the id), ``features`` (of the request, or else of the catalogue) and
    ``scores`` (per source: score, rank, presence).
    """
    actions: list[Namespace] = []
    if "item" in spec.use:
        hashes = np.fromiter((hash_feature(ITEM, action_id) for action_id in ids), np.uint32, len(ids))
        actions.append(Namespace(ITEM, hashes[:, None], np.ones((len(ids), 1), np.float32)))
    if "features" in spec.use:
        actions.append(Namespace(FEATURES, *_item_features(catalogue, ids, features)))
    if "scores" in spec.use and scores:
        actions.append(score_features(scores))
    shared: tuple[Namespace, ...] = ()
    if "context" in spec.use and context:
        pairs = hash_map(context, CONTEXT)
        shared = (
            Namespace(
                CONTEXT,
                np.array([hashed for hashed, _ in pairs], np.uint32),
                np.array([value for _, value in pairs], np.float32),
            ),
        )
    return Context(shared), ActionSet(tuple(ids), tuple(actions), scores)


def featurise_record(spec: PolicySpec, catalogue: Catalogue, record: DecisionRecord) -> tuple[Context, ActionSet]:
    """What the policy saw when it made this decision, rebuilt from its record."""
    return featurise(spec, catalogue, record.context, record.action_ids, record.features, record.source_scores())


def score_features(scores: Mapping[str, Float32]) -> Namespace:
    """Three columns per source: its score, its rank as the discount 1 / log2(2 + rank) of nDCG, and 1 if it scored.

    All are 0 for an action the source did not score. A rank counts the actions with a higher score, so ties share it.
    """
    names, columns = [], []
    for source in sorted(scores):
        values = scores[source]
        present = ~np.isnan(values)
        filled = np.where(present, values, np.float32(0.0))
        ordered = np.sort(values[present])
        rank = ordered.size - np.searchsorted(ordered, filled, side="right")
        discount = np.where(present, 1.0 / np.log2(2.0 + rank), 0.0)
        names += [f"{source}.score", f"{source}.rank", f"{source}.present"]
        columns += [filled, discount, present]
    hashes = np.array([hash_feature(SCORES, name) for name in names], np.uint32)
    return Namespace(SCORES, hashes, np.stack(columns, axis=1).astype(np.float32))


def _item_features(
    catalogue: Catalogue, ids: Sequence[str], features: Sequence[FeatureMap | None] | None
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint32]], Float32]:
    hashes, values = catalogue.features(ids)
    if features is None:
        return hashes, values
    own_hashes, own_values = hash_rows(features)
    given = np.array([each is not None for each in features])
    values = values * ~given[:, None]
    return np.concatenate([hashes, own_hashes], axis=1), np.concatenate([values, own_values], axis=1)
