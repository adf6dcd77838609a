"""A score as a sum: what each feature of an action, and each pair of them, adds to it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bandits.types import Float64, UInt32


class NamedFeatures(NamedTuple):
    """The features of one action in one namespace, by name.

    ``names``: n of them, as a reader knows them; ``hashes``: uint32[n]; ``values``: float64[n].
    ``shared``: whether they are the context's.
    """

    space: str
    names: Sequence[str]
    hashes: UInt32
    values: Float64
    shared: bool


ScoreTerm = tuple[tuple[str, ...], float, float]
"""A part of a score: its features, its value, its weight. There are many, so it is a plain tuple.

Whose it is, each as ``namespace.name``, none of a constant; the value of the feature, or the
product of those of several; how much one unit of it adds. What it adds is value times weight.
"""

TermsOf = Callable[[str, Sequence[NamedFeatures]], list[ScoreTerm]]
"""From an action's id and its features, the context's among them, to all terms of its score."""
