"""The shop's items: what they are like, how popular they are, what is said of them, and when."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bandits.types import Float64
from bandits.values import FeatureMap
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.names import invented_words
from simulator.worlds.frozen.parameters import ShopParameters
from simulator.worlds.frozen.parts import Indexes, drawn_by_weight

FOR_EVER = 1 << 30
"""The day on which an item goes that does not sell out."""


@dataclass(frozen=True, slots=True, eq=False)
class ShopItems:
    """All items of a shop, by index; r dimensions of taste, C categories.

    Attributes:
        categories: int64[n].
        vectors: float64[n, r], what items are like; the variance of t . v is 1 for a standard
            normal taste t.
        centres: float64[C, r], what the categories explain of that.
        appeals: float64[n], how much all users like an item.
        popularity: float64[n], weights of how often items are looked at: Zipf's law.
        prices: float64[n].
        dearness: float64[n], standardised logarithm of the price within the category.
        first_days: int64[n], the day on which an item comes, from 0.
        last_days: int64[n], the day on which it is gone again, FOR_EVER if it stays.
        successors: int64[C], the category that is wanted after each.
        category_names: Names of the categories.
        brands: Names of the brands, by item.
        texts: Words of the items.
    """

    categories: Indexes
    vectors: Float64
    centres: Float64
    appeals: Float64
    popularity: Float64
    prices: Float64
    dearness: Float64
    first_days: Indexes
    last_days: Indexes
    successors: Indexes
    category_names: list[str]
    brands: list[str]
    texts: list[list[str]]

    def ids(self) -> list[str]:
        """Return the ids of the items."""
        return [f"i{at:05}" for at in range(len(self.categories))]

    def features(self) -> list[FeatureMap]:
        """Return what a caller would send of each item: category, brand, price and words."""
        # Logarithms, because models are linear.
        return [
            {"category": self.category_names[at], "brand": brand, "price": price, "text": text}
            for at, brand, price, text in zip(
                self.categories.tolist(),
                self.brands,
                np.log(self.prices).round(3).tolist(),
                self.texts,
                strict=True,
            )
        ]

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of items.csv but for the id and the days."""
        return {
            "category": [self.category_names[at] for at in self.categories.tolist()],
            "brand": self.brands,
            "price": [f"{price:.2f}" for price in self.prices.tolist()],
            "text": [" ".join(text) for text in self.texts],
        }


def items_of_shop(parameters: ShopParameters, seed: int) -> ShopItems:
    """Make the items of a shop.

    The most popular item of each category is on offer from the first day to the last.

    Args:
        parameters: The shop's parameters.
        seed: The shop's seed.
    """
    count, kinds, rank = parameters.items, parameters.categories, parameters.rank

    # Popularity: the k-th item of a random order has weight k to the power of minus `popularity`.
    order = Chance(seed, "popularity").order(count)
    places = np.empty(count)
    places[order] = np.arange(count) + 1.0
    fame = _standardised(-np.log(places))
    appeals = parameters.popular_appeal * fame + parameters.own_appeal * Chance(
        seed, "appeals"
    ).normals(count)

    # Every category has one of the most popular items; the others fall where they fall.
    sizes = np.exp(parameters.category_spread * Chance(seed, "category sizes").normals(kinds))
    categories = drawn_by_weight(sizes, Chance(seed, "categories").uniforms(count))
    anchors = order[:kinds]
    categories[anchors] = np.arange(kinds)

    share = parameters.category_share
    centres = np.sqrt(share / rank) * Chance(seed, "centres").normals(kinds, rank)
    own = np.sqrt((1.0 - share) / rank) * Chance(seed, "items").normals(count, rank)
    vectors = centres[categories] + own

    dearness = Chance(seed, "prices").normals(count)
    levels = parameters.category_price_spread * Chance(seed, "price levels").normals(kinds)
    prices = parameters.price * np.exp(levels[categories] + parameters.price_spread * dearness)

    first_days, last_days = _days_on_offer(parameters, seed, anchors)
    cycle = Chance(seed, "successors").order(kinds)
    successors = np.empty(kinds, np.int64)
    successors[cycle] = np.roll(cycle, -1)

    names = invented_words(Chance(seed, "words"), kinds + parameters.brands + _words(parameters))
    brand_names = names[kinds : kinds + parameters.brands]
    brands = (Chance(seed, "brands").uniforms(count) * parameters.brands).astype(np.int64)
    of_items = [brand_names[at] for at in brands.tolist()]
    words = names[kinds + parameters.brands :]
    texts = _texts(parameters, seed, categories, vectors, words)

    return ShopItems(
        categories=categories,
        vectors=vectors,
        centres=centres,
        appeals=appeals,
        popularity=places**-parameters.popularity,
        prices=np.maximum(prices.round(2), 0.01),
        dearness=dearness,
        first_days=first_days,
        last_days=last_days,
        successors=successors,
        category_names=names[:kinds],
        brands=of_items,
        texts=[[brand, *text] for brand, text in zip(of_items, texts, strict=True)],
    )


