"""The course of a network's fit: batches, early stopping, checkpoints, and what stops it.

The same rows and seed give the same bytes on one worker, also of a fit that was killed and went on.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bandits.errors import ArtifactError
from policies.training.neural.checkpoints import FitCheckpoints
from policies.training.training_data import Course

State = dict[str, Any]


class Fittable(Protocol):
    """What is fitted: a module, the loss of rows, and how good it has become."""

    name: str
    module: nn.Module

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean loss of some rows of what is trained on.

        Args:
            rows: int64[batch], their numbers.
        """
        ...

    def quality(self) -> float:
        """Return how good the module is on what was held out; higher is better.

        The module is in evaluation mode, and there are no gradients.
        """
        ...


class Team(Protocol):
    """The workers that fit a network together, as one of them sees them."""

    rank: int
    size: int

    def average(self, module: nn.Module) -> None:
        """Make each worker's gradients the mean of all of theirs."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def average(self, module: nn.Module) -> None:
        """Leave the gradients as they are."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How a network is fitted.

    ``batch``: rows of each step, of all workers together. It ends after ``epochs`` of them, or when
    it has not become better for ``patience``; what it was at its best is kept. ``clip``: the length
    that gradients are cut to, 0 for none.
    """

    batch: int = 256
    epochs: int = 100
    patience: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a fit went: ``epochs`` that it took, ``best`` of them, and its ``quality`` then."""

    epochs: int
    best: int
    quality: float


def fit_network(
    network: Fittable,
    rows: int,
    config: LoopConfig,
    course: Course,
    *,
    team: Team | None = None,
    checkpoints: FitCheckpoints | None = None,
) -> Fitted:
    """Fit a network, and leave it in evaluation mode as it was at its best.

    Args:
        network: what is fitted; its first parameters are drawn.
        rows: how many there are to train on.
        config: see LoopConfig.
        course: the seed, whom to tell of steps, and where checkpoints lie.
        team: those who fit it together; each sees a part of every batch.
        checkpoints: where they are kept, if not in the course's folder.

    Raises:
        ArtifactError: a loss is no number; it says of which batch. The last checkpoint is kept.
    """
    team = team or Alone()
    kept = checkpoints or FitCheckpoints.of(course.checkpoints, network.name)
    batches = -(-rows // config.batch)
    with one_thread(), own_random_numbers(course.seed):
        optimizer = torch.optim.Adam(
            network.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        done = _resumed(kept, network.module, optimizer)

        while done.epoch < config.epochs and done.epoch - done.best < config.patience:
            network.module.train()
            for number, batch in enumerate(torch.randperm(rows).split(config.batch)):
                loss = network.loss(_part_of(batch, team))
                _check(loss, network.name, done.epoch, number, batches)
                optimizer.zero_grad()
                loss.backward()
                team.average(network.module)
                if config.clip:
                    nn.utils.clip_grad_norm_(network.module.parameters(), config.clip)
                optimizer.step()
                course.step(done.epoch * batches + number + 1, config.epochs * batches)

            done.judge(network)
            if team.rank == 0:
                kept.write(_state(network.module, optimizer, done))

    # A bar that stopped early is full all the same.
    course.step(config.epochs * batches, config.epochs * batches)
    network.module.load_state_dict(done.parameters)
    network.module.eval()
    return Fitted(done.epoch, done.best, done.quality)


@dataclass
class _Progress:
    """How far a fit has come, and the parameters at its best."""

    parameters: State
    epoch: int = 0
    best: int = 0
    quality: float = -math.inf

    def judge(self, network: Fittable) -> None:
        """Count an epoch; keep the parameters if they have never been better."""
        network.module.eval()
        with torch.no_grad():
            quality = network.quality()
        self.epoch += 1
        if quality > self.quality:
            self.best, self.quality = self.epoch, quality
            self.parameters = _copied(network.module)


def _copied(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _part_of(batch: Tensor, team: Team) -> Tensor:
    """Return a worker's rows of a batch; of a batch too small for all, each gets a whole one."""
    part = batch[team.rank :: team.size]
    return part if len(part) else batch


def _check(loss: Tensor, name: str, epoch: int, number: int, batches: int) -> None:
    if not torch.isfinite(loss):
        raise ArtifactError(
            f"{name}: the loss of batch {number + 1} of {batches} in epoch {epoch + 1} is no"
            " number: lower learning_rate, or look for values in the data that are far too large",
            name,
        )


def _state(module: nn.Module, optimizer: torch.optim.Optimizer, done: _Progress) -> State:
    return {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "epoch": done.epoch,
        "best": done.best,
        "quality": done.quality,
        "parameters": done.parameters,
    }


def _resumed(
    kept: FitCheckpoints, module: nn.Module, optimizer: torch.optim.Optimizer
) -> _Progress:
    """Return how far a fit had come that was stopped, and go on from there."""
    state = kept.read()
    if state is None:
        return _Progress(_copied(module))
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return _Progress(state["parameters"], state["epoch"], state["best"], state["quality"])


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Draw from a seed; the caller's random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: sums have one order whatever the number of cores.

    For layers this small it is also faster than many.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
