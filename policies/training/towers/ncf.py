"""Neural collaborative filtering, fitted by torch and served by ``policies.sources.towers``.

He, Liao, Zhang, Nie, Hu & Chua 2017, "Neural collaborative filtering",
https://arxiv.org/abs/1708.05031: GMF and an MLP together (their NeuMF, equation 12), by the binary
cross-entropy of each event and of some items that are drawn (equation 7).

Differs from the paper: a user has no vector of its own; it is the mean of vectors of what the
history holds, so that anybody with a history is known. The two parts are fitted together from the
start, and items have a bias.

Rendle, Krichene, Zhang & Anderson 2020, "Neural collaborative filtering vs. matrix factorization
revisited", https://arxiv.org/abs/2005.09683, found that a well-tuned dot product is better than the
MLP, and far cheaper to search. ``NcfConfig(hidden=())`` is that dot product, fitted in the same
way; docs/benchmarks/sources.md has both.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bandits.errors import InvalidFieldError
from policies.artifacts.fitted_with import Count, CountOrNone, NotNegative, Positive, Share, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.neural.loop import LoopConfig, fit_network, one_thread, own_random_numbers
from policies.training.towers.past import Bags, PastItems, mean_ndcg
from policies.training.training_data import Course

JUDGED_AT_ONCE = 20_000
"""Pairs of a user and an item that go through the layers at once when it is judged: what they
become stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class NcfConfig:
    """The network and its fit.

    ``factors``: numbers of the vectors whose product counts; ``wide``: of those that the layers
    see; ``hidden``: of the two layers, none for the product alone. A user is the last ``most``
    items, and in a fit the next ``after``, too, if they are known. ``negatives`` items are drawn
    beside each event; ``dropout``: the part of a history that is left out. It sees ``budget``
    events at most. With more than ``max_items`` items it is not fitted: a request goes through the
    layers with every one of them.
    """

    factors: Size = 32
    wide: Size = 32
    hidden: tuple[Size, ...] = (64, 32)
    most: Size = 50
    after: CountOrNone = 50
    negatives: Size = 4
    dropout: Share = 0.5
    batch: Size = 512
    epochs: Count = 20
    patience: CountOrNone = 20
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    budget: Count = 6_000_000
    max_items: Count = 20_000

    def __post_init__(self) -> None:
        """Refuse another number of layers."""
        if len(self.hidden) not in {0, 2}:
            raise InvalidFieldError(
                f"two layers, or none for the product alone, not {len(self.hidden)}", "hidden"
            )


class NcfModule(nn.Module):  # type: ignore[misc]
    """The parameters of NeuMF, with a history in the place of a user."""

    def __init__(self, config: NcfConfig, items: int) -> None:
        super().__init__()
        wide = config.wide if config.hidden else 0
        first, second = config.hidden or (0, 0)
        self.known = nn.Parameter(torch.randn(items, config.factors + wide) * 0.05)
        self.products = nn.Parameter(torch.randn(items, config.factors) * 0.05)
        self.bias = nn.Parameter(torch.zeros(items))
        self.layered = nn.Parameter(torch.randn(items, wide) * 0.05)
        self.user = nn.Parameter(torch.randn(wide, first) / max(1, wide) ** 0.5)
        self.item = nn.Parameter(torch.randn(wide, first) / max(1, wide) ** 0.5)
        self.first_bias = nn.Parameter(torch.zeros(first))
        self.second = nn.Parameter(torch.randn(first, second) / max(1, first) ** 0.5)
        self.second_bias = nn.Parameter(torch.zeros(second))
        self.last = nn.Parameter(torch.randn(second) / max(1, second) ** 0.5)

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Return logits, float32[b, c].

        Args:
            users: float32[b, factors + wide].
            items: int64[b, c], or int64[1, c] if all users meet the same.
        """
        factors = self.products.shape[1]
        if len(items) == 1:
            scores = users[:, :factors] @ self.products[items[0]].T + self.bias[items]
        else:
            scores = (self.products[items] * users[:, None, :factors]).sum(2) + self.bias[items]
        if not len(self.last):
            return scores
        told = users[:, factors:] @ self.user
        hidden = torch.relu(self.first(items) + told[:, None])
        hidden = torch.relu(hidden @ self.second + self.second_bias)
        return scores + hidden @ self.last

    def first(self, items: Tensor) -> Tensor:
        """Return the items' part of the first layer, float32[..., h]."""
        return self.layered[items] @ self.item + self.first_bias


