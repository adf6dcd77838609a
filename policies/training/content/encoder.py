"""Fitting what makes vectors of texts and of items' own vectors, before tastes make anything of it.

Any source that wants items by what is said of them begins here: ``fit_encoder`` gives the encoder,
which also makes the vectors of items that come later, and the arrays that an artifact keeps of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.types import Float32
from policies.requests import Item
from policies.sources.live.encoders import load_encoder
from policies.sources.live.item_encoder import WORDS, ItemEncoder
from policies.sources.live.text_vectors import TextVectors, WordVectors, text_of
from policies.training.content.descriptions import ContentConfig, Descriptions
from policies.training.content.text import fit_words

DRAWN: Final = 50_000
"""Items that are fitted on, drawn where there are more."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedEncoder:
    """An encoder of items, and what a source keeps of it: ``ItemEncoder.load`` makes it again.

    ``arrays`` and ``config`` are parts of the source's own; ``encoder`` makes ``size`` numbers of
    an item, of length 1 and less the mean of all items.
    """

    encoder: ItemEncoder
    arrays: Mapping[str, NDArray[Any]]
    config: Mapping[str, Any]

    def vectors(self, said: Descriptions, ids: Sequence[str]) -> Float32:
        """Return the vectors of items, float32[n, size]; zeros where nothing is said.

        Args:
            said: of all items.
            ids: the n items.
        """
        return _rows(self.encoder.of, self.encoder.size, said, ids)


def fit_encoder(said: Descriptions, config: ContentConfig, *, seed: int) -> FittedEncoder:
    """Fit what makes vectors of items, without a look at what users did.

    Args:
        said: of all items.
        config: see ContentConfig.
        seed: of the texts that are drawn.
    """
    arrays: dict[str, NDArray[Any]] = {}
    encoder: TextVectors | None = None
    text = said.text
    if text and config.encoder == WORDS:
        fitted = fit_words(
            _texts(said, seed), size=config.size, most_words=config.most_words, seed=seed
        )
        if fitted is None:
            text = ()
        else:
            arrays["hashes"], arrays["rows"] = fitted
            encoder = WordVectors(*fitted)
    elif text:
        encoder = load_encoder(config.encoder)

    made = ItemEncoder(text, encoder, said.vectors)
    arrays["mean"] = parts_of(made, said, _drawn(said, seed)).mean(axis=0)
    said_so = {"text": list(text), "encoder": config.encoder, "vectors": dict(said.vectors)}
    return FittedEncoder(replace(made, mean=arrays["mean"]), arrays, said_so)


def item_vectors(
    said: Descriptions, ids: Sequence[str], config: ContentConfig, *, seed: int
) -> Float32:
    """Return items as vectors of what is said of them, float32[n, d]; zeros where nothing is.

    Args:
        said: of all items.
        ids: the n items.
        config: see ContentConfig.
        seed: of the texts that are drawn.
    """
    return fit_encoder(said, config, seed=seed).vectors(said, ids)


def parts_of(made: ItemEncoder, said: Descriptions, ids: Sequence[str]) -> Float32:
    """Return what is said of items, float32[n, parts]; zeros where nothing is.

    Args:
        made: makes the parts.
        said: of all items.
        ids: the n items.
    """
    return _rows(made.parts_of, made.parts_size, said, ids)


def _rows(
    of: Callable[[Item], Float32 | None], size: int, said: Descriptions, ids: Sequence[str]
) -> Float32:
    """Return a vector per item; zeros for one that has none, or one that is refused."""
    rows = np.zeros((len(ids), size), np.float32)
    for row, item_id in enumerate(ids):
        item = said.items.get(item_id)
        if item is None:
            continue
        try:
            found = of(item)
        except InvalidFieldError:
            continue
        if found is not None:
            rows[row] = found
    return rows


def _drawn(said: Descriptions, seed: int) -> list[str]:
    """Return the items that are fitted on, in the order of their ids."""
    ids = sorted(said.items)
    if len(ids) > DRAWN:
        drawn = np.random.default_rng(seed).choice(len(ids), DRAWN, replace=False)
        ids = [ids[at] for at in np.sort(drawn).tolist()]
    return ids


def _texts(said: Descriptions, seed: int) -> list[str]:
    """Return the texts that are fitted on."""
    texts = [text_of(said.items[item_id], said.text) for item_id in _drawn(said, seed)]
    return [text for text in texts if text]
