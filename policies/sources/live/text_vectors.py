"""Texts as vectors: the words of each, weighed by how rare they are, in a few dimensions.

TF-IDF of hashed words and of the character n-grams in them, projected to the directions in which
the texts that training saw differ most: latent semantic analysis (Deerwester et al. 1990,
https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9), fitted by
``policies.training.content.text``. Here it takes numpy alone.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from bandits.types import Float32, UInt32
from policies.requests import Item

MOST_CHARACTERS: Final = 10_000
"""Characters of a text that are looked at."""
GRAM: Final = 4
"""Characters of an n-gram."""
MOST_REMEMBERED: Final = 100_000
"""Words whose rows are kept."""

_WORDS = re.compile(r"\w+")


class TextVectors(Protocol):
    """Makes vectors of texts."""

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        ...

    def vector(self, text: str) -> Float32:
        """Return the vector of a text, float32[size] of length 1; zeros if it says nothing."""
        ...


def words_of(text: str) -> list[str]:
    """Return the words of a text, of its first MOST_CHARACTERS, in lower case."""
    found: list[str] = _WORDS.findall(text[:MOST_CHARACTERS].casefold())
    return found


def word_hashes(word: str) -> Iterator[int]:
    """Yield a 32-bit hash of a word, and of each n-gram of a longer one."""
    marked = f"<{word}>"
    yield zlib.crc32(marked.encode(errors="replace"))
    if len(marked) > GRAM + 1:
        for at in range(len(marked) - GRAM + 1):
            yield zlib.crc32(marked[at : at + GRAM].encode(errors="replace"), 1)


def tell_apart(texts: Iterable[str]) -> bool:
    """Return whether a word, or an n-gram, is in two of the texts and not in all.

    Without one there is nothing to compare them by. It looks no further than it has to.
    """
    counts: Counter[int] = Counter()
    in_all: set[int] = set()
    for number, text in enumerate(filter(None, texts), 1):
        said = {each for word in words_of(text) for each in word_hashes(word)}
        counts.update(said)
        in_all |= {each for each in said if counts[each] > 1}
        if any(counts[each] < number for each in in_all):
            return True
    return False


class WordVectors:
    """The vector of a text is the sum of its words', each weighed by 1 + log(how often it occurs).

    Args:
        hashes: uint32[words], those that are known; all others count for nothing.
        rows: float32[words, size], the vector of each.
    """

    def __init__(self, hashes: UInt32, rows: Float32) -> None:
        self._places = {word: place for place, word in enumerate(hashes.tolist())}
        self._rows = rows
        self._known: dict[str, list[int]] = {}

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self._rows.shape[1])

    def vector(self, text: str) -> Float32:
        """Return the vector of a text, float32[size] of length 1; zeros if no word is known."""
        counts = Counter(place for word in words_of(text) for place in self._of(word))
        if not counts:
            return np.zeros(self.size, np.float32)
        times = np.fromiter(counts.values(), np.float32, len(counts))
        weights = (1.0 + np.log(times)).astype(np.float32)
        return unit(weights @ self._rows[list(counts)])

    def _of(self, word: str) -> list[int]:
        """Return the rows of a word and its n-grams; those of words that come often are kept."""
        known = self._known.get(word)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            hashes = word_hashes(word)
            known = [place for each in hashes if (place := self._places.get(each)) is not None]
            self._known[word] = known
        return known


def unit(vector: Float32) -> Float32:
    """Return a vector with length 1; zeros stay zeros.

    Args:
        vector: float32[..., d]; each row is one.
    """
    length = np.sqrt(np.vecdot(vector, vector))[..., None]
    scaled: Float32 = np.divide(vector, length, out=np.zeros_like(vector), where=length > 0)
    return scaled


def text_of(item: Item, names: Sequence[str]) -> str:
    """Return what an item says in words under some names: its metadata, else its features.

    Args:
        item: whose text it is.
        names: in the order in which they are read.
    """
    said = []
    for name in names:
        value = item.metadata.get(name, item.features.get(name))
        if isinstance(value, str):
            said.append(value)
        elif isinstance(value, list):
            said += value
    return "\n".join(said)
