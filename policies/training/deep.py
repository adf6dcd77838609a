"""The multinomial autoencoder, fitted by torch.

Served by ``policies.sources.deep`` in numpy.

Liang, Krishnan, Hoffman & Jebara 2018, "Variational Autoencoders for Collaborative Filtering",
https://arxiv.org/abs/1802.05814; the denoising variant (their Mult-DAE).
"""

from dataclasses import asdict, dataclass
from typing import Final

import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from policies.artifacts.fitted_with import Count, NotNegative, Positive, Share, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import user_items
from policies.training.neural.loop import LoopConfig, fit_network, own_random_numbers
from policies.training.training_data import Course

LEAST_BATCHES: Final = 100
"""Batches that are shown whatever the budget."""


@dataclass(frozen=True, slots=True)
class DeepConfig:
    """The autoencoder and its fit.

    It sees each user ``epochs`` times; or less often, and the last time a part of them, if that
    many histories times items are more than the ``budget``. With more than ``max_items`` items it
    is not fitted: too much memory for too few batches. The defaults of the network and its steps
    were chosen on a validation part of MovieLens 100K (docs/benchmarks/sources.md).
    """

    hidden: Size = 200
    dropout: Share = 0.5
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    batch: Size = 128
    epochs: Count = 50
    budget: Count = 3_000_000_000
    max_items: Count = 100_000


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


def fit_deep(histories: Histories, config: DeepConfig, course: Course) -> TrainedSource:
    """Fit the autoencoder to predict each history from itself, corrupted.

    It minimises the multinomial negative log-likelihood (their equation 2).

    Args:
        histories: who interacted with what.
        config: see DeepConfig.
        course: how the fit is to go.
    """
    model = fit_autoencoder(user_items(histories), config, course)
    arrays = {
        "weight_0": model.encode.weight.detach().numpy().T,
        "bias_0": model.encode.bias.detach().numpy(),
        "weight_1": model.decode.weight.detach().numpy().T,
        "bias_1": model.decode.bias.detach().numpy(),
    }
    return TrainedSource("deep", arrays, asdict(config))


def fit_autoencoder(interactions: csr_matrix, config: DeepConfig, course: Course) -> Autoencoder:
    """Return a fitted model, in evaluation mode: the same for the same seed.

    Args:
        interactions: weights, float32[users, items]; only a batch of users is ever dense.
        config: see DeepConfig.
        course: how the fit is to go.
    """
    users, items = interactions.shape
    loop = LoopConfig(
        batch=config.batch,
        epochs=config.epochs,
        steps=max(LEAST_BATCHES, config.budget // (config.batch * items)),
        patience=0,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    with own_random_numbers(course.seed):
        network = _Denoising(Autoencoder(items, config), interactions)
    fit_network(network, users, loop, course)
    return network.module


class _Denoising:
    """The autoencoder while it is fitted to users' histories."""

    name = "deep"

    def __init__(self, module: Autoencoder, interactions: csr_matrix) -> None:
        self.module = module
        self._interactions = interactions

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean over users of what their histories are unlikely, [].

        Args:
            rows: int64[batch], users.
        """
        batch = torch.from_numpy(self._interactions[rows.numpy()].toarray())
        return -(functional.log_softmax(self.module(batch), dim=1) * batch).sum(dim=1).mean()

    def quality(self) -> float:
        """Return nothing of use: nobody asks, for it is fitted to the end."""
        return 0.0
