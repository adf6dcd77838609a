"""Items as vectors, made of their texts and vectors: also those that nobody has seen yet."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from bandits.errors import InvalidFieldError
from bandits.types import Float32
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.requests import Item
from policies.sources.live.encoders import load_encoder
from policies.sources.live.item_encoder import WORDS, ItemEncoder
from policies.sources.live.text_vectors import TextVectors, WordVectors, text_of
from policies.training.cf import Step
from policies.training.content.descriptions import ContentConfig, Descriptions
from policies.training.content.projection import choose_projection
from policies.training.content.text import fit_words

DRAWN: Final = 50_000
"""Items that are fitted on, drawn where there are more."""


def why_no_content(histories: Histories, said: Descriptions) -> str:
    """Return why nothing can be compared; empty if it can.

    Args:
        histories: who interacted with what.
        said: of the items.
    """
    if not said.text and not said.vectors:
        return "the items have no texts and no vectors"
    if not any(item in said.items for item in histories.items):
        return "no item with an event has a text or a vector"
    return ""


def fit_content(
    histories: Histories, said: Descriptions, config: ContentConfig, *, seed: int, step: Step
) -> TrainedSource:
    """Fit what makes vectors of the items' texts, and make those of the items with events.

    Args:
        histories: who interacted with what.
        said: of all items.
        config: see ContentConfig.
        seed: of the texts that are drawn.
        step: told when it is done.
    """
    arrays: dict[str, Any] = {}
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
    mean = _parts(made, said, _drawn(said, seed)).mean(axis=0)
    made = replace(made, mean=mean)
    arrays["mean"] = mean
    parts = _parts(made, said, histories.items)
    projection = choose_projection(parts - mean, histories, config, seed=seed)
    if projection is not None:
        made = replace(made, projection=projection)
        arrays["projection"] = projection

    vectors = np.zeros((len(histories.items), made.size), np.float32)
    for place, item_id in enumerate(histories.items):
        vector = _vector(made.of, said.items.get(item_id))
        if vector is not None:
            vectors[place] = vector
    step(1, 1)

    said_so = {"text": list(text), "encoder": config.encoder, "vectors": dict(said.vectors)}
    return TrainedSource("content", {**arrays, "vectors": vectors}, said_so)


def _parts(made: ItemEncoder, said: Descriptions, ids: Sequence[str]) -> Float32:
    """Return what is said of items, float32[n, parts]; zeros where nothing is."""
    parts = np.zeros((len(ids), made.parts_size), np.float32)
    for row, item_id in enumerate(ids):
        found = _vector(made.parts_of, said.items.get(item_id))
        if found is not None:
            parts[row] = found
    return parts


def _vector(of: Callable[[Item], Float32 | None], item: Item | None) -> Float32 | None:
    """Return a vector of an item, None if it has none, or one that is refused."""
    try:
        return None if item is None else of(item)
    except InvalidFieldError:
        return None


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
