"""Which features a network was made for, in which columns: the same in training and in serving."""

from collections.abc import Sequence
from typing import Self

import msgspec

from bandits.errors import SnapshotError
from bandits.features.columns import INTERCEPT, FeatureIndex
from bandits.features.hashing import hash_feature
from bandits.log.codec import digest
from bandits.types import ActionSet, Context, Float64

MAX_FEATURES = 4096


class FeatureSchema:
    """The columns of a decision's feature matrix: the intercept, then (namespace, feature) pairs.

    A feature is named as it is hashed: a number by its own name, text as ``name=value``
    (``policies.features``). ``digest`` names the schema: of another one, the weights of a network
    mean nothing.

    Raises: SnapshotError: a feature occurs twice, two share a hash, or there are more than
        MAX_FEATURES.
    """

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self.names = tuple((namespace, name) for namespace, name in names)
        hashes = [INTERCEPT, *(hash_feature(*pair) for pair in self.names)]
        if len(set(hashes)) != len(hashes) or len(hashes) > MAX_FEATURES:
            raise SnapshotError(
                f"a feature schema names at most {MAX_FEATURES - 1} features, each once", "features"
            )
        self.digest = digest(msgspec.json.encode(self.names))[:16]
        self._index = FeatureIndex((), None, len(hashes), hashes)

    def __len__(self) -> int:
        return 1 + len(self.names)

    @classmethod
    def of(cls, **names: Sequence[str]) -> Self:
        """Name features by namespace: ``of(context=["hour"], scores=["cf.score"])``."""
        return cls([(namespace, name) for namespace, listed in names.items() for name in listed])

    def matrix(self, context: Context, actions: ActionSet) -> Float64:
        """Return every action's features, float64[K, d]; others than the schema's are left out.

        Args:
            context: features that stand in every row.
            actions: K of them, one a row.
        """
        _, features, _ = self._index.matrix(context, actions, dense=True)
        return features
