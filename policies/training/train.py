"""From ratings to a source artifact: the same ratings and seed give the same bytes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact
from policies.training.histories import make_histories

try:
    from policies.training.fits import TrainConfig, choose_sources, fit_source
except ModuleNotFoundError as missing:
    raise ArtifactError(
        f"training needs {missing.name}: pip install 'banditloop[train]'"
    ) from missing

Progress = Callable[[str, int, int], None]
"""Told (source, steps done, steps in all)."""


def train_sources(
    ratings: NDArray[Any],
    items: Sequence[Mapping[str, Any]],
    *,
    sources: Sequence[str] | None = None,
    config: TrainConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Fit sources, by default every one that the ratings are enough for.

    Args:
        ratings: structured, with fields ``user``, ``item`` and ``rating`` (0 to 5) or ``weight``.
        items: the catalogue, ``{"id": str, "features": {…}}`` each.
        sources: their names; all that can be fitted, by default.
        config: what each source is fitted with; defaults that were measured.
        seed: of all random numbers.
        progress: told of each source's steps.

    Raises:
        ArtifactError: the ratings are not as described, or name an item the catalogue lacks; or a
            source that was named cannot be fitted on them.
    """
    config, say = config or TrainConfig(), progress or (lambda *_: None)
    histories = make_histories(ratings)
    catalogue = tuple(dict(item) for item in items)
    missing_items = set(histories.items) - {item["id"] for item in catalogue}
    if missing_items:
        raise ArtifactError(
            f"item {min(missing_items)!r} is rated, but not in the catalogue", "items"
        )

    names, _left_out = choose_sources(sources, histories, config)
    return Artifact(
        catalogue=catalogue,
        items=histories.items,
        sources={
            name: fit_source(name, histories, config, seed=seed, step=partial(say, name))
            for name in names
        },
        data=_digest(histories, catalogue),
        seed=seed,
        created_with={
            name: version(name) for name in ("implicit", "numpy", "safetensors", "torch")
        },
    )


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