def _days_on_offer(
    parameters: ShopParameters, seed: int, anchors: Indexes
) -> tuple[Indexes, Indexes]:
    """Return int64[items] twice: the first day of each item, and the day on which it is gone."""
    count = parameters.items
    late, gone = (
        Chance(seed, purpose).uniforms(count) < share
        for purpose, share in (
            ("new items", parameters.new_share),
            ("sold out", parameters.sold_out_share),
        )
    )
    late[anchors] = gone[anchors] = False

    days = np.ceil(parameters.days)
    born = 1 + (Chance(seed, "first days").uniforms(count) * (days - 1)).astype(np.int64)
    first = np.where(late, born, 0)
    lives = -np.log(Chance(seed, "stock").uniforms(count)) * parameters.sold_out_days
    return first, np.where(gone, first + 1 + lives.astype(np.int64), FOR_EVER)


def _words(parameters: ShopParameters) -> int:
    """Return how many words a shop's texts are made of."""
    return (
        parameters.categories * parameters.category_words
        + 2 * parameters.rank * parameters.taste_words
        + parameters.other_words
    )


def _texts(
    parameters: ShopParameters, seed: int, categories: Indexes, vectors: Float64, words: list[str]
) -> list[list[str]]:
    """Return the words of every item, but for the brand.

    A word of taste is of one dimension, drawn with probability proportional to the square of the
    item's coordinate, and of the end on which the item is.
    """
    chance, shape = Chance(seed, "texts"), (len(categories), parameters.words)
    places = np.arange(np.prod(shape)).reshape(shape)
    kind, which, dimension_luck = (chance.at(places, at) for at in range(3))

    squares = np.cumsum(vectors**2, axis=1)
    target = dimension_luck * squares[:, -1:]
    dimensions = (target[:, :, None] > squares[:, None, :]).sum(axis=2)
    dimensions = np.minimum(dimensions, parameters.rank - 1)
    ends = np.take_along_axis(vectors, dimensions, axis=1) > 0

    # The list of words: those of categories, then those of tastes, then the others.
    of_category = categories[:, None] * parameters.category_words + (
        which * parameters.category_words
    ).astype(np.int64)
    first_taste = parameters.categories * parameters.category_words
    of_taste = (
        first_taste
        + (2 * dimensions + ends) * parameters.taste_words
        + (which * parameters.taste_words).astype(np.int64)
    )
    first_other = first_taste + 2 * parameters.rank * parameters.taste_words
    others = first_other + (which * parameters.other_words).astype(np.int64)

    chosen = np.where(
        kind < parameters.text_category,
        of_category,
        np.where(kind < parameters.text_category + parameters.text_taste, of_taste, others),
    )
    return [[words[at] for at in row] for row in chosen.tolist()]


def _standardised(values: Float64) -> Float64:
    """Return values with mean 0 and standard deviation 1; all 0 if there is one value."""
    spread = values.std()
    standardised: Float64 = (values - values.mean()) / (spread or 1.0)
    return standardised
