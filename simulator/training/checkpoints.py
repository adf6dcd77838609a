"""Checkpoints of fits whose workers are anywhere in a cluster, in a folder of whoever asked."""

import time
from pathlib import Path
from typing import Any

from policies.training.neural.checkpoints import EVERY_S, Arrays, FolderCheckpoints


class CheckpointKeeper(FolderCheckpoints):
    """The actor that has the folder of checkpoints; it also knows how far a fit has come."""

    _steps = (0, 0)

    def tell(self, done: int, total: int) -> None:
        """Take note of how far the fit has come.

        Args:
            done: its steps.
            total: how many there will be.
        """
        self._steps = (done, total)

    def steps(self) -> tuple[int, int]:
        """Return how far the fit has come, and how many steps there will be."""
        return self._steps


class RemoteCheckpoints:
    """The way to a folder on another machine: the nodes share no file system.

    Args:
        keeper: the actor, a ``CheckpointKeeper``.
    """

    def __init__(self, keeper: Any) -> None:
        self.keeper = keeper
        self._written = float("-inf")

    def due(self, _name: str) -> bool:
        """Return whether the last checkpoint is long enough ago for another."""
        return time.monotonic() - self._written >= EVERY_S

    def read(self, name: str) -> Arrays | None:
        """Return a network's last checkpoint, None if there is none.

        Args:
            name: the network's.

        Raises:
            ArtifactError: the file is damaged.
        """
        import ray  # noqa: PLC0415 - work on one core does without

        state: Arrays | None = ray.get(self.keeper.read.remote(name))
        return state

    def write(self, name: str, state: Arrays) -> None:
        """Keep a checkpoint in the place of the one before; it is there when this returns.

        Args:
            name: the network's.
            state: arrays, by name.
        """
        import ray  # noqa: PLC0415

        ray.get(self.keeper.write.remote(name, dict(state)))
        self._written = time.monotonic()


def checkpoints_on_ray(folder: Path, workers: int, digest: str) -> RemoteCheckpoints:
    """Return the way to a folder of this machine, for workers on any node of the cluster joined.

    Args:
        folder: where trainings keep their checkpoints.
        workers: how many fit a network together: another number finds other bytes.
        digest: of all else that a training depends on.
    """
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(CheckpointKeeper)
    keeper = actor.options(num_cpus=0, scheduling_strategy=here).remote(
        folder.absolute() / f"{digest}-{workers}", 0.0
    )
    return RemoteCheckpoints(keeper)
