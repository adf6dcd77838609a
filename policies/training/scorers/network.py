"""The network of a scorer in torch; ``policies.sources.scorers.field_model`` serves it in numpy."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bandits.types import Float32
from policies.artifacts.fitted_with import Count, CountOrNone, NotNegative, Positive, Share, Size
from policies.sources.scorers.field_model import HISTORY_FIELDS
from policies.sources.scorers.vocabulary import dense
from policies.training.scorers.encoding import EncodedFeatures

CROSS_BYTES: Final = 2**28
"""Bytes of the columns of features that are crossed: of many items, fewer features are."""


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """A scorer's network and its fit.

    ``factors``: the size of the fields' vectors; ``pairs``: whether every two fields are
    multiplied; ``crosses``: the most features of an item that are crossed with those of the context
    and of the history; ``hidden``: the widths of the layers, none for a factorisation machine;
    ``history``: of how many of the newest items it is made; ``negatives``: items beside each that
    was taken, a half of them drawn by how popular they are, a half uniformly; ``forget``: the share
    of items that are shown without their id, and of contexts that are left out, so that the other
    features learn to do without.

    It sees each interaction ``epochs`` times, or less often if that were more than the ``budget``
    of interactions. The defaults are usual ones: no search chose them.
    """

    factors: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    pairs: bool = True
    crosses: CountOrNone = 0
    hidden: tuple[Size, ...] = ()
    history: Size = 50
    negatives: Size = 4
    forget: Share = 0.1
    dropout: Share = 0.0
    learning_rate: Positive = 3e-3
    weight_decay: NotNegative = 1e-6
    batch: Size = 1024
    epochs: Count = 20
    patience: CountOrNone = 5
    budget: Count = 6_000_000


@dataclass(frozen=True, slots=True, eq=False)
class WhoAsks:
    """Who asks, B of them: contexts and histories.

    ``user``: int64[B], rows of the contexts, -1 for none; ``places``: int64[B, h], items of the
    histories; ``weights``: float32[B, h], which add up to 1, or to 0 without a history; ``last``:
    int64[B], the newest item, -1 without a history.
    """

    user: Tensor
    places: Tensor
    weights: Tensor
    last: Tensor


class ScorerNetwork(nn.Module):  # type: ignore[misc]
    """See ``FieldModel``, which says what is computed.

    Args:
        items: the features of each item.
        contexts: of each user.
        config: see ScorerConfig.
    """

    def __init__(
        self, items: EncodedFeatures, contexts: EncodedFeatures, config: ScorerConfig
    ) -> None:
        super().__init__()
        count, factors = len(items.codes), config.factors
        self.factors, self.forget = factors, config.forget
        self.count = count
        self._features = _Table(items)
        self._contexts = _Table(contexts)

        # The last row of an item's own is that of one that was never seen.
        self.item_vectors = _vectors(count + 1, factors)
        self.history_vectors = _vectors(count, factors)
        self.last_vectors = _vectors(count, factors)
        self.feature_vectors = _vectors(len(items.vocabulary), factors)
        self.liked_vectors = _vectors(len(items.vocabulary), factors)
        self.context_vectors = _vectors(len(contexts.vocabulary), factors)
        self.item_linear = nn.Parameter(torch.zeros(count + 1))
        self.feature_linear = nn.Parameter(torch.zeros(len(items.vocabulary)))
        self.context_linear = nn.Parameter(torch.zeros(len(contexts.vocabulary)))
        self.bias = nn.Parameter(torch.zeros(1))
        self.pairs = config.pairs
        self._crossed = _Crossed(items, min(config.crosses, CROSS_BYTES // (4 * count)))
        self._said = _Crossed(contexts, config.crosses)
        shape = self._said.size + self._crossed.size, self._crossed.size
        self.cross_weights = nn.Parameter(torch.zeros(shape))

        fields = HISTORY_FIELDS + contexts.vocabulary.fields + 1 + items.vocabulary.fields
        widths = (fields * factors, *config.hidden, 1) if config.hidden else ()
        self.layers = nn.ModuleList(nn.Linear(above, below) for above, below in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)

    def start_from(self, counts: NDArray[np.float64]) -> None:
        """Begin with what is popular: each item's own weight is the log of how often it was taken.

        Args:
            counts: of each item, float64[items].
        """
        often = np.log((counts + 1.0) / (counts.mean() + 1.0))
        with torch.no_grad():
            self.item_linear[:-1] = torch.from_numpy(often.astype(np.float32))

    def forward(self, asked: WhoAsks, items: Tensor) -> Tensor:
        """Return the logits of some items for each of who asks, [B, K].

        Args:
            asked: B of them.
            items: int64[B, K].
        """
        told = asked.user >= 0
        if self.training and self.forget:
            told = told & (torch.rand(len(told)) >= self.forget)
        users, linear_of_user = self._users(asked, told)

        # Of the items each is looked at once, however many are offered it.
        distinct, which = torch.unique(items, return_inverse=True)
        fields, linear = self._items(distinct)
        total, of_user = fields.sum(dim=1), users.sum(dim=1)
        logits = linear[which] + (self.bias + linear_of_user)[:, None]
        if self.pairs:
            logits = logits + _pairs(total, fields)[which] + _pairs(of_user, users)[:, None]
            logits = logits + (total[which] @ of_user[:, :, None]).squeeze(2)
        if self._crossed.size:
            weights = self._asks(asked, told) @ self.cross_weights
            own = self._crossed.columns[distinct]
            logits = logits + (own[which] @ weights[:, :, None]).squeeze(2)
        if not len(self.layers):
            return logits

        # The first layer adds up what it has of who asks, and of each item.
        first = self.layers[0]
        split = users.shape[1] * self.factors
        of_users = users.flatten(1) @ first.weight[:, :split].T + first.bias
        of_items = fields.flatten(1) @ first.weight[:, split:].T
        inner = of_users[:, None] + of_items[which]
        for layer in self.layers[1:]:
            inner = layer(self.dropout(functional.relu(inner)))
        above: Tensor = logits + inner.squeeze(2)
        return above

    def _asks(self, asked: WhoAsks, told: Tensor) -> Tensor:
        """Return what is crossed of who asks: contexts, and the features of the history's items."""
        history = functional.embedding_bag(
            asked.places, self._crossed.columns, mode="sum", per_sample_weights=asked.weights
        )
        said = self._said.columns[asked.user.clamp(min=0)] * told[:, None]
        return torch.cat([said, history], dim=1)

    def _users(self, asked: WhoAsks, told: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fields' vectors of who asks, [B, fields, d], and what is linear in them."""
        places, distinct = asked.places, None
        if self.count > places.numel():
            distinct, places = torch.unique(places, return_inverse=True)
        history = functional.embedding_bag(
            places, self.remembered(distinct), mode="sum", per_sample_weights=asked.weights
        )
        last = self.last_vectors[asked.last.clamp(min=0)] * (asked.last >= 0)[:, None]
        rows = asked.user.clamp(min=0)
        fields, linear = self._contexts(rows, self.context_vectors, self.context_linear)
        fields = fields * told[:, None, None]
        return torch.cat([history[:, None], last[:, None], fields], dim=1), linear * told

    def _items(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fields' vectors of items, [n, fields, d], and what is linear in them, [n]."""
        own = items
        if self.training and self.forget:
            own = torch.where(torch.rand(len(items)) < self.forget, self.count, items)
        fields, linear = self._features(items, self.feature_vectors, self.feature_linear)
        fields = torch.cat([self.item_vectors[own][:, None], fields], dim=1)
        return fields, linear + self.item_linear[own]

    def remembered(self, items: Tensor | None = None) -> Tensor:
        """Return the vectors of items of a history, [n, d]: each one's own and its features'.

        Args:
            items: int64[n]; all by default.
        """
        rows = torch.arange(self.count) if items is None else items
        fields, _ = self._features(rows, self.liked_vectors, self.feature_linear)
        made: Tensor = self.history_vectors[rows] + fields.sum(dim=1)
        return made

    def crosses(self) -> dict[str, NDArray[np.int32]]:
        """Return which features are crossed, places in their vocabularies; none if none is."""
        if not self._crossed.size:
            return {}
        return {"crossed_features": self._crossed.chosen, "crossed_contexts": self._said.chosen}

    def arrays(self) -> dict[str, Float32]:
        """Return the parameters that are served."""
        found = {
            "bias": self.bias,
            "item_vectors": self.item_vectors,
            "item_linear": self.item_linear,
            "history_vectors": self.remembered(),
            "last_vectors": self.last_vectors,
            "feature_vectors": self.feature_vectors,
            "feature_linear": self.feature_linear,
            "context_vectors": self.context_vectors,
            "context_linear": self.context_linear,
        }
        if self._crossed.size:
            found["cross_weights"] = self.cross_weights
        for number, layer in enumerate(self.layers):
            found |= {f"weight_{number}": layer.weight.T, f"bias_{number}": layer.bias}
        return {
            name: np.ascontiguousarray(value.detach().numpy(), np.float32)
            for name, value in found.items()
        }


class _Crossed:
    """The features that are crossed, the most frequent ones, as columns of all rows."""

    def __init__(self, encoded: EncodedFeatures, most: int) -> None:
        size = len(encoded.vocabulary)
        used = np.bincount(encoded.codes[encoded.counts != 0], minlength=size)
        self.chosen = np.sort(np.argsort(-used, kind="stable")[:most]).astype(np.int32)
        self.size = len(self.chosen)
        columns = dense(encoded.codes, encoded.counts, self.chosen, size)
        self.columns = torch.from_numpy(columns)


class _Table:
    """The features of rows, field by field: what they add up to in a table of vectors."""

    def __init__(self, encoded: EncodedFeatures) -> None:
        self.fields = encoded.vocabulary.fields
        self._of = [_column(encoded, field) for field in range(self.fields)]

    def __call__(self, rows: Tensor, vectors: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[n, fields, d] and float32[n] of some rows, int64[n]."""
        found = [torch.zeros(len(rows), 0, vectors.shape[1])]
        total = torch.zeros(len(rows))
        for codes, counts in self._of:
            which, how = codes[rows], counts[rows]
            bag = functional.embedding_bag(which, vectors, mode="sum", per_sample_weights=how)
            found.append(bag[:, None])
            total = total + (linear[which] * how).sum(dim=1)
        return torch.cat(found, dim=1), total


def _column(encoded: EncodedFeatures, field: int) -> tuple[Tensor, Tensor]:
    """Return the codes and counts of one field, in as many columns as its longest row needs."""
    inside = (encoded.counts != 0) & (encoded.vocabulary.field[encoded.codes] == field)
    order = np.argsort(~inside, axis=1, kind="stable")[:, : int(inside.sum(axis=1).max(initial=0))]
    order = order if order.shape[1] else np.zeros((len(encoded.codes), 1), np.int64)
    counts = np.where(inside, encoded.counts, np.float32(0.0))
    return (
        torch.from_numpy(np.take_along_axis(encoded.codes, order, axis=1)),
        torch.from_numpy(np.take_along_axis(counts, order, axis=1)),
    )


def _pairs(total: Tensor, fields: Tensor) -> Tensor:
    pairs: Tensor = 0.5 * ((total * total).sum(dim=-1) - (fields * fields).sum(dim=(-2, -1)))
    return pairs


def _vectors(count: int, factors: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, factors) * 0.05)
