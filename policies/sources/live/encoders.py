"""Encoders of texts that a package ships with its weights: they need no training and no network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.sources.live.text_vectors import MOST_CHARACTERS, TextVectors, unit


class WordLlamaVectors:
    """The mean of the tokens' vectors (https://github.com/dleemiller/WordLlama)."""

    size = 256

    def __init__(self) -> None:
        import wordllama  # noqa: PLC0415 - an extra, and slow to import

        # Where it looks first it has no tokenizer: its folder has another name there.
        own = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(cache_dir=own, disable_download=True)

    def vector(self, text: str) -> Float32:
        """Return the vector of a text, float32[size] of length 1; zeros if it is empty."""
        if not text:
            return np.zeros(self.size, np.float32)
        found = np.asarray(self._model.embed([text[:MOST_CHARACTERS]])[0], np.float32)
        return unit(found)


ENCODERS: Final[Mapping[str, Callable[[], TextVectors]]] = {"wordllama": WordLlamaVectors}
"""By the name that a spec has, what makes it."""


def load_encoder(name: str) -> TextVectors:
    """Return an encoder of a package.

    Raises:
        ArtifactError: there is none of this name, or its package is not installed.
    """
    if name not in ENCODERS:
        raise ArtifactError(f"no encoder {name!r}: there is {', '.join(ENCODERS)}", "encoder")
    try:
        return ENCODERS[name]()
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"the encoder {name} needs a package: pip install 'banditloop[text]'", "encoder"
        ) from error
