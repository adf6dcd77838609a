"""The posterior mean of a ridge model as a sum of terms."""

from collections.abc import Mapping, Sequence
from itertools import product

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

    def of(self, action_id: str, features: Sequence[NamedFeatures]) -> list[ScoreTerm]:
        """Return the terms of an action's posterior mean; their products add up to it.

        Args:
            action_id: the action.
            features: the context's and its own, each namespace once.
        """
        terms = []
        if self._config.intercept is not False:
            terms.append(ScoreTerm((), 1.0, self._weights.get(INTERCEPT, 0.0)))
        if self._config.action_bias and action_id in self._bias:
            terms.append(ScoreTerm((BIAS,), 1.0, self._bias[action_id]))

        rows = {space.space: _rows(space) for space in features}
        for name, row in rows.items():
            if name == ITEM and self._config.action_bias:
                continue  # its bias stands for it
            terms += [
                ScoreTerm((label,), value, self._weights[hashed])
                for label, hashed, value in row
                if hashed in self._weights
            ]
        for first, second in self._config.interactions:
            for (one, a, x), (other, b, y) in product(rows.get(first, []), rows.get(second, [])):
                weight = self._weights.get(((a * _PRIME) & _MASK) ^ b)
                if weight is not None:
                    terms.append(ScoreTerm((one, other), x * y, weight))
        return terms


def _rows(space: NamedFeatures) -> list[tuple[str, int, float]]:
    """Return the features that are there: the label of each, its hash and its value."""
    rows = zip(space.names, space.hashes.tolist(), space.values.tolist(), strict=True)
    return [(f"{space.space}.{name}", hashed, value) for name, hashed, value in rows if value]
