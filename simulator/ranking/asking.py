"""Answers of trained sources for many users: the scores of all items, and the best lists."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import compiled, read_only
from bandits.types import Float32, Float64
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import Artifact, Calibration
from policies.sources import CataloguedScorer, ContextModel, Model
from simulator.ranking.metrics.lists import ItemSets, Lists

BATCH_BYTES: Final = 96 * 2**20
"""Bytes of all sources' scores of a batch of users."""
MOST_USERS: Final = 512
"""Users in a batch, however few items there are."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModels:
    """Trained sources as they are served: their models and scales, over ``items``.

    ``notes`` says which were left out, and why; ``seconds``, how long training took;
    ``artifact``, what they are of.
    """

    items: tuple[str, ...]
    models: Mapping[str, Model]
    scales: Mapping[str, Calibration]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None
    artifact: Artifact | None = None

    @property
    def proposing(self) -> tuple[str, ...]:
        """The sources that propose candidates; the others score what these propose."""
        return tuple(
            name for name, model in self.models.items() if not isinstance(model, CataloguedScorer)
        )


@dataclass(frozen=True, slots=True, eq=False)
class KnownItems:
    """Histories of users, as sets and as sources read them. No item of the history is ranked.

    ``places``: int32[n], each user's items oldest first, in the rows of ``sets``; ``weights``:
    float32[n], how strongly each of them speaks; ``contexts``: what a caller would say of each
    user, if that is known.
    """

    sets: ItemSets
    places: NDArray[np.int32]
    weights: Float32
    contexts: Sequence[FeatureMap] = ()

    def take(self, users: NDArray[np.intp]) -> "KnownItems":
        """Return what is known of some users, in this order."""
        sizes = self.sets.sizes[users]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        at = np.arange(starts[-1]) + np.repeat(self.sets.starts[users] - starts[:-1], sizes)
        sets = ItemSets(starts, self.sets.indices[at])
        contexts = [self.contexts[user] for user in users.tolist()] if self.contexts else []
        return KnownItems(sets, self.places[at], self.weights[at], contexts)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The answers of every source for some consecutive users.

    ``raw``: by source, the raw scores of all items, float32[users, items], 0 where it has no answer
    for the user. ``open``: the same with -inf where the source does not propose the item, because
    it is in the history or there is no evidence for it. ``answers``: bool[users], by source;
    ``seconds``: how long it took.
    """

    users: slice
    raw: Mapping[str, Float32]
    open: Mapping[str, Float32]
    answers: Mapping[str, NDArray[np.bool_]]
    seconds: Mapping[str, float]


def ask(trained: TrainedModels, known: KnownItems) -> Iterator[Answers]:
    """Ask every source for every user, a batch of users at a time.

    Scores are what serving computes, by the same code, one user after another.

    Args:
        trained: the sources.
        known: by user, over the same items.
    """
    users, items = len(known.sets.starts) - 1, len(trained.items)
    rows = BATCH_BYTES // (8 * max(1, items) * max(1, len(trained.models)))
    rows = int(np.clip(rows, 1, MOST_USERS))
    for start in range(0, users, rows):
        batch = slice(start, min(start + rows, users))
        raw, opened, answers, seconds = {}, {}, {}, {}
        barred = known.sets.rows(batch)
        owners = barred.owners()
        for name, model in trained.models.items():
            began = time.perf_counter()
            raw[name], answers[name] = _raw(model, known, batch, items)
            seconds[name] = time.perf_counter() - began

            scores = raw[name].copy()
            scores[scores <= model.floor] = -np.inf
            scores[~answers[name]] = -np.inf
            scores[owners, barred.indices] = -np.inf
            opened[name] = scores
        yield Answers(batch, raw, opened, answers, seconds)


def _raw(
    model: Model, known: KnownItems, batch: slice, items: int
) -> tuple[Float32, NDArray[np.bool_]]:
    scores = np.zeros((batch.stop - batch.start, items), np.float32)
    answers = np.zeros(len(scores), np.bool_)
    for row, user in enumerate(range(batch.start, batch.stop)):
        part = slice(int(known.sets.starts[user]), int(known.sets.starts[user + 1]))
        indices, weights = known.places[part], known.weights[part]
        if model.needs_history and not weights.any():
            continue
        answers[row] = True
        if isinstance(model, ContextModel) and known.contexts:
            scores[row] = model.raw_in(known.contexts[user], indices, weights)
        else:
            scores[row] = model.raw(indices, weights)
    return scores, answers


def best_of(scores: NDArray[np.floating], length: int) -> Lists:
    """Return the places of the best items of each row, int32[users, length], -1 where it ends.

    Ties stand in the order of the items, as a source's own candidates do; -inf is never listed.

    Args:
        scores: float[users, items].
        length: of the lists.
    """
    lists = np.full((len(scores), length), -1, np.int32)
    if length > 0:
        _best_of(np.ascontiguousarray(scores, np.float64), lists)
    return lists


@compiled(read_only(types.float64, 2), types.int32[:, ::1])
def _best_of(scores: Float64, lists: Lists) -> None:
    """Fill lists with the places of each row's best scores; an equal one stands behind."""
    length = lists.shape[1]
    for row in range(scores.shape[0]):
        kept, best = 0, lists[row]
        for place in range(scores.shape[1]):
            score = scores[row, place]
            if score == -np.inf or (kept == length and score <= scores[row, best[length - 1]]):
                continue

            # Those that are worse move back by one, and the last of a full list falls out.
            at = kept if kept < length else length - 1
            while at > 0 and scores[row, best[at - 1]] < score:
                best[at] = best[at - 1]
                at -= 1
            best[at] = place
            kept = min(kept + 1, length)
