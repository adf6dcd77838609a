"""Self-attention over a history, fitted by torch.

Served by ``policies.sources.sequence.sasrec`` in numpy.

Kang & McAuley 2018, "Self-Attentive Sequential Recommendation", https://arxiv.org/abs/1808.09781.
"""

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bandits.errors import InvalidFieldError
from policies.artifacts.fitted_with import Positive, Share, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.blocks import blocks_of
from policies.training.neural.dropout import FastDropout
from policies.training.sequence.next_item import (
    Body,
    NextItem,
    SequenceConfig,
    fit_next_item,
    side_by_side,
)
from policies.training.training_data import Course


@dataclass(frozen=True, slots=True)
class SasRecConfig(SequenceConfig):
    """Self-attention and its fit; see SequenceConfig.

    ``blocks`` of attention, one upon the other, each of so many ``heads``, which divide
    ``factors``. More is dropped out than by default, which on little data measured much better, and
    steps are smaller and more.
    """

    dropout: Share = 0.5
    learning_rate: Positive = 1e-3
    batch: Size = 64
    blocks: Size = 1
    heads: Size = 1

    def __post_init__(self) -> None:
        """Refuse heads that cannot share the factors."""
        if self.factors % self.heads:
            raise InvalidFieldError(f"{self.heads} heads do not divide {self.factors}", "heads")


class SasRecBlock(nn.Module):  # type: ignore[misc]
    """Attention to the events up to each, then two layers for each by itself."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        size = config.factors
        self.heads = config.heads
        self.norm_attention, self.norm_layers = nn.LayerNorm(size), nn.LayerNorm(size)
        self.ask = nn.Linear(size, 3 * size)
        self.answer = nn.Linear(size, size)
        self.inner, self.outer = nn.Linear(size, size), nn.Linear(size, size)
        self.dropout = FastDropout(config.dropout)

    def forward(self, events: Tensor, there: Tensor) -> Tensor:
        """Return what each event has become, float32[events, factors].

        Args:
            events: float32[events, factors], histories one after the other.
            there: bool[n, longest], how many events each has.
        """
        asked = side_by_side(self.ask(self.norm_attention(events)), there)
        query, key, value = asked.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        found = found.transpose(1, 2).flatten(2)[there]
        events = events + self.dropout(self.answer(found))

        inner = torch.relu(self.inner(self.norm_layers(events)))
        become: Tensor = events + self.dropout(self.outer(inner))
        return become


class SasRec(Body):
    """Events with their places, counted from the newest, through blocks of attention."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.factors)
        # As large as an item's vector times the scale, so that order counts from the beginning.
        self.places = nn.Parameter(torch.randn(config.length, config.factors) * 0.2)
        self.blocks = nn.ModuleList(SasRecBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.factors)
        self.dropout = FastDropout(config.dropout)

    def forward(self, events: Tensor, there: Tensor) -> Tensor:
        """Return the user's vector after each event, float32[events, factors].

        Args:
            events: float32[events, factors], vectors of their items; histories one after the other,
                each oldest first.
            there: bool[n, longest], how many events each history has.
        """
        # An event's place is that in a row of full length, which the newest event ends.
        place = len(self.places) - there.sum(1, keepdim=True) + torch.arange(there.shape[1])
        become = self.dropout(events * self.scale + self.places[place[there]])
        for block in self.blocks:
            become = block(become, there)
        after: Tensor = self.norm(become)
        return after


def fit_sasrec(histories: Histories, config: SasRecConfig, course: Course) -> TrainedSource:
    """Fit self-attention to predict each next item from those before it.

    Differs from the paper: the loss is a sampled softmax with negatives shared by a batch, not the
    binary cross-entropy of one negative; a long history is cut in windows, all of which are trained
    on, not the last alone; layers are normalised before attention, keys and values too; attention
    itself drops nothing out; and events count by their weights.

    Args:
        histories: who did what, and when.
        config: see SasRecConfig.
        course: how the fit is to go.
    """
    module = fit_next_item("sasrec", histories, partial(SasRec, config), config, course)
    arrays = sasrec_arrays(module)
    blocks = blocks_of(arrays["vectors"], seed=course.seed)
    return TrainedSource("sasrec", {**arrays, **blocks}, asdict(config))


def sasrec_arrays(module: NextItem) -> dict[str, NDArray[Any]]:
    """Return what ``policies.sources.sequence.sasrec`` reads: of blocks, one row for each.

    Args:
        module: a network whose body is SasRec.
    """
    body = module.body
    arrays = {
        "vectors": module.vectors.weight,
        "places": body.places,
        "norm": torch.stack([body.norm.weight, body.norm.bias]),
    }
    for name in ("norm_attention", "ask", "answer", "norm_layers", "inner", "outer"):
        layers = [getattr(block, name) for block in body.blocks]
        arrays[f"{name}_weight"] = torch.stack([layer.weight for layer in layers])
        arrays[f"{name}_bias"] = torch.stack([layer.bias for layer in layers])
    return {name: array.detach().numpy() for name, array in arrays.items()}
