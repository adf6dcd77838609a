"""The multinomial autoencoder, fitted by torch: its only importer.

Served by ``policies.sources.deep`` in numpy.

Liang, Krishnan, Hoffman & Jebara 2018, "Variational Autoencoders for Collaborative Filtering",
https://arxiv.org/abs/1802.05814; the denoising variant (their Mult-DAE).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource

Step = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DeepConfig:
    """The autoencoder and its fit.

    The defaults were chosen on a validation part of MovieLens 100K (docs/benchmarks/sources.md).
    """

    hidden: int = 200
    dropout: float = 0.5
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    batch: int = 128
    epochs: int = 50


class Autoencoder(nn.Module):  # type: ignore[misc]
    """Mult-DAE: unit length, dropout, tanh(W₀ x + b₀), W₁ h + b₁ = logits over items."""

    def __init__(self, n_items: int, config: DeepConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.encode = nn.Linear(n_items, config.hidden)
        self.decode = nn.Linear(config.hidden, n_items)
        for layer in (self.encode, self.decode):
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.001)

    def forward(self, histories: Tensor) -> Tensor:
        """Return logits [batch, items] for weight vectors [batch, items]."""
        logits: Tensor = self.decode(
            torch.tanh(self.encode(self.dropout(functional.normalize(histories))))
        )
        return logits


def fit_deep(histories: Histories, config: DeepConfig, *, seed: int, step: Step) -> TrainedSource:
    """Fit the autoencoder to predict each history from itself, corrupted.

    It minimises the multinomial negative log-likelihood (their equation 2).

    Args:
        histories: who interacted with what.
        config: see DeepConfig.
        seed: of all random numbers.
        step: told after each epoch.
    """
    model = fit_autoencoder(interaction_matrix(histories), config, seed=seed, step=step)
    arrays = {
        "weight_0": model.encode.weight.detach().numpy().T,
        "bias_0": model.encode.bias.detach().numpy(),
        "weight_1": model.decode.weight.detach().numpy().T,
        "bias_1": model.decode.bias.detach().numpy(),
    }
    return TrainedSource("deep", arrays, asdict(config))


def interaction_matrix(histories: Histories) -> Tensor:
    """Return the interaction weights, float32[users, items]."""
    matrix = np.zeros((len(histories.users), len(histories.items)), np.float32)
    matrix[
        np.repeat(np.arange(len(histories.users)), np.diff(histories.starts)), histories.indices
    ] = histories.weights
    return torch.from_numpy(matrix)


def fit_autoencoder(matrix: Tensor, config: DeepConfig, *, seed: int, step: Step) -> Autoencoder:
    """Return a fitted model, in evaluation mode: the same for the same seed.

    Args:
        matrix: interaction weights, float32[users, items].
        config: see DeepConfig.
        seed: of all random numbers, which are its own.
        step: told after each epoch.
    """
    # The caller's random numbers go on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        model = Autoencoder(matrix.shape[1], config)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

        for epoch in range(config.epochs):
            for rows in torch.randperm(len(matrix)).split(config.batch):
                batch = matrix[rows]
                loss = -(functional.log_softmax(model(batch), dim=1) * batch).sum(dim=1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            step(epoch + 1, config.epochs)
    model.eval()
    return model


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: sums have one order whatever the number of cores.

    For layers this small it is also faster than many.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
