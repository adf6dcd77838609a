"""From ratings to a source artifact: the same ratings and seed give the same bytes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.sources import load_model
from policies.training.histories import make_histories
from policies.training.popular import fit_popular

try:
    from policies.training.cf import AlsConfig, KnnConfig, fit_als, fit_item_knn
    from policies.training.deep import DeepConfig, fit_deep
except ModuleNotFoundError as missing:
    raise ArtifactError(
        f"training needs {missing.name}: pip install 'banditloop[train]'"
    ) from missing

Progress = Callable[[str, int, int], None]
"""Told (source, steps done, steps in all)."""

CALIBRATION_TOP = 50
"""Best candidates by user that scores are calibrated on: about as many as a request asks for."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The hyperparameters of each source."""

    als: AlsConfig = field(default_factory=AlsConfig)
    item_knn: KnnConfig = field(default_factory=KnnConfig)
    deep: DeepConfig = field(default_factory=DeepConfig)


def train_sources(
    ratings: NDArray[Any],
    items: Sequence[Mapping[str, Any]],
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Fit the sources ``als``, ``item_knn``, ``deep`` and ``popular``.

    Args:
        ratings: structured, with fields ``user``, ``item`` and ``rating`` (0 to 5) or ``weight``.
        items: the catalogue, ``{"id": str, "features": {…}}`` each.
        config: what each source is fitted with; defaults that were measured.
        seed: of all random numbers.
        progress: told of each source's steps.

    Raises:
        ArtifactError: the ratings are not as described, or name an item the catalogue lacks.
    """
    config, say = config or TrainConfig(), progress or (lambda *_: None)
    histories = make_histories(ratings)
    catalogue = tuple(dict(item) for item in items)
    missing_items = set(histories.items) - {item["id"] for item in catalogue}
    if missing_items:
        raise ArtifactError(
            f"item {min(missing_items)!r} is rated, but not in the catalogue", "items"
        )

    # A new kind of source is fitted here; policies.sources.local loads its model.
    fitted = {
        "als": fit_als(histories, config.als, seed=seed, step=partial(say, "als")),
        "item_knn": fit_item_knn(histories, config.item_knn, step=partial(say, "item_knn")),
        "deep": fit_deep(histories, config.deep, seed=seed, step=partial(say, "deep")),
        "popular": fit_popular(histories),
    }
    say("popular", 1, 1)

    return Artifact(
        catalogue=catalogue,
        items=histories.items,
        sources={
            name: replace(source, scale=calibrate(source, histories))
            for name, source in fitted.items()
        },
        data=_digest(histories, catalogue),
        seed=seed,
        created_with={
            name: version(name) for name in ("implicit", "numpy", "safetensors", "torch")
        },
    )


def calibrate(source: TrainedSource, histories: Histories) -> Calibration:
    """Return mean and standard deviation of the raw scores of every known user's best candidates.

    Args:
        source: what is calibrated.
        histories: what it was fitted on.
    """
    model = load_model(source, len(histories.items))
    best = []
    for user in range(len(histories.users)):
        indices, weights = histories.row(user)
        scores = model.raw(indices, weights).copy()
        scores[indices] = -np.inf
        best.append(np.sort(scores)[-CALIBRATION_TOP:])

    pooled = np.concatenate(best).astype(np.float64)
    pooled = pooled[np.isfinite(pooled) & (pooled > model.floor)]
    # Too few items, or all alike, are nothing to calibrate by.
    if pooled.size == 0 or pooled.std() == 0:
        return Calibration()
    return Calibration(float(pooled.mean()), float(pooled.std()))


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
