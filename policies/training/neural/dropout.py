"""Dropout that draws a byte for each number: on a CPU, torch's own spends its time drawing."""

import torch
from torch import Tensor, nn


class FastDropout(nn.Module):  # type: ignore[misc]
    """Dropout at a rate that is rounded to 1/256.

    Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html. What is left is raised,
    so that its mean stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = round(256 * rate)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the numbers; in training, some of them 0.

        Args:
            numbers: float32, of any shape.
        """
        if not self.training or not self.dropped:
            return numbers
        drawn = torch.empty(-(-numbers.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.uint8)[: numbers.numel()].view(numbers.shape) >= self.dropped
        return numbers * (kept * (256 / (256 - self.dropped)))
