"""The features of a decision's actions by name, as a reader knows them."""

from collections.abc import Callable, Iterator

import numpy as np

from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES
from bandits.log.records import DecisionRecord
from bandits.terms import NamedFeatures
from bandits.values import FeatureMap
from policies.features import SCORE_KINDS, score_features
from policies.items.catalogue import Catalogue
from policies.requests import without_private
from policies.spec import PolicySpec

FeaturesOf = Callable[[str], FeatureMap | None]
"""From an item's id to its features by name, as far as they are known."""


class NamedDecision:
    """The features that a policy saw when it made a decision, by name."""

    def __init__(
        self,
        spec: PolicySpec,
        catalogue: Catalogue,
        record: DecisionRecord,
        features_of: FeaturesOf,
    ) -> None:
        """Name what all actions share.

        Args:
            spec: the one that the record names.
            catalogue: the one that the record names.
            record: the decision.
            features_of: the items' features by name. What it does not know of is told by its hash.
        """
        self._spec, self._catalogue, self._record = spec, catalogue, record
        self._features_of = features_of
        seen = without_private(record.context, spec.unseen)
        shows = CONTEXT in spec.use and bool(seen)
        self._shared = [_named(CONTEXT, seen, shared=True)] if shows else []

        scored = SCORES in spec.use and bool(record.scores)
        self._scores = score_features(record.source_scores()) if scored else None
        self._score_names = [
            f"{name}.{kind}" for name in sorted(record.scores) for kind in SCORE_KINDS
        ]

    def of(self, index: int) -> list[NamedFeatures]:
        """Return the features of an action, and the context's.

        Args:
            index: the action's place in the record.
        """
        action_id, record, own = self._record.action_ids[index], self._record, list(self._shared)
        if ITEM in self._spec.use:
            hashes = np.array([hash_feature(ITEM, action_id)], np.uint32)
            own.append(NamedFeatures(ITEM, [action_id], hashes, np.ones(1), shared=False))
        if FEATURES in self._spec.use:
            inline = None if record.features is None else record.features[index]
            own.append(
                self._of_catalogue(action_id)
                if inline is None
                else _named(FEATURES, inline, shared=False)
            )
        if self._scores is not None:
            row = self._scores.row(index)
            values = row.values.astype(np.float64)
            own.append(NamedFeatures(SCORES, self._score_names, row.hashes, values, shared=False))
        return own

    def _of_catalogue(self, action_id: str) -> NamedFeatures:
        """Return an item's features as of the record's catalogue; their names as of now."""
        found = self._catalogue.one(action_id)
        known = self._features_of(action_id) or {}
        names = {hash_feature(FEATURES, name): name for name, _ in named_pairs(known)}
        labels = [names.get(hashed, f"#{hashed:08x}") for hashed in found.hashes.tolist()]
        values = found.values.astype(np.float64)
        return NamedFeatures(FEATURES, labels, found.hashes, values, shared=False)


def named_pairs(features: FeatureMap) -> Iterator[tuple[str, float]]:
    """Yield (name, value) of each feature, as ``policies.encoding.hash_pairs`` hashes them."""
    for name, value in features.items():
        if isinstance(value, str):
            yield f"{name}={value}", 1.0
        elif isinstance(value, list):
            yield from ((f"{name}={text}", 1.0) for text in value)
        else:
            yield name, float(value)


def _named(space: str, features: FeatureMap, *, shared: bool) -> NamedFeatures:
    pairs = list(named_pairs(features))
    return NamedFeatures(
        space,
        [name for name, _ in pairs],
        np.array([hash_feature(space, name) for name, _ in pairs], np.uint32),
        # A policy sees them in float32.
        np.array([value for _, value in pairs], np.float32).astype(np.float64),
        shared=shared,
    )
