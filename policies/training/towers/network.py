"""Two towers as a torch module, its loss, and how good it is."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.artifacts.fitted_with import Count, CountOrNone, NotNegative, Positive, Share, Size
from policies.training.towers.features import CodedFeatures
from policies.training.towers.past import Bags, PastItems, mean_ndcg


@dataclass(frozen=True, slots=True)
class TowersConfig:
    """Two towers and their fit.

    ``factors``: numbers of a vector, without its bias; ``hidden``: of each tower's hidden layer.
    A user is the last ``most`` items and the last ``recent`` of these; in a fit the next ``after``
    items belong to the first, too, since it matters little which of two came first. ``negatives``:
    items that are drawn evenly beside those of a batch. ``forget``: the part of the items that
    stand by their features alone in a step, as a new one does; ``dropout``: the part of a history,
    and of users' contexts, that is left out. It sees each event ``epochs`` times at most, and of
    many events fewer: ``budget`` in all. ``most_features``: different features of items, and of
    users, that are known. With more than ``max_items`` items it is not fitted.
    """

    factors: Size = 64
    hidden: Size = 128
    most: Size = 50
    recent: Size = 3
    after: CountOrNone = 50
    negatives: Size = 512
    forget: Share = 0.4
    dropout: Share = 0.5
    batch: Size = 512
    epochs: Count = 20
    patience: CountOrNone = 3
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    budget: Count = 6_000_000
    most_features: Count = 20_000
    max_items: Count = 300_000


class TowersModule(nn.Module):  # type: ignore[misc]
    """The parameters of both towers."""

    def __init__(
        self, config: TowersConfig, items: int, parts: int, features: tuple[int, int]
    ) -> None:
        super().__init__()
        size = config.factors
        self.own = nn.Parameter(torch.randn(items, size + 1) * 0.05)
        self.item_rows = nn.Parameter(torch.randn(features[0], size + 1) * 0.05)
        self.item_content = nn.Parameter(torch.randn(parts, size + 1) * 0.05)
        self.item_hidden = _hidden(size + 1, config.hidden, size + 1)
        self.user_rows = nn.Parameter(torch.randn(features[1], size) * 0.05)
        self.user_hidden = _hidden(3 * size, config.hidden, size)
        self.user_whole = nn.Parameter(torch.eye(size))
        self.user_latest = nn.Parameter(torch.zeros(size, size))


def _hidden(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(size_in, hidden), nn.ReLU(), nn.Linear(hidden, size_out))
    nn.init.zeros_(layers[2].weight)
    nn.init.zeros_(layers[2].bias)
    return layers


class TwoTowers:
    """Two towers that are fitted: see ``policies.training.towers.fit``.

    Args:
        config: see TowersConfig.
        past: what is trained on.
        items: features of the items.
        users: features of the users.
        described: float32[items, parts], vectors of texts and the like; zeros where there is none.
    """

    name = "towers"

    def __init__(
        self,
        config: TowersConfig,
        past: PastItems,
        items: CodedFeatures,
        users: CodedFeatures,
        described: Tensor,
    ) -> None:
        self._config, self.past = config, past
        self.items, self.users, self._described = items, users, described
        count = len(items.codes)
        self.module = TowersModule(
            config, count, described.shape[1], (len(items.hashes), len(users.hashes))
        )
        # Who has nothing but the own row cannot stand without it.
        self._can_forget = items.known | (described != 0).any(1)

        # How often each item is expected among those that a user's is told from.
        seen = np.bincount(past.items[past.rows], minlength=count)
        share = seen / max(1, seen.sum())
        self._share = torch.from_numpy(share.astype(np.float32))

    def item_vectors(self, items: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the vectors of items, float32[m, d + 1].

        Args:
            items: int64[m].
            kept: bool[m], whose own row counts; all, by default.
        """
        own = self.module.own[items]
        x = own if kept is None else own * kept[:, None]
        x = x + self.items.sums(self.module.item_rows, items)
        if self._described.shape[1]:
            x = x + self._described[items] @ self.module.item_content
        return x + self.module.item_hidden(x)

    def user_vectors(self, vectors: Tensor, bags: Bags, users: Tensor) -> Tensor:
        """Return the vectors of users, float32[b, d + 1].

        Args:
            vectors: float32[n, d + 1], of which the items of the histories are rows.
            bags: their histories.
            users: int64[b], who they are.
        """
        size = self._config.factors
        recent = (bags.back > 0) & (bags.back <= self._config.recent)
        whole, latest = (each.means(vectors[:, :size]) for each in (bags, bags.kept(recent)))

        told = self.users.sums(self.module.user_rows, users)
        if self.module.training:
            told = told * (torch.rand(len(told), 1) >= self._config.dropout)
        made = self.module.user_hidden(torch.cat([whole, latest, told], dim=1))
        made = made + told + whole @ self.module.user_whole + latest @ self.module.user_latest
        return torch.cat([made, torch.ones(len(made), 1)], dim=1)

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean loss of some rows, each counted by how strongly it speaks.

        Args:
            rows: int64[b], of those that are trained on.
        """
        at = self.past.rows[rows.numpy()]
        bags = self.past.around(at, self._config.most, self._config.after)
        wanted = torch.from_numpy(self.past.items[at])
        pool = torch.cat([wanted, torch.randint(len(self._share), (self._config.negatives,))])

        bags = bags.kept(torch.rand(len(bags.items)) >= self._config.dropout)

        # Each item that is met at all goes through its tower once.
        met, places = torch.unique(torch.cat([pool, bags.items]), return_inverse=True)
        kept = (torch.rand(len(met)) >= self._config.forget) | ~self._can_forget[met]
        vectors = self.item_vectors(met, kept)
        pooled, inside = places[: len(pool)], places[len(pool) :]
        users = self.user_vectors(
            vectors,
            Bags(inside, bags.weights, bags.starts, bags.back),
            torch.from_numpy(self.past.users[at]),
        )

        # An item stands in the pool as often as is expected, by its share and by the even draw.
        expected = len(rows) * self._share[pool] + self._config.negatives / len(self._share)
        logits = users @ vectors[pooled].T - torch.log(expected)
        twice = wanted[:, None] == pool[None, :]
        twice[torch.arange(len(rows)), torch.arange(len(rows))] = False
        logits = logits.masked_fill(twice, -torch.inf)
        losses = nn.functional.cross_entropy(logits, torch.arange(len(rows)), reduction="none")
        weights = torch.from_numpy(self.past.weights[at])
        return (losses * (weights / weights.sum())).sum()

    def quality(self) -> float:
        """Return nDCG@10 over all items, of the last items that were held out."""
        held: NDArray[np.int64] = self.past.held_out
        vectors = self.all_vectors()
        found, judged = 0.0, 0
        for at in np.array_split(held, -(-len(held) // 256)) if len(held) else []:
            bags = self.past.around(at, self._config.most)
            users = self.user_vectors(vectors, bags, torch.from_numpy(self.past.users[at]))
            everything = self.past.around(at, len(self.past.items))
            wanted = torch.from_numpy(self.past.items[at])
            found += mean_ndcg(users @ vectors.T, wanted, everything) * len(at)
            judged += len(at)
        return found / max(1, judged)

    def all_vectors(self) -> Tensor:
        """Return the vectors of all items, float32[items, d + 1]."""
        parts = torch.arange(len(self._share)).split(8192)
        return torch.cat([self.item_vectors(part) for part in parts])
