"""A team of workers that reach each other by torch.distributed."""

import torch
from torch import Tensor, distributed, nn


class GlooTeam:
    """The workers of this process's group, on whatever nodes.

    ``rank``: which of them this process is; ``size``: how many there are.
    """

    def __init__(self) -> None:
        self.rank: int = distributed.get_rank()
        self.size: int = distributed.get_world_size()

    def average(self, module: nn.Module, loss: Tensor) -> Tensor:
        """Make each worker's gradients the mean of all of theirs; return the mean of their losses.

        All of it is one message. A parameter without a gradient has one of zeros.

        Args:
            module: this worker's copy of the network, with gradients.
            loss: this worker's, of its part of the batch.
        """
        parameters = [each for each in module.parameters() if each.requires_grad]
        parts = [
            (torch.zeros_like(each) if each.grad is None else each.grad).reshape(-1)
            for each in parameters
        ]
        message = torch.cat([*parts, loss.detach().reshape(1)])
        distributed.all_reduce(message)
        message /= self.size

        *gradients, mean = message.split([*(len(part) for part in parts), 1])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return mean[0]

    def agreed(self, value: float) -> float:
        """Return the first worker's value.

        Args:
            value: this worker's.
        """
        said = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(said, src=0)
        return float(said)
