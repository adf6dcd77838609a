"""Texts as vectors: alike texts are near, and the same training gives the same bytes."""

import itertools

import numpy as np
import pytest

from policies.requests import Item
from policies.sources.live.text_vectors import (
    MOST_CHARACTERS,
    WordVectors,
    tell_apart,
    text_of,
    unit,
    words_of,
)
from policies.training.content.text import fit_words

SHOES = [f"red running shoes for men, size {n}" for n in range(40, 48)]
BOOKS = [f"a novel about love and war, volume {n}" for n in range(8)]


def fitted(size: int = 8, **options) -> WordVectors:
    found = fit_words([*SHOES, *BOOKS], **{"size": size, "most_words": 1000, "seed": 1} | options)
    assert found is not None
    return WordVectors(*found)


def test_texts_of_one_kind_are_nearer_than_texts_of_two():
    words = fitted()
    shoe, other, book = map(words.vector, ("Running shoes, blue", SHOES[0], BOOKS[0]))
    assert shoe @ other > 0.8
    assert abs(shoe @ book) < 0.3


def test_a_vector_has_length_1_or_is_zero_where_no_word_is_known():
    words = fitted()
    assert np.linalg.norm(words.vector("shoes")) == pytest.approx(1.0, abs=1e-6)
    for unknown in ("", "zzz qqq", "!!!"):
        assert not words.vector(unknown).any()


def test_case_and_punctuation_do_not_matter():
    words = fitted()
    np.testing.assert_array_equal(words.vector("Running SHOES!"), words.vector("running shoes"))


def test_the_same_texts_and_seed_give_the_same_bytes():
    one, two = (fit_words([*SHOES, *BOOKS], size=4, most_words=30, seed=3) for _ in range(2))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in two]
    assert one[0].size == 30
    assert one[1].shape == (30, 4)


@pytest.mark.parametrize("texts", [[], ["one text alone"], ["same words"] * 5, ["a b", "c d"]])
def test_texts_that_tell_nothing_apart_are_not_fitted(texts):
    assert fit_words(texts, size=4, most_words=10, seed=0) is None
    assert not tell_apart(texts)


def test_texts_that_share_a_word_that_another_lacks_are_told_apart():
    """Whichever comes first, also beside texts that are empty; no more is read than that takes."""
    texts = ["", "same words", "same words", "others", "same words"]
    assert tell_apart(texts)
    assert tell_apart(texts[::-1])
    endless = iter(lambda: "same words", None)
    assert tell_apart(itertools.chain(texts, endless))


def test_of_a_long_text_the_beginning_counts():
    assert len(words_of("a " * MOST_CHARACTERS)) == MOST_CHARACTERS // 2


def test_metadata_come_before_features_and_lists_are_words():
    item = Item("i", {"title": "no", "genres": ["drama", "war"], "price": 3.0}, {"title": "yes"})
    assert text_of(item, ["title", "genres", "price", "none"]) == "yes\ndrama\nwar"


def test_rows_are_scaled_one_by_one():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
