"""Training of sources for an evaluation, and sources of an artifact that is evaluated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bandits.errors import ArtifactError
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.sources import model_of
from policies.training.histories import histories_of
from policies.typed_yaml import nearest
from simulator.ranking.asking import TrainedModels

if TYPE_CHECKING:
    from policies.training.fits import TrainConfig
    from policies.training.train import CheckpointsOf, MapTasks

SourceProgress = Callable[[str, int, int], None]


def train_on(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    *,
    sources: Sequence[str] | None = None,
    config: "TrainConfig | None" = None,
    contexts: Mapping[str, FeatureMap] | None = None,
    seed: int = 0,
    progress: SourceProgress | None = None,
    map_tasks: "MapTasks | None" = None,
    checkpoints: "CheckpointsOf | None" = None,
) -> TrainedModels:
    """Train sources on a part of a data set.

    Args:
        events: the part.
        items: the data set's items, ``{"id", "features"}``.
        sources: which; the usual ones by default. Those that the part is too small for are left
            out.
        config: what sources are fitted with; defaults that were measured.
        contexts: by user, what a caller will say of each with a request.
        seed: of all random numbers.
        progress: told of each source's steps.
        map_tasks: where sources are fitted; in this process by default.
        checkpoints: where long fits keep how far they have come.

    Raises:
        ArtifactError: a source is unknown, or none can be trained.
    """
    from policies.training.content.descriptions import describe  # noqa: PLC0415
    from policies.training.fits import EVERY, TrainConfig, choose_sources  # noqa: PLC0415 - torch
    from policies.training.train import run_training  # noqa: PLC0415
    from policies.training.training_data import TrainingData, features_of  # noqa: PLC0415

    fitted, left_out = sources, dict[str, str]()
    if sources is not None:
        # A part may be too small for what all events are enough for.
        config = config or TrainConfig()
        listed = tuple(items)
        data = TrainingData(
            histories_of(events), describe(listed, config.content), features_of(listed)
        )
        known = choose_sources([EVERY], data, config)[1]
        left_out = {name: known[name] for name in sources if name in known}
        fitted = [name for name in sources if name not in left_out] or sources

    run = run_training(
        events,
        items,
        sources=fitted,
        config=config,
        contexts=contexts,
        seed=seed,
        progress=progress,
        map_tasks=map_tasks,
        checkpoints=checkpoints,
    )
    notes = [f"{name} is left out: {why}" for name, why in {**run.left_out, **left_out}.items()]
    return replace(models_of(run.artifact), notes=tuple(notes))


def models_of(artifact: Artifact, sources: Sequence[str] | None = None) -> TrainedModels:
    """Return the sources of an artifact as they are served.

    Args:
        artifact: what training wrote.
        sources: which of its sources; all by default.

    Raises:
        ArtifactError: it has no source of a name.
    """
    items = artifact.items
    names = list(artifact.sources if sources is None else sources)
    for name in names:
        if name not in artifact.sources:
            raise ArtifactError(
                f"the artifact has no source {name!r}: {nearest(name, list(artifact.sources))}it"
                f" holds {', '.join(artifact.sources)}",
                "sources",
            )
    features = {item["id"]: item.get("features", {}) for item in artifact.catalogue}
    return TrainedModels(
        items,
        {name: model_of(artifact.sources[name], items, features) for name in names},
        {name: artifact.sources[name].scale for name in names},
        artifact=replace(artifact, sources={name: artifact.sources[name] for name in names}),
    )
