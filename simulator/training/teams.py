"""Networks that several workers of a Ray cluster fit together; other sources are tasks there.

Each worker has all of the data, and computes the gradients of its part of every batch. A fit whose
worker or node died begins again at its last checkpoint.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
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
            yield self._together(shared, name, _Reporter(task, name, progress))

    def _together(self, shared: Any, name: str, reporter: "_Reporter") -> TrainedSource:
        from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415
        from ray.train.v2.api.exceptions import TrainingFailedError  # noqa: PLC0415

        with tempfile.TemporaryDirectory(
            prefix="banditloop-team-", ignore_cleanup_errors=True
        ) as folder:
            trainer = TorchTrainer(
                _fit_in_team,
                train_loop_config={"task": shared, "name": name, "keeper": reporter.keeper},
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=ScalingConfig(num_workers=self._workers),
                run_config=RunConfig(
                    storage_path=folder, failure_config=FailureConfig(max_failures=MOST_FAILURES)
                ),
            )
            try:
                outcome = _fitted(trainer, reporter).return_value
            except TrainingFailedError as error:
                raise TrainingDiedError(
                    f"{self._workers} workers did not get {name} fitted in {MOST_FAILURES + 1}"
                    f" tries: {str(error).strip().splitlines()[-1]}",
                    name,
                ) from error

        if isinstance(outcome, BanditloopError):
            raise outcome
        return outcome  # type: ignore[no-any-return]


class _Reporter:
    """Asks how far a network's fit has come, and tells of it.

    Args:
        task: to fit the source; its checkpoints know.
        name: the source's.
        progress: whom to tell.
    """

    def __init__(self, task: SourceTask, name: str, progress: Progress) -> None:
        self.keeper = getattr(task.course.checkpoints, "keeper", None)
        self._name, self._progress = name, progress
        if self.keeper is not None:
            self.keeper.tell.remote(0, 0)

    def report(self) -> None:
        """Tell how far it is now."""
        import ray  # noqa: PLC0415

        if self.keeper is not None:
            done, total = ray.get(self.keeper.steps.remote())
            if total:
                self._progress(self._name, done, total)


def _fitted(trainer: Any, reporter: _Reporter) -> Any:
    """Return what came of a fit, and report how far it is meanwhile.

    It runs in a thread beside: in the main thread Ray Train would take Ctrl-C for itself, for as
    long as the process lives.

    Args:
        trainer: Ray's.
        reporter: of this fit.
    """
    outcome: Future[Any] = Future()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit())
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for it
            outcome.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    while not wait([outcome], TOLD_EVERY_S).done:
        reporter.report()
    return outcome.result()


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
