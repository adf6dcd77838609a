"""From events to a source artifact: the same events and seed give the same bytes."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from bandits.errors import ArtifactError
from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.data.coded import CodedEvents
from policies.training.content.descriptions import describe
from policies.training.fits import TrainConfig, choose_sources, fit_source
from policies.training.histories import histories_of
from policies.training.training_data import Course, TrainingData, features_of

Progress = Callable[[str, int, int], None]
"""Told (source, steps done, steps in all)."""
MapTasks = Callable[[Callable[[str], TrainedSource], Sequence[str]], Iterable[TrainedSource]]
"""A ``map``, in the order of its tasks: over processes, or a cluster."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """The sources that training made of events, as an artifact.

    ``histories``: who interacted with what, which what is known of users is made of; ``left_out``:
    why a source that was not asked for by name could not be fitted, by name.
    """

    artifact: Artifact
    histories: Histories
    left_out: Mapping[str, str]


def run_training(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    *,
    sources: Sequence[str] | None = None,
    config: TrainConfig | None = None,
    contexts: Mapping[str, FeatureMap] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    map_tasks: MapTasks | None = None,
    checkpoints: Path | None = None,
) -> TrainingRun:
    """Fit sources, and return them with what they were fitted on.

    Args:
        events: what users did; see ``policies.data``.
        items: the catalogue, ``{"id", "features", "metadata"?, "vectors"?}`` each.
        sources: their names; every usual one that the events are enough for, by default; see
            ``choose_sources``.
        config: what each source is fitted with; defaults that were measured.
        contexts: by user, what a caller will say of each with a request.
        seed: of all random numbers.
        progress: told of each source's steps.
        map_tasks: where sources are fitted; by default one after the other, in this process.
        checkpoints: the folder where long fits keep how far they have come; see ``Course``.

    Raises:
        ArtifactError: an item is not in the catalogue, or a source that was named cannot be fitted.
    """
    config, say = config or TrainConfig(), progress or (lambda *_: None)
    histories = histories_of(events)
    catalogue = tuple(dict(item) for item in items)
    missing_items = set(histories.items) - {item["id"] for item in catalogue}
    if missing_items:
        raise ArtifactError(
            f"item {min(missing_items)!r} has events, but is not in the catalogue", "items"
        )

    data = TrainingData(
        histories, describe(catalogue, config.content), features_of(catalogue), contexts or {}
    )
    names, left_out = choose_sources(sources, data, config)
    course = Course(seed, checkpoints=checkpoints)
    if map_tasks is None:
        fitted = {
            name: fit_source(name, data, config, replace(course, step=partial(say, name)))
            for name in names
        }
    else:
        fitted = {}
        # Nobody sees the steps of another process.
        fit = partial(fit_source, data=data, config=config, course=course)
        for name, source in zip(names, map_tasks(fit, names), strict=True):
            fitted[name] = source
            say(name, 1, 1)

    artifact = Artifact(
        catalogue=catalogue,
        items=histories.items,
        sources=fitted,
        data=_digest(histories, catalogue),
        seed=seed,
        created_with={
            name: version(name) for name in ("implicit", "numpy", "safetensors", "torch")
        },
    )
    return TrainingRun(artifact, histories, left_out)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show a bar per source, on a terminal."""
    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with ProgressBars(*columns) as bars:
        tasks: dict[str, Any] = {}

        def show(source: str, done: int, total: int) -> None:
            if source not in tasks:
                tasks[source] = bars.add_task(source, total=total)
            bars.update(tasks[source], completed=done)

        yield show


def _digest(histories: Histories, catalogue: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(catalogue, order="deterministic"))
    for array in histories.tensors().values():
        digest.update(array.tobytes())
    return digest.hexdigest()
