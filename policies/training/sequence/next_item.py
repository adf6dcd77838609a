"""A network that predicts each next item from those before it, whatever its body is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from policies.artifacts.fitted_with import Count, CountOrNone, Positive, Share, Size
from policies.artifacts.histories import Histories
from policies.training.neural.loop import LoopConfig, fit_network, own_random_numbers
from policies.training.sequence.order import in_order
from policies.training.sequence.stretches import Stretches, stretches_of
from policies.training.training_data import Course

LEAST_STEPS: Final = 100
"""Steps that are taken whatever the budget."""
SHARING: Final = 64
"""Next items that are told from the same others: as good as others of their own, and far faster."""
JUDGED_AT_ONCE: Final = 100
"""Users whose scores of all items are computed at once, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """A network of sequences and its fit.

    ``factors``: dimensions of items and users; ``length``: the events that it looks at, the newest.
    Each next item is told from ``negatives`` others that are drawn; from all items, if there are no
    more. ``held_out``: users, at most, whose last event says when it is good enough
    (``patience`` epochs without a better one; 0: nobody says). It sees each event ``epochs`` times;
    or less often, if that were more than ``budget`` events. With more than ``max_items`` items it
    is not fitted.
    """

    factors: Size = 64
    length: Size = 50
    negatives: Size = 256
    dropout: Share = 0.2
    learning_rate: Positive = 2e-3
    batch: Size = 128
    epochs: Count = 40
    patience: CountOrNone = 5
    held_out: CountOrNone = 1000
    budget: Count = 20_000_000
    max_items: Count = 200_000

    def memory(self, n_items: int) -> int:
        """Return the bytes that fitting vectors of so many items takes.

        Each has a gradient and two moments, and is kept as it was at its best.
        """
        return 5 * 4 * self.factors * n_items


class Body(nn.Module):  # type: ignore[misc]
    """What is between the vectors of a history's items and the user's."""

    def forward(self, events: Tensor, there: Tensor) -> Tensor:
        """Return the user's vector after each event, float32[events, factors].

        Args:
            events: float32[events, factors], vectors of their items; histories one after the other,
                each oldest first.
            there: bool[n, longest], how many events each history has.
        """
        raise NotImplementedError


def side_by_side(events: Tensor, there: Tensor) -> Tensor:
    """Return events as rows of their histories, float32[n, longest, d], filled up with 0.

    Args:
        events: float32[events, d], histories one after the other.
        there: bool[n, longest], how many events each history has.
    """
    at = there.flatten().nonzero()[:, 0]
    rows = events.new_zeros(there.numel(), events.shape[1]).index_copy(0, at, events)
    return rows.view(*there.shape, -1)


class NextItem(nn.Module):  # type: ignore[misc]
    """Vectors of items, and a body that makes a user's of them: their product is the score."""

    def __init__(self, n_items: int, body: Body, config: SequenceConfig) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_items, config.factors)
        # Larger ones take a fit longer to forget: measured in docs/benchmarks/sources.md.
        nn.init.normal_(self.vectors.weight, std=0.03)
        self.body = body

    def forward(self, items: Tensor, there: Tensor) -> Tensor:
        """Return the user's vector after each event, float32[events, factors].

        Args:
            items: int64[events], those of histories, one after the other, each oldest first.
            there: bool[n, longest], how many events each history has.
        """
        after: Tensor = self.body(self.vectors(items), there)
        return after


