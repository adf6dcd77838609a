"""What makes vectors of items is the same after it was written, and knows items that come later."""

import numpy as np

from policies.artifacts.source_artifact import TrainedSource
from policies.requests import Item
from policies.sources.live.item_encoder import ItemEncoder
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.content.encoder import fit_encoder, item_vectors

CONFIG = ContentConfig(size=8)
WORDS = ("red shoe", "blue shoe", "red hat", "blue hat", "green scarf", "green shoe")
ITEMS = [{"id": f"i{at}", "metadata": {"title": words}} for at, words in enumerate(WORDS)]
IDS = [item["id"] for item in ITEMS]


def test_an_encoder_that_was_written_gives_the_same_bytes():
    said = describe(ITEMS, CONFIG)
    fitted = fit_encoder(said, CONFIG, seed=3)
    again = ItemEncoder.load(TrainedSource("towers", fitted.arrays, fitted.config))
    vectors = fitted.vectors(said, IDS)
    assert vectors.shape == (len(IDS), fitted.encoder.size)
    np.testing.assert_array_equal([again.of(said.items[each]) for each in IDS], vectors)
    np.testing.assert_array_equal(item_vectors(said, IDS, CONFIG, seed=3), vectors)


def test_an_item_that_comes_later_is_like_those_of_its_words():
    said = describe(ITEMS, CONFIG)
    fitted = fit_encoder(said, CONFIG, seed=0)
    late = fitted.encoder.of(Item("late", metadata={"title": "red shoe"}))
    assert late is not None
    assert int(np.argmax(fitted.vectors(said, IDS) @ late)) == 0


def test_what_is_said_of_nothing_or_cannot_be_compared_is_zeros():
    vectors = [{"image": [1.0, 0.0]}, {"image": [0.0, 1.0]}, {"image": [1.0]}, {}]
    items = [{"id": f"i{at}", "vectors": each} for at, each in enumerate(vectors)]
    made = item_vectors(describe(items, CONFIG), ["i0", "i1", "i2", "i3", "?"], CONFIG, seed=0)
    np.testing.assert_array_equal(made.any(axis=1), [True, True, False, False, False])
