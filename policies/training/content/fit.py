"""Items as vectors, made of their texts and vectors: also those that nobody has seen yet."""

from dataclasses import replace

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import Step
from policies.training.content.descriptions import ContentConfig, Descriptions
from policies.training.content.encoder import fit_encoder, parts_of
from policies.training.content.projection import choose_projection


def why_no_content(histories: Histories, said: Descriptions) -> str:
    """Return why nothing can be compared; empty if it can.

    Args:
        histories: who interacted with what.
        said: of the items.
    """
    if not said.text and not said.vectors:
        return "the items have no vectors, and no texts that tell them apart"
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
    fitted = fit_encoder(said, config, seed=seed)
    parts = parts_of(fitted.encoder, said, histories.items)
    projection = choose_projection(parts - fitted.arrays["mean"], histories, config, seed=seed)
    if projection is not None:
        fitted = replace(
            fitted,
            encoder=replace(fitted.encoder, projection=projection),
            arrays={**fitted.arrays, "projection": projection},
        )
    vectors = fitted.vectors(said, histories.items)
    step(1, 1)
    return TrainedSource("content", {**fitted.arrays, "vectors": vectors}, fitted.config)
