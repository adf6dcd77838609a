"""Networks that several workers of a Ray cluster fit together; other sources are tasks there.

Each worker has all of the data, and computes the gradients of its part of every batch. A fit whose
worker or node died begins again at its last checkpoint.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from bandits.errors import ArtifactError, BanditloopError, TrainingDiedError
from policies.artifacts.source_artifact import TrainedSource
from policies.training.fits import FITS
from policies.training.train import Progress, SourceTask
from simulator.parallel import OnRay

MOST_FAILURES: Final = 5
"""Times that a fit is begun again: what fails more often has another cause than a lost node."""
TOLD_EVERY_S: Final = 0.5
"""Seconds between two reports of how far a fit has come."""


class TeamsOnRay:
    """A ``map`` of the task to fit sources over a Ray cluster.

    Args:
        on_ray: the cluster.
        workers: how many fit a network.

    Raises:
        ArtifactError: the cluster has fewer cores.
    """

    def __init__(self, on_ray: OnRay, workers: int) -> None:
        cores = on_ray.most_cores()
        if workers > cores:
            raise ArtifactError(
                f"{workers} workers need as many cores, and the cluster has {cores}: give --workers"
                f" {cores} or fewer, or the --address of a larger one",
                "workers",
            )
        self._on_ray = on_ray
        self._workers = workers

    def __call__(
        self, task: SourceTask, names: Sequence[str], progress: Progress
    ) -> Iterator[TrainedSource]:
        """Yield the fitted sources in the order of their names.

        Args:
            task: to fit a source.
            names: which.
            progress: told of the steps of networks.
        """
        others = self._on_ray(task, [name for name in names if not FITS[name].network])
        shared: Any = None
        for name in names:
            if not FITS[name].network:
                yield next(others)
                continue

            # Only now: the rest is done where the first of them waits.
            import ray  # noqa: PLC0415 - work on one core does without

            shared = shared or ray.put(task)
            keeper = getattr(task.course.checkpoints, "keeper", None)
            with _steps_told(name, keeper, progress):
                fitted = self._together(shared, name, keeper)
            yield fitted

    def _together(self, shared: Any, name: str, keeper: Any) -> TrainedSource:
        from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415
        from ray.train.v2.api.exceptions import TrainingFailedError  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="banditloop-team-") as folder:
            trainer = TorchTrainer(
                _fit_in_team,
                train_loop_config={"task": shared, "name": name, "keeper": keeper},
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=ScalingConfig(num_workers=self._workers),
                run_config=RunConfig(
                    storage_path=folder, failure_config=FailureConfig(max_failures=MOST_FAILURES)
                ),
            )
            try:
                outcome = trainer.fit().return_value
            except TrainingFailedError as error:
                raise TrainingDiedError(
                    f"{self._workers} workers did not get {name} fitted in {MOST_FAILURES + 1}"
                    f" tries: {str(error).strip().splitlines()[-1]}",
                    name,
                ) from error

        if isinstance(outcome, BanditloopError):
            raise outcome
        return outcome  # type: ignore[no-any-return]


@contextmanager
def _steps_told(name: str, keeper: Any, progress: Progress) -> Iterator[None]:
    """Report how far a fit has come, as long as this lasts.

    Args:
        name: the source's.
        keeper: the actor that is told of it; None: nobody is.
        progress: whom to tell.
    """
    import ray  # noqa: PLC0415

    if keeper is None:
        yield
        return
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(TOLD_EVERY_S):
            done, total = ray.get(keeper.steps.remote())
            if total:
                progress(name, done, total)

    ray.get(keeper.tell.remote(0, 0))
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


def _fit_in_team(asked: dict[str, Any]) -> TrainedSource | BanditloopError:
    """Fit a source as one of a team; what is wrong with the data is an answer, and not a failure.

    Args:
        asked: the task, the source's name, and the actor that is told of steps.
    """
    import ray  # noqa: PLC0415

    from simulator.training.gloo import GlooTeam  # noqa: PLC0415 - torch

    team, keeper, told = GlooTeam(), asked["keeper"], 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if team.rank == 0 and keeper is not None and time.monotonic() - told >= TOLD_EVERY_S:
            keeper.tell.remote(done, total)
            told = time.monotonic()

    task: SourceTask = ray.get(asked["task"])
    try:
        return replace(task, course=replace(task.course, team=team, step=tell))(asked["name"])
    except BanditloopError as error:
        return error
