"""Training of sources for an evaluation, and sources of an artifact that is evaluated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.sources import load_model
from simulator.ranking.asking import TrainedModels

SourceProgress = Callable[[str, int, int], None]


def train_on(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    *,
    sources: Sequence[str] | None = None,
    seed: int = 0,
    progress: SourceProgress | None = None,
) -> TrainedModels:
    """Train sources on a part of a data set.

    Args:
        events: the part.
        items: the data set's items, ``{"id", "features"}``.
        sources: which; all by default.
        seed: of all random numbers.
        progress: told of each source's steps.
    """
    from policies.training.train import train_sources  # noqa: PLC0415 - torch

    return models_of(train_sources(events, items, sources=sources, seed=seed, progress=progress))


def models_of(artifact: Artifact, sources: Sequence[str] | None = None) -> TrainedModels:
    """Return the sources of an artifact as they are served."""
    items = artifact.items
    names = [name for name in artifact.sources if sources is None or name in sources]
    return TrainedModels(
        items,
        {name: load_model(artifact.sources[name], len(items)) for name in names},
        {name: artifact.sources[name].scale for name in names},
    )
