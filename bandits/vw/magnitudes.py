"""The largest number VW makes of a decision's features: too large, and it learns nothing."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from bandits.types import Row
from bandits.vw.accepted_arguments import KNOWN
from bandits.vw.arguments import read_arguments
from bandits.vw.weights import expand, first_byte

LARGEST = 1.8446743e19
"""The largest number, or product of numbers, whose square fits a 32-bit float (VW, ``gd.cc``).

Beyond it VW leaves every weight of the example as it is, and raises nothing.
"""


def largest(args: str, shared: Row, own: Row) -> tuple[float, str]:
    """Return the largest number that VW makes of these features, and the namespaces it is made of.

    Args:
        args: VW's argument string, whose interactions multiply features.
        shared: the features of a context.
        own: the features of an action.
    """
    most: dict[int, float] = {}
    names: dict[int, str] = {}
    for namespace in (*shared, *own):
        if namespace.values.size:
            letter = first_byte(namespace.name)
            most[letter] = max(most.get(letter, 0.0), float(abs(namespace.values).max()))
            names.setdefault(letter, namespace.name)

    alone = [bytes((letter,)) for letter in most]
    # No product of a letter is larger than that of its largest number.
    products = (*alone, *expand(_interactions(args), frozenset(most)))
    return max(
        (
            (prod(most[letter] for letter in each), " x ".join(names[letter] for letter in each))
            for each in products
        ),
        default=(0.0, ""),
    )


@lru_cache(maxsize=64)
def _interactions(args: str) -> tuple[bytes, ...]:
    options = read_arguments(args, KNOWN)
    given: Sequence[str] = [
        text for name in ("quadratic", "cubic", "interactions") for text in options.get(name, [])
    ]
    return tuple(text.encode() for text in given)
