"""A Vowpal Wabbit model's score as a sum of terms, where it is a plain sum of weights."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bandits.kernels.features import FNV_PRIME
from bandits.terms import NamedFeatures, ScoreTerm
from bandits.vw.weights import WeightScorer, expand, first_byte

_PRIME = int(FNV_PRIME)
_MASK = 2**32 - 1


class _Product(NamedTuple):
    """A feature, or the product of several; ``last``: where its last factor stands in VW's order.

    That order goes by letter; of one letter the action's features come before the context's.
    """

    labels: tuple[str, ...]
    hashed: int
    value: float
    last: tuple[int, bool, int]


class VwTerms:
    """The terms of the scores that weights give: minus VW's predicted costs."""

    def __init__(self, scorer: WeightScorer) -> None:
        self._scorer = scorer

    def of(self, action_id: str, features: Sequence[NamedFeatures]) -> list[ScoreTerm]:  # noqa: ARG002
        """Return the terms of an action's score; their products add up to it.

        Args:
            action_id: it stands among the features, where the policy uses it.
            features: the context's and its own, each namespace once.
        """
        alone = [each for space in features for each in _products(space)]
        found = [*alone]
        present = frozenset(each.last[0] for each in alone)
        for interaction in expand(self._scorer.plan.interactions, present):
            found += _crossed(interaction, alone)

        terms: list[ScoreTerm] = []
        if self._scorer.plan.constant:
            terms.append(((), 1.0, -self._scorer.constant))
        weighed = ((each, self._scorer.weight(each.hashed)) for each in found)
        terms += [(each.labels, each.value, -weight) for each, weight in weighed if weight]
        return terms


def _products(space: NamedFeatures) -> Iterator[_Product]:
    letter = first_byte(space.space)
    rows = zip(space.names, space.hashes.tolist(), space.values.tolist(), strict=True)
    for at, (name, hashed, value) in enumerate(rows):
        if value:
            yield _Product((f"{space.space}.{name}",), hashed, value, (letter, space.shared, at))


def _crossed(interaction: bytes, alone: Sequence[_Product]) -> list[_Product]:
    """Return the products of one interaction; where a letter stands twice, each once."""
    partial = [each for each in alone if each.last[0] == interaction[0]]
    for letter in interaction[1:]:
        partial = [
            _Product(
                (*one.labels, *other.labels),
                ((one.hashed * _PRIME) & _MASK) ^ other.hashed,
                one.value * other.value,
                other.last,
            )
            for one in partial
            for other in alone
            if other.last[0] == letter and (one.last[0] != letter or one.last <= other.last)
        ]
    return partial
