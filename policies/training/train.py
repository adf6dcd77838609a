"""From events to a source artifact: the same events and seed give the same bytes."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from bandits.errors import ArtifactError
from bandits.values import FeatureMap
from policies.artifacts.fitted_with import FITTED_WITH, changes_of
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.data.coded import CodedEvents
from policies.training.content.descriptions import describe
from policies.training.fits import TrainConfig, choose_sources, fit_source
from policies.training.histories import histories_of
from policies.training.training_data import Course, FitCheckpoints, TrainingData, features_of

Progress = Callable[[str, int, int], None]
"""Told (source, steps done, steps in all)."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceTask:
    """The task to fit a source, given its name."""

    data: TrainingData
    config: TrainConfig
    course: Course

    def __call__(self, name: str) -> TrainedSource:
        """Return the source of a name, fitted.

        Args:
            name: one that can be fitted.
        """
        return fit_source(name, self.data, self.config, self.course)


MapTasks = Callable[[SourceTask, Sequence[str], Progress], Iterable[TrainedSource]]
"""A ``map`` of a task over names, in their order: over processes, or a cluster.

It may tell of the steps of what it fits elsewhere.
"""
CheckpointsOf = Callable[[str], FitCheckpoints]
"""Where a training keeps how far it has come, given a digest of all that it depends on."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """The sources that training made of events, as an artifact.

    ``histories``: who interacted with what, which what is known of users is made of; ``left_out``:
    why a source that was not asked for by name could not be fitted, by name.
    """

    artifact: Artifact
    histories: Histories
    left_out: Mapping[str, str]


PACKAGES: Final = ("implicit", "numpy", "safetensors", "torch")
"""Those that fit sources, whose versions an artifact names."""


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
    checkpoints: CheckpointsOf | None = None,
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
        checkpoints: where long fits keep how far they have come: a training that is begun again
            goes on from there.

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
    digest = _digest(histories, catalogue)
    course = Course(seed)
    if checkpoints is not None:
        course = replace(
            course, checkpoints=checkpoints(_training_digest(digest, data, config, seed))
        )
    if map_tasks is None:
        fitted = {
            name: fit_source(name, data, config, replace(course, step=partial(say, name)))
            for name in names
        }
    else:
        fitted = {}
        task = SourceTask(data, config, course)
        for name, source in zip(names, map_tasks(task, names, say), strict=True):
            fitted[name] = source
            say(name, 1, 1)

    made = {name: version(name) for name in PACKAGES}
    if changes := changes_of(config, names):
        made[FITTED_WITH] = msgspec.json.encode(changes, order="deterministic").decode()
    artifact = Artifact(
        catalogue=catalogue,
        items=histories.items,
        sources=fitted,
        data=digest,
        seed=seed,
        created_with=made,
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
            bars.update(tasks[source], completed=done, total=total)

        yield show


def _digest(histories: Histories, catalogue: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(catalogue, order="deterministic"))
    for array in histories.tensors().values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def _training_digest(digest: str, data: TrainingData, config: TrainConfig, seed: int) -> str:
    """Return a digest of all that a fit depends on, also of the packages that do it.

    Args:
        digest: of the histories and the catalogue.
        data: what is fitted on.
        config: the hyperparameters.
        seed: of all random numbers.
    """
    versions = {name: version(name) for name in (*PACKAGES, "banditloop")}
    times = data.histories.times
    when = "" if times is None else hashlib.sha256(times.tobytes()).hexdigest()
    told = (digest, when, data.contexts, config, seed, versions)
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:16]
