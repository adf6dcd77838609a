"""Descriptions of items in a catalogue, as sources are fitted on them. No scipy, no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from policies.artifacts.fitted_with import Count, NotNegative, Size
from policies.requests import Item
from policies.sources.live.item_encoder import WORDS, usual_sizes
from policies.sources.live.text_vectors import tell_apart, text_of


@dataclass(frozen=True, slots=True)
class ContentConfig:
    """The fields that items are compared by.

    ``text``: names of their metadata and features; None: all that are in words. ``encoder``:
    ``words``, which is fitted on these texts, or one that a package brings
    (docs/decisions/text_vectors.md). ``vectors``: names of their vectors; None: all. ``size``:
    numbers of a fitted text's vector; ``most_words``: words that it knows. ``factors`` and
    ``iterations`` of the ALS whose directions say what tells items apart; ``ridge``: how much the
    regression on these is held back. The defaults were chosen on the frozen shop.
    """

    text: tuple[str, ...] | None = None
    encoder: str = WORDS
    vectors: tuple[str, ...] | None = None
    size: Size = 128
    most_words: Count = 50_000
    factors: Size = 32
    iterations: Count = 5
    ridge: NotNegative = 3.0


class Descriptions(msgspec.Struct, frozen=True):
    """The texts and vectors that a catalogue has of its items.

    ``text``: names under which they say something in words, none if they have no texts but the
    names of categories, or none that tell items apart; ``vectors``: the length that most have, by
    name.
    """

    items: Mapping[str, Item]
    text: tuple[str, ...]
    vectors: Mapping[str, int]


def describe(catalogue: Sequence[Mapping[str, Any]], config: ContentConfig) -> Descriptions:
    """Return what is said of items.

    Args:
        catalogue: ``{"id", "features", "metadata"?, "vectors"?}`` each.
        config: what of it counts.
    """
    if not any(each.get("metadata") or each.get("vectors") for each in catalogue):
        return Descriptions({}, (), {})
    items = [msgspec.convert(each, Item) for each in catalogue]
    text = {name for item in items for name in item.metadata} if config.text is None else set()
    if text:
        text |= {
            name
            for item in items
            for name, value in item.features.items()
            if isinstance(value, str | list)
        }

    sizes: dict[str, Counter[int]] = {}
    for item in items:
        for name, vector in ({} if item.vectors is UNSET else item.vectors).items():
            if vector and (config.vectors is None or name in config.vectors):
                sizes.setdefault(name, Counter())[len(vector)] += 1
    names = tuple(sorted(text)) if config.text is None else config.text
    if config.encoder == WORDS and not tell_apart(text_of(item, names) for item in items):
        names = ()
    return Descriptions(
        {item.id: item for item in items},
        names,
        usual_sizes(dict(sorted(sizes.items()))),
    )
