"""Invented words: names of brands, categories and features of items. None means anything."""

import numpy as np

from simulator.worlds.frozen.chance import Chance

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "l", "n", "r", "s")
_SYLLABLES = len(_ONSETS) * len(_VOWELS) * len(_CODAS)


def invented_words(chance: Chance, count: int) -> list[str]:
    """Return different words of three syllables, the same for the same chance.

    Args:
        chance: What they are drawn from.
        count: How many.
    """
    words: dict[str, None] = {}
    batch = 0
    while len(words) < count:
        uniforms = chance.at(np.arange(count)[:, None], batch * 3 + np.arange(3))
        for row in (uniforms * _SYLLABLES).astype(np.int64).tolist():
            words["".join(map(_syllable, row))] = None
        batch += 1
    return list(words)[:count]


def _syllable(number: int) -> str:
    number, coda = divmod(number, len(_CODAS))
    onset, vowel = divmod(number, len(_VOWELS))
    return _ONSETS[onset] + _VOWELS[vowel] + _CODAS[coda]
