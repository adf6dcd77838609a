"""Which features a network was made for, in which columns: the same for training and for serving."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.codec import digest
from bandits.columns import INTERCEPT
from bandits.errors import SnapshotError
from bandits.hashing import hash_feature
from bandits.types import ActionSet, Context, Float64, Namespace, frozen

MAX_FEATURES = 4096
REMEMBERED = 1024
"""Arrays of feature names whose columns are remembered: requests of one kind have few."""


class FeatureSchema:
    """Columns of a decision's feature matrix: the intercept, then ``names``, (namespace, feature) pairs in order.

    A feature is named as it is hashed: a number by its own name, text as ``name=value`` (``policies.features``).
    ``digest`` names the schema: of another one, the weights of a network mean nothing.

    Raises:
        SnapshotError: a feature occurs twice, two share a hash, or there are more than MAX_FEATURES.
    """

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self.names = tuple((namespace, name) for namespace, name in names)
        hashes = [INTERCEPT, *(hash_feature(*pair) for pair in self.names)]
        if len(set(hashes)) != len(hashes) or len(hashes) > MAX_FEATURES:
            raise SnapshotError(f"a feature schema names at most {MAX_FEATURES - 1} features, each once", "features")
        self.digest = digest(msgspec.json.encode(self.names))[:16]
        self._namespaces = {namespace for namespace, _ in self.names}
        self._columns = {hashed: column for column, hashed in enumerate(hashes)}
        self._found = lru_cache(maxsize=REMEMBERED)(self._look_up)

    def __len__(self) -> int:
        return 1 + len(self.names)

    @classmethod
    def of(cls, **names: Sequence[str]) -> Self:
        """By namespace: ``FeatureSchema.of(context=["hour"], features=["topic=sport"], scores=["cf.score"])``."""
        return cls([(namespace, name) for namespace, listed in names.items() for name in listed])

    def matrix(self, context: Context, actions: ActionSet) -> Float64:
        """float64[K, d]: the features of every action; what the schema does not name is left out."""
        count, width = len(actions), len(self) + 1  # the last column is of all that has none
        rows = width * np.arange(count)[:, None]
        at = [rows]
        values = [np.ones((count, 1))]
        for namespace in (*context.namespaces, *actions.namespaces):
            if namespace.name in self._namespaces:
                columns = self._columns_of(namespace)
                at.append(rows + columns)
                values.append(np.broadcast_to(namespace.values, (count, columns.shape[-1])))
        flat = np.concatenate(at, axis=1).ravel()
        sums = np.bincount(flat, np.concatenate(values, axis=1).ravel(), count * width)
        return np.ascontiguousarray(sums.reshape(count, width)[:, :-1])

    def _columns_of(self, namespace: Namespace) -> NDArray[np.intp]:
        """Of each value: intp[n] or [K, n]."""
        found = self._found(namespace.hashes.tobytes()).reshape(namespace.hashes.shape)
        return found if namespace.codes is None else found[namespace.codes]

    def _look_up(self, hashes: bytes) -> NDArray[np.intp]:
        known = [self._columns.get(hashed, len(self)) for hashed in np.frombuffer(hashes, np.uint32).tolist()]
        return frozen(np.array(known, np.intp))