class NextItemFit:
    """The fit of such a network: sampled softmax over the next item, judged by nDCG@10."""

    def __init__(
        self, name: str, module: NextItem, windows: Stretches, config: SequenceConfig
    ) -> None:
        self.name = name
        self.module = module
        self._windows = windows
        self._config = config

        # Half of the others are drawn by how often they occur, half each alike.
        n_items = module.vectors.num_embeddings
        often = torch.bincount(windows.items, minlength=n_items) / windows.items.numel()
        by_events = config.negatives // 2
        alike = config.negatives - by_events
        self._log_expected = torch.log(by_events * often + alike / n_items)

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean negative log-probability of next items, by the weights of their events.

        Some events together are told from the same others. Each of these stands for the more the
        more rarely it is drawn: its logit is lowered by the log of how often it is expected.

        Args:
            rows: int64[batch], numbers of windows.
        """
        windows, vectors = self._windows, self.module.vectors
        at, there = windows.events(windows.starts[rows], windows.stops[rows] - 1)
        users = self.module(windows.items[at], there)
        right, weights = windows.items[at + 1], windows.weights[at + 1]

        if self._config.negatives >= vectors.num_embeddings:
            losses = nn.functional.cross_entropy(users @ vectors.weight.T, right, reduction="none")
        else:
            losses = self._sampled(users, right)
        return (losses * weights).sum() / weights.sum()

    def _sampled(self, users: Tensor, right: Tensor) -> Tensor:
        """Return the negative log-probability of each next item among some others, float32[n]."""
        windows, vectors, drawn = self._windows, self.module.vectors, self._config.negatives
        groups = -(-len(users) // SHARING)
        by_events = windows.items[torch.randint(windows.items.numel(), (groups, drawn // 2))]
        alike = torch.randint(vectors.num_embeddings, (groups, drawn - drawn // 2))
        others = torch.cat([by_events, alike], dim=1)

        lacking = groups * SHARING - len(users)
        of_groups = nn.functional.pad(users, (0, 0, 0, lacking)).view(groups, SHARING, -1)
        right_of = nn.functional.pad(right, (0, lacking)).view(groups, SHARING, 1)
        against = torch.baddbmm(
            -self._log_expected[others][:, None], of_groups, vectors(others).transpose(1, 2)
        )
        against = against.masked_fill(right_of == others[:, None], -math.inf)
        rest = against.logsumexp(2).flatten()[: len(users)]
        score = (users * vectors(right)).sum(1)
        losses: Tensor = torch.logaddexp(score, rest) - score
        return losses

    def quality(self) -> float:
        """Return the mean nDCG@10 of the events held out, among all items not in the history."""
        windows, found = self._windows, []
        parts = zip(
            windows.first.split(JUDGED_AT_ONCE), windows.judged.split(JUDGED_AT_ONCE), strict=True
        )
        for first, judged in parts:
            newest = torch.maximum(first, judged - self._config.length)
            at, there = windows.events(newest, judged)
            users = self.module(windows.items[at], there)[there.sum(1).cumsum(0) - 1]
            scores = users @ self.module.vectors.weight.T

            right = scores.gather(1, windows.items[judged][:, None])
            history, there = windows.events(first, judged)
            scores[there.nonzero()[:, 0], windows.items[history]] = -math.inf
            rank = (scores >= right).sum(1).clamp(min=1)
            found.append(torch.where(rank <= 10, 1 / torch.log2(1 + rank), 0))
        return float(torch.cat(found).mean()) if found else 0.0


def fit_next_item(
    name: str,
    histories: Histories,
    body: Callable[[], Body],
    config: SequenceConfig,
    course: Course,
) -> NextItem:
    """Return a fitted network, in evaluation mode.

    Args:
        name: of the source.
        histories: who did what, and when.
        body: makes the network's.
        config: see SequenceConfig.
        course: how the fit is to go.
    """
    events = in_order(histories)
    held_out = config.held_out if config.patience else 0
    windows = stretches_of(events, config.length, held_out, seed=course.seed)
    with own_random_numbers(course.seed):
        module = NextItem(len(histories.items), body(), config)

    rows = len(windows.starts)
    batches = -(-rows // config.batch)
    fit_network(
        NextItemFit(name, module, windows, config),
        rows,
        LoopConfig(
            batch=config.batch,
            epochs=config.epochs,
            steps=max(LEAST_STEPS, config.budget * batches // max(1, events.items.size)),
            patience=config.patience if len(windows.judged) else 0,
            learning_rate=config.learning_rate,
        ),
        course,
    )
    return module
