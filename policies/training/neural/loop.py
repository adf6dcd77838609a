"""The course of a network's fit: batches, early stopping, checkpoints, and what stops it.

The same rows and seed give the same bytes on one worker, also of a fit that was killed and went on.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bandits.errors import ArtifactError
from policies.training.neural.checkpoints import Arrays
from policies.training.neural.team import Alone, Team
from policies.training.training_data import Course


class Fittable(Protocol):
    """What is fitted: a module, the loss of rows, and how good it has become.

    Whatever a fit changes is a parameter or a buffer of the module, so that a checkpoint holds it.
    Chance is torch's: its random numbers begin anew with each epoch.
    """

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


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How a network is fitted, by Adam.

    ``batch``: rows of each step, of all workers together. It ends after ``epochs`` of them, or
    after so many ``steps`` (0: however many those are), or when it has not become better for
    ``patience`` epochs; what it was at its best is kept. With a patience of 0 nobody asks how good
    it is, and what it was last is kept. ``clip``: the length that gradients are cut to, 0 for none.
    """

    batch: int = 256
    epochs: int = 100
    steps: int = 0
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

    @property
    def metrics(self) -> dict[str, float]:
        """The same by name, as an artifact's manifest has it; no quality where nobody asked."""
        taken = {"epochs": float(self.epochs), "best_epoch": float(self.best)}
        return taken if math.isnan(self.quality) else {**taken, "quality": self.quality}


def fit_network(network: Fittable, rows: int, config: LoopConfig, course: Course) -> Fitted:
    """Fit a network, and leave it in evaluation mode as it was at its best.

    Args:
        network: what is fitted; its first parameters are drawn.
        rows: how many there are to train on.
        config: see LoopConfig.
        course: the seed, whom to tell of steps, where checkpoints are kept, and with whom it is
            fitted.

    Raises:
        ArtifactError: a loss is no number; it says of which batch. The last checkpoint is kept.
    """
    team, kept = course.team or Alone(), course.checkpoints
    batches = -(-rows // config.batch)
    steps = min(config.epochs * batches, config.steps or sys.maxsize)
    with one_thread(), own_random_numbers(course.seed):
        optimizer = torch.optim.Adam(
            network.module.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,  # one pass over each parameter: a third of the time
        )
        done = _Progress(_copied(network.module))
        if kept is not None and (state := kept.read(network.name)) is not None:
            done = _resumed(state, network, optimizer)

        taken = min(done.epoch * batches, steps)
        while taken < steps and (not config.patience or done.epoch - done.best < config.patience):
            network.module.train()
            order = _order(rows, course.seed, done.epoch).split(config.batch)
            torch.manual_seed(_drawn(course.seed, done.epoch, 1 + team.rank))
            for number, batch in enumerate(islice(order, steps - taken)):
                part, share = _part_of(batch, team)
                loss = network.loss(part) * share
                optimizer.zero_grad()
                loss.backward()
                _check(
                    team.average(network.module, loss), network.name, done.epoch, number, batches
                )
                if config.clip:
                    nn.utils.clip_grad_norm_(network.module.parameters(), config.clip)
                optimizer.step()
                taken += 1
                course.step(taken, steps)

            done.judge(network, team, asked=config.patience > 0)
            if kept is not None and team.rank == 0:
                last = taken == steps or done.epoch - done.best == config.patience > 0
                if last or kept.due(network.name):
                    kept.write(network.name, _state(network.module, optimizer, done))

    # A bar that stopped early is full all the same.
    course.step(steps, steps)
    network.module.load_state_dict(done.parameters)
    network.module.eval()
    return Fitted(done.epoch, done.best, done.quality)


@dataclass
class _Progress:
    """How far a fit has come, and the parameters at its best."""

    parameters: dict[str, Tensor]
    epoch: int = 0
    best: int = 0
    quality: float = -math.inf

    def judge(self, network: Fittable, team: Team, *, asked: bool) -> None:
        """Count an epoch; keep the parameters if they have never been better.

        Args:
            network: as it is now.
            team: those who fit it; the first of them judges.
            asked: whether it is judged, or whatever is last is best.

        Raises:
            ArtifactError: a parameter is no number.
        """
        network.module.eval()
        self.epoch += 1
        for parameter in network.module.parameters():
            if not torch.isfinite(parameter).all():
                raise _no_number(network.name, f"a parameter after epoch {self.epoch}")

        quality = math.nan
        if asked:
            with torch.no_grad():
                quality = team.agreed(network.quality() if team.rank == 0 else 0.0)
        if not asked or quality > self.quality:
            self.best, self.quality = self.epoch, quality
            self.parameters = _copied(network.module)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _drawn(*key: int) -> int:
    """Return a seed that follows from a key, and from no other."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _order(rows: int, seed: int, epoch: int) -> Tensor:
    """Return the rows in an epoch's order, int64[rows]: the same for every worker."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(_drawn(seed, epoch, 0)))


def _part_of(batch: Tensor, team: Team) -> tuple[Tensor, float]:
    """Return a worker's rows of a batch, and what their loss counts.

    The mean over the workers is the mean over the batch, also where parts differ in size. Whoever
    has no rows takes those of all, which then count nothing.
    """
    part = batch[team.rank :: team.size]
    return part if len(part) else batch, len(part) * team.size / len(batch)


def _check(loss: Tensor, name: str, epoch: int, number: int, batches: int) -> None:
    if not torch.isfinite(loss):
        raise _no_number(name, f"the loss of batch {number + 1} of {batches} in epoch {epoch + 1}")


def _no_number(name: str, what: str) -> ArtifactError:
    return ArtifactError(
        f"{name}: {what} is no number: lower learning_rate, or look for values in the data that"
        " are far too large",
        name,
    )


def _state(module: nn.Module, optimizer: torch.optim.Optimizer, done: _Progress) -> Arrays:
    """Return all that a fit goes on from."""
    state: dict[str, Any] = {
        "epoch": np.array(done.epoch),
        "best": np.array(done.best),
        "quality": np.array(done.quality),
    }
    for name, value in module.state_dict().items():
        state[f"module/{name}"] = value.numpy()
        state[f"best/{name}"] = done.parameters[name].numpy()
    for number, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            state[f"optimizer/{number}/{name}"] = value.numpy()
    return state


def _resumed(state: Arrays, network: Fittable, optimizer: torch.optim.Optimizer) -> _Progress:
    """Return how far a fit had come that was stopped, and make the network what it was then.

    Raises:
        ArtifactError: it is another network's.
    """

    def under(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): torch.from_numpy(np.array(value))
            for name, value in state.items()
            if name.startswith(prefix)
        }

    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer/").items():
        number, _, moment = name.partition("/")
        moments.setdefault(int(number), {})[moment] = value

    try:
        done = _Progress(
            under("best/"), int(state["epoch"]), int(state["best"]), float(state["quality"])
        )
        network.module.load_state_dict(done.parameters)  # it knows both by their shapes
        network.module.load_state_dict(under("module/"))
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"the checkpoint of {network.name} is another network's: delete it, and the fit begins"
            f" anew ({str(error).splitlines()[0]})",
            network.name,
        ) from error
    return done


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
