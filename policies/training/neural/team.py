"""The workers that fit a network together, as one of them sees them."""

from typing import Protocol

from torch import Tensor, nn


class Team(Protocol):
    """Workers that each see a part of every batch, and take the same steps.

    ``rank``: which of them this one is, from 0; ``size``: how many there are.
    """

    rank: int
    size: int

    def average(self, module: nn.Module, loss: Tensor) -> Tensor:
        """Make each worker's gradients the mean of all of theirs; return the mean of their losses.

        Args:
            module: this worker's copy of the network, with gradients.
            loss: this worker's, of its part of the batch.
        """
        ...

    def agreed(self, value: float) -> float:
        """Return the first worker's value.

        Args:
            value: this worker's.
        """
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def average(self, _module: nn.Module, loss: Tensor) -> Tensor:
        """Leave the gradients as they are."""
        return loss

    def agreed(self, value: float) -> float:
        """Return the value."""
        return value
