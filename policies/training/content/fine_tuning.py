"""Fine-tuning what makes vectors of items on pairs: what users had, and what they took next."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bandits.types import Float32
from policies.artifacts.fitted_with import Count, CountOrNone, Positive, Share, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.live.item_encoder import taken_next
from policies.sources.live.text_vectors import unit
from policies.training.content.components import principal_directions
from policies.training.content.descriptions import ContentConfig
from policies.training.content.encoder import fit_encoder, parts_of
from policies.training.neural.loop import LoopConfig, fit_network
from policies.training.training_data import Course, TrainingData

HELD_OUT: Final = 0.2
"""Share of the items on which it is judged how long to tune, as if nobody had seen them."""
MOST_HELD_OUT: Final = 20_000
JUDGED: Final = 1_000
"""Users whose held-out items are looked for."""
LIST: Final = 10
"""Items of a user's list when that is judged."""
FIRST_TEMPERATURE: Final = 0.1


@dataclass(frozen=True, slots=True)
class FineTuneConfig:
    """How vectors of items are fine-tuned.

    ``size``: numbers of a vector; ``steps``: of how many of the user's last items it matters which
    was when; ``history``: items of a history that are drawn for its mean; ``draws``: pairs of an
    epoch at most; ``dropout``: the share of what is said of an item that is left out each time it
    is read; the others are those of the loop. The defaults were chosen on the frozen shop.
    """

    size: Size = 64
    steps: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 2
    history: Size = 20
    draws: Count = 100_000
    dropout: Share = 0.5
    batch: Size = 512
    epochs: Count = 12
    patience: CountOrNone = 2
    learning_rate: Positive = 1e-2

    def loop(self, epochs: int, patience: int) -> LoopConfig:
        """Return how a fit goes.

        Args:
            epochs: how many at most.
            patience: see LoopConfig.
        """
        return LoopConfig(
            batch=self.batch, epochs=epochs, patience=patience, learning_rate=self.learning_rate
        )


def fit_tuned_content(
    data: TrainingData, content: ContentConfig, config: FineTuneConfig, course: Course
) -> TrainedSource:
    """Fit the encoder of ``content``, and fine-tune it where that finds unseen items better.

    That is measured on a fifth of the items, as if nobody had seen them: nDCG@10 of the last that a
    user took, among all of them, with and without. Where it is not better, the source is the
    encoder as it was; its metrics say both figures.

    Args:
        data: who interacted with what, and what is said of items.
        content: what of it counts, and by which encoder.
        config: see FineTuneConfig.
        course: how the fit is to go.

    Raises:
        ArtifactError: a loss is no number.
    """
    histories, said = data.histories, data.said
    fitted = fit_encoder(said, content, seed=course.seed)
    parts = parts_of(fitted.encoder, said, histories.items)
    rows = np.where(
        parts.any(axis=1, keepdims=True), parts - fitted.arrays["mean"], np.float32(0.0)
    )

    arrays = dict(fitted.arrays)
    tuned, metrics = tune(rows, histories, config, course)
    if tuned is not None:
        arrays.update(tuned)
        encoder = replace(fitted.encoder, projection=tuned["projection"])
        fitted = replace(fitted, encoder=encoder)
    arrays["vectors"] = fitted.vectors(said, histories.items)
    return TrainedSource("content_tuned", arrays, fitted.config, metrics=metrics)


def tune(
    said: Float32, histories: Histories, config: FineTuneConfig, course: Course
) -> tuple[dict[str, Float32] | None, Mapping[str, float]]:
    """Return ``projection`` and ``steps``, None where they find nothing better, and the figures.

    Args:
        said: float32[items, parts], what is said of each item less the mean; zeros: nothing is.
        histories: who interacted with what, over the same items.
        config: see FineTuneConfig.
        course: how the fit is to go.
    """
    rng = np.random.default_rng([course.seed, 7])
    silent = np.logical_not(said.any(axis=1))
    held_out = np.logical_and(rng.random(len(said)) < HELD_OUT, ~silent)
    held_out[np.flatnonzero(held_out)[MOST_HELD_OUT:]] = False
    judge = _Judge(histories, silent, held_out, rng)
    network = _Pairs("content_tuned", said, histories, silent | held_out, judge, config)
    if not network.rows or not judge.users:
        course.step(1, 1)
        return None, {}

    plain = judge.of(unit(said), np.zeros((0, said.shape[1], said.shape[1]), np.float32))
    done = fit_network(
        network, network.rows, config.loop(config.epochs, config.patience), _half(course, 0)
    )
    metrics = {"plain_ndcg": plain, "tuned_ndcg": done.quality, "epochs": float(done.best)}
    if done.quality <= plain:
        course.step(1, 1)
        return None, metrics

    # All items again, for as long as was best without some: with gaps in histories, what came next
    # is told less well.
    whole = _Pairs("content_tuned_whole", said, histories, silent, judge, config)
    fit_network(whole, whole.rows, config.loop(done.best, 0), _half(course, 1))
    return whole.arrays(), metrics


def _half(course: Course, half: int) -> Course:
    """Return the course of one half of the fit, 0 or 1."""
    return replace(course, step=lambda done, total: course.step(half * total + done, 2 * total))


class FineTunedModule(nn.Module):  # type: ignore[misc]
    """The projection of what is said of items, and what the last items of a history add.

    Args:
        directions: float32[parts, size], the first projection.
        steps: how many of the last items add something.
    """

    def __init__(self, directions: Float32, steps: int) -> None:
        super().__init__()
        size = directions.shape[1]
        self.projection = nn.Parameter(torch.from_numpy(directions))
        self.steps = nn.Parameter(torch.zeros(steps, size, size))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))

    def forward(self, rows: Tensor, weights: Tensor, last: Tensor) -> Tensor:
        """Return what users take next is like, float32[n, size], as ``taken_next`` has it.

        Args:
            rows: float32[n, h, size], vectors of the histories' items.
            weights: float32[n, h].
            last: float32[n, steps, size], the last item of each, the one before, …; zeros: none.
        """
        users = functional.normalize((rows * weights[:, :, None]).sum(dim=1), eps=1e-9)
        return users + torch.einsum("nsd,sde->ne", last, self.steps)


