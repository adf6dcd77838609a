"""A recurrent network over a history, fitted by torch.

Served by ``policies.sources.sequence.gru4rec`` in numpy.

Hidasi, Karatzoglou, Baltrunas & Tikk 2016, "Session-based Recommendations with Recurrent Neural
Networks", https://arxiv.org/abs/1511.06939.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

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
class Gru4RecConfig(SequenceConfig):
    """A recurrent network and its fit; see SequenceConfig."""


class Gru4Rec(Body):
    """Gated recurrent units over the events, and a layer from their state to the user's vector."""

    def __init__(self, config: Gru4RecConfig) -> None:
        super().__init__()
        self.dropout = FastDropout(config.dropout)
        self.units = nn.GRU(config.factors, config.factors, batch_first=True)
        self.answer = nn.Linear(config.factors, config.factors)

    def forward(self, events: Tensor, there: Tensor) -> Tensor:
        """Return the user's vector after each event, float32[events, factors].

        Args:
            events: float32[events, factors], vectors of their items; histories one after the other,
                each oldest first.
            there: bool[n, longest], how many events each history has.
        """
        states, _ = self.units(side_by_side(self.dropout(events), there))
        after: Tensor = self.answer(self.dropout(states[there]))
        return after


def fit_gru4rec(histories: Histories, config: Gru4RecConfig, course: Course) -> TrainedSource:
    """Fit a recurrent network to predict each next item from those before it.

    Differs from the paper: the loss is a sampled softmax, not BPR or TOP1; an item has one vector,
    which goes in and is compared with what comes out; a user's history is one session, cut in
    windows that begin anew; and events count by their weights.

    Args:
        histories: who did what, and when.
        config: see Gru4RecConfig.
        course: how the fit is to go.
    """
    module = fit_next_item("gru4rec", histories, partial(Gru4Rec, config), config, course)
    arrays = gru4rec_arrays(module)
    blocks = blocks_of(arrays["vectors"], seed=course.seed)
    return TrainedSource("gru4rec", {**arrays, **blocks}, asdict(config))


def gru4rec_arrays(module: NextItem) -> dict[str, NDArray[Any]]:
    """Return what ``policies.sources.sequence.gru4rec`` reads.

    Args:
        module: a network whose body is Gru4Rec.
    """
    units, answer = module.body.units, module.body.answer
    arrays = {
        "vectors": module.vectors.weight,
        "item_weight": units.weight_ih_l0,
        "item_bias": units.bias_ih_l0,
        "state_weight": units.weight_hh_l0,
        "state_bias": units.bias_hh_l0,
        "answer_weight": answer.weight,
        "answer_bias": answer.bias,
    }
    return {name: array.detach().numpy() for name, array in arrays.items()}
