"""Where sources are fitted: in this process, in several, or on a Ray cluster."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from policies.artifacts.source_artifact import TrainedSource
from policies.training.neural.checkpoints import FolderCheckpoints
from policies.training.train import CheckpointsOf, MapTasks, SourceTask
from simulator.parallel import OnRay
from simulator.training.checkpoints import checkpoints_on_ray
from simulator.training.teams import TeamsOnRay


@dataclass(frozen=True, slots=True)
class Place:
    """Where sources are fitted, and where it is kept how far they have come.

    ``map_tasks``: None for this process, one after the other; ``checkpoints``: None for nowhere.
    """

    map_tasks: MapTasks | None = None
    checkpoints: CheckpointsOf | None = None


@contextmanager
def training_place(
    *,
    jobs: int = 1,
    workers: int = 1,
    address: str | None = None,
    checkpoints: Path | None = None,
) -> Iterator[Place]:
    """Yield where sources are fitted.

    Args:
        jobs: processes of this machine, each of which fits one source after the other.
        workers: how many fit each network together, on Ray.
        address: of the Ray cluster: ``local``, ``auto``, or HOST:PORT; None: only if there are
            workers, and then this machine's own.
        checkpoints: the folder for how far each training has come, of whatever data and seed.

    Raises:
        ArtifactError: the cluster has fewer cores than workers are wanted.
        ReplayError: no cluster answers there.
    """
    if workers > 1 or address is not None:
        on_ray = OnRay(address or "local")
        with tempfile.TemporaryDirectory(prefix="banditloop-fits-") as own:
            # A worker may die also where nobody wants to begin this training again.
            kept = partial(checkpoints_on_ray, checkpoints or Path(own), workers)
            yield Place(TeamsOnRay(on_ray, workers) if workers > 1 else _apart(on_ray), kept)
        return

    folder = None if checkpoints is None else partial(_in_folder, checkpoints)
    if jobs == 1:
        yield Place(None, folder)
        return
    # The same processes for all trainings: each takes seconds to import what fits sources.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield Place(_apart(pool.map), folder)


def _apart(map_names: Callable[[SourceTask, Sequence[str]], Iterable[TrainedSource]]) -> MapTasks:
    """Return a map that tells of no steps: nobody sees those of another process."""
    return lambda task, names, _progress: map_names(task, names)


def _in_folder(folder: Path, digest: str) -> FolderCheckpoints:
    return FolderCheckpoints(folder / digest)