class _Pairs:
    """Pairs of a history and what came next, each item as often as any other.

    The loss is InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4)
    over the items that the batch's histories came to, as dual encoders of texts are fine-tuned
    (Karpukhin et al. 2020, https://arxiv.org/abs/2004.04906, equation 2). Differs from the papers:
    items are drawn evenly, not as often as they occur, so that none is preferred for how well known
    it is, and no correction by logQ is needed; the temperature is learned; and what encodes words
    stays as it is, only what is made of it is learned.
    """

    def __init__(
        self,
        name: str,
        said: Float32,
        histories: Histories,
        left_out: NDArray[np.bool_],
        judge: "_Judge",
        config: FineTuneConfig,
    ) -> None:
        self.name = name
        self.module = FineTunedModule(principal_directions(said, config.size), config.steps)
        self._said, self._judge = torch.from_numpy(said), judge
        self._drawn, self._dropout = config.history, config.dropout

        order = histories.by_time
        order = order[~left_out[histories.indices[order]]]
        owner = np.repeat(np.arange(len(histories.users)), np.diff(histories.starts))[order]
        first = np.searchsorted(owner, owner)
        indices = histories.indices[order].astype(np.int64)
        self._history = torch.from_numpy(indices)
        self._weights = torch.from_numpy(histories.weights[order])
        self._first = torch.from_numpy(first)

        # What came next: by item, the places of its events.
        next_up = np.flatnonzero((np.arange(len(order)) > first) & (histories.weights[order] > 0))
        by_item = next_up[np.argsort(indices[next_up], kind="stable")]
        _, starts, counts = np.unique(indices[by_item], return_index=True, return_counts=True)
        self.rows = max(len(counts), min(config.draws, len(by_item)))
        self._places = torch.from_numpy(by_item)
        self._starts, self._counts = torch.from_numpy(starts), torch.from_numpy(counts)

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean loss of rows: which of the batch's items came after each history.

        Args:
            rows: int64[n], their numbers; row r is of the item r modulo the number of items.
        """
        which = rows % len(self._counts)
        luck = (torch.rand(len(which)) * self._counts[which]).long()
        places = self._places[self._starts[which] + luck]
        first, wanted = self._first[places], self._history[places]

        # Of each history some items, drawn with replacement, and the last ones.
        before = (places - first)[:, None]
        drawn = first[:, None] + (torch.rand(len(which), self._drawn) * before).long()
        last = places[:, None] - 1 - torch.arange(len(self.module.steps))
        exists = last >= first[:, None]
        last = torch.where(exists, last, first[:, None])
        shown = torch.cat([wanted[:, None], self._history[drawn], self._history[last]], dim=1)

        items, at = torch.unique(shown, return_inverse=True)
        said = functional.dropout(self._said[items], self._dropout)
        vectors = functional.normalize(said @ self.module.projection, eps=1e-9)
        users = self.module(
            vectors[at[:, 1 : 1 + self._drawn]],
            self._weights[drawn],
            vectors[at[:, 1 + self._drawn :]] * exists[:, :, None],
        )

        logits = users @ vectors[at[:, 0]].T / self.module.log_temperature.exp()
        same = (wanted[:, None] == wanted[None, :]).fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
        return functional.cross_entropy(logits, torch.arange(len(which)))

    def quality(self) -> float:
        """Return the nDCG@10 of unseen items."""
        arrays = self.arrays()
        return self._judge.of(unit(self._said.numpy() @ arrays["projection"]), arrays["steps"])

    def arrays(self) -> dict[str, Float32]:
        """Return what is learned."""
        module = self.module
        return {
            name: getattr(module, name).detach().numpy().copy() for name in ("projection", "steps")
        }


class _Judge:
    """Users whose last held-out item is looked for, by what they did before with the others."""

    def __init__(
        self,
        histories: Histories,
        silent: NDArray[np.bool_],
        held_out: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> None:
        self._items = np.flatnonzero(held_out)
        self.users: list[tuple[NDArray[np.int32], Float32]] = []
        wanted: list[int] = []
        for user in rng.permutation(len(histories.users)).tolist():
            indices, weights = histories.row(user)
            taken = np.flatnonzero(held_out[indices] & (weights > 0))
            if not taken.size:
                continue
            seen = np.flatnonzero(~(held_out | silent)[indices[: taken[-1]]])
            if not seen.size:
                continue
            self.users.append((indices[seen], weights[seen]))
            wanted.append(int(np.searchsorted(self._items, indices[taken[-1]])))
            if len(self.users) == JUDGED:
                break
        self._wanted = np.array(wanted, np.intp)

    def of(self, vectors: Float32, steps: Float32) -> float:
        """Return the mean nDCG of lists of held-out items; 0 where there is no user.

        Args:
            vectors: float32[items, d], of length 1.
            steps: float32[steps, d, d].
        """
        if not self.users:
            return 0.0
        users = np.stack([taken_next(vectors[at], weights, steps) for at, weights in self.users])
        scores = users @ vectors[self._items].T
        own = scores[np.arange(len(scores)), self._wanted]
        ranks = (scores > own[:, None]).sum(axis=1)
        return float(np.where(ranks < LIST, 1.0 / np.log2(ranks + 2.0), 0.0).mean())
