"""The posterior mean of a ridge model as a sum of terms."""

from collections.abc import Mapping, Sequence

from bandits.features.columns import INTERCEPT
from bandits.features.namespaces import ITEM
from bandits.kernels.features import FNV_PRIME
from bandits.ridge.config import RidgeConfig
from bandits.ridge.payloads import RidgePayload, decode_struct, floats
from bandits.terms import NamedFeatures, ScoreTerm
from bandits.types import Snapshot

BIAS = "the item itself"
"""The name of an item's own bias, beside those of its features."""
_PRIME = int(FNV_PRIME)
_MASK = 2**32 - 1

_Row = tuple[str, int, float, int]
"""A feature: its label, its hash, its value, and its part in the hash of a pair that it begins."""


class RidgeTerms:
    """The terms of a snapshot's posterior means.

    A feature, or a pair, that the model never met has no term: its weight is 0.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        payload = decode_struct(snapshot.payload, RidgePayload)
        self._config: RidgeConfig = payload.config
        weights = floats(payload.weights, (len(payload.hashes),)).tolist()
        self._weights: Mapping[int, float] = dict(zip(payload.hashes, weights, strict=True))
        bias = floats(payload.bias, (len(payload.action_ids),)).tolist()
        self._bias: Mapping[str, float] = dict(zip(payload.action_ids, bias, strict=True))
        self._shared: tuple[NamedFeatures, list[_Row]] | None = None

    def of(self, action_id: str, features: Sequence[NamedFeatures]) -> list[ScoreTerm]:
        """Return the terms of an action's posterior mean; their products add up to it.

        Args:
            action_id: the action.
            features: the context's and its own, each namespace once.
        """
        terms: list[ScoreTerm] = []
        if self._config.intercept is not False:
            terms.append(((), 1.0, self._weights.get(INTERCEPT, 0.0)))
        if self._config.action_bias and action_id in self._bias:
            terms.append(((BIAS,), 1.0, self._bias[action_id]))

        weight_of = self._weights.get
        rows = {space.space: self._rows(space) for space in features}
        for name, row in rows.items():
            if name == ITEM and self._config.action_bias:
                continue  # its bias stands for it
            terms += [
                ((label,), value, weight)
                for label, hashed, value, _ in row
                if (weight := weight_of(hashed)) is not None
            ]
        for first, second in self._config.interactions:
            terms += self._pairs(rows.get(first, ()), rows.get(second, ()))
        return terms

    def _pairs(self, rows: Sequence[_Row], others: Sequence[_Row]) -> list[ScoreTerm]:
        """Return the terms of the pairs of some features with others."""
        weight_of = self._weights.get
        return [
            ((one, other), x * y, weight)
            for one, _, x, crossed in rows
            for other, hashed, y, _ in others
            if (weight := weight_of(crossed ^ hashed)) is not None
        ]

    def _rows(self, space: NamedFeatures) -> list[_Row]:
        """Return the rows of a namespace; what all actions share is asked for again and again."""
        if not space.shared:
            return _rows(space)
        if self._shared is None or self._shared[0] is not space:
            self._shared = space, _rows(space)
        return self._shared[1]


def _rows(space: NamedFeatures) -> list[_Row]:
    """Return the features that are there."""
    rows = zip(space.names, space.hashes.tolist(), space.values.tolist(), strict=True)
    return [
        (f"{space.space}.{name}", hashed, value, (hashed * _PRIME) & _MASK)
        for name, hashed, value in rows
        if value
    ]