class Ncf:
    """NeuMF that is fitted.

    Args:
        config: see NcfConfig.
        past: what is trained on.
        items: how many there are.
    """

    name = "ncf"

    def __init__(self, config: NcfConfig, past: PastItems, items: int) -> None:
        self._config, self.past, self._items = config, past, items
        self.module = NcfModule(config, items)

    def users(self, bags: Bags) -> Tensor:
        """Return users as the means of vectors of what their histories hold."""
        return bags.means(self.module.known)

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean loss of some rows, each with the items that are drawn beside it.

        Args:
            rows: int64[b], of those that are trained on.
        """
        at = self.past.rows[rows.numpy()]
        bags = self.past.around(at, self._config.most, self._config.after)
        bags = bags.kept(torch.rand(len(bags.items)) >= self._config.dropout)
        wanted = torch.from_numpy(self.past.items[at])[:, None]
        drawn = torch.randint(self._items, (len(at), self._config.negatives))

        scores = self.module.scores(self.users(bags), torch.cat([wanted, drawn], dim=1))
        labels = torch.zeros(scores.shape)
        labels[:, 0] = 1.0
        # What happens to be drawn that is wanted is no other item.
        counts = torch.cat([torch.ones(len(at), 1), (drawn != wanted).float()], dim=1)
        losses = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        counts *= torch.from_numpy(self.past.weights[at])[:, None]
        return (losses * (counts / counts.sum())).sum()

    def quality(self) -> float:
        """Return nDCG@10 over all items, of the last items that were held out."""
        held: NDArray[np.int64] = self.past.held_out
        if not len(held):
            return 0.0
        at_once, found = max(1, JUDGED_AT_ONCE // self._items), 0.0
        for at in np.array_split(held, -(-len(held) // at_once)):
            users = self.users(self.past.around(at, self._config.most))
            scores = self.module.scores(users, torch.arange(self._items)[None])
            everything = self.past.around(at, len(self.past.items))
            wanted = torch.from_numpy(self.past.items[at])
            found += mean_ndcg(scores, wanted, everything) * len(at)
        return found / len(held)


def fit_ncf(histories: Histories, config: NcfConfig, course: Course) -> TrainedSource:
    """Fit NeuMF.

    Args:
        histories: who interacted with what.
        config: see NcfConfig.
        course: how the fit is to go.
    """
    past = PastItems.of(histories, seed=course.seed)
    with own_random_numbers(course.seed):
        network = Ncf(config, past, len(histories.items))
    loop = LoopConfig(
        batch=config.batch,
        epochs=config.epochs,
        steps=max(1, config.budget // config.batch),
        patience=config.patience,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    gone = fit_network(network, len(past.rows), loop, course)
    with one_thread():
        arrays = ncf_arrays(network.module)
    return TrainedSource("ncf", arrays, asdict(config), metrics=gone.metrics)


def ncf_arrays(module: NcfModule) -> dict[str, Any]:
    """Return the arrays that serving reads.

    Args:
        module: a fitted one.
    """
    with torch.no_grad():
        tensors = {
            "known": module.known,
            "products": module.products,
            "bias": module.bias,
            "first": module.first(torch.arange(len(module.bias))),
            "user": module.user,
            "second": module.second,
            "second_bias": module.second_bias,
            "last": module.last,
        }
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
