"""Lists that each source and fusion would have recommended to a task's users, batch by batch."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.ranking.asking import Answers, TrainedModels, ask, best_of
from simulator.ranking.fusion import Fusion, Pools, make_pools
from simulator.ranking.metrics.chances import Chances, values_of
from simulator.ranking.metrics.lists import ItemSets, Lists, auc
from simulator.ranking.task import RankingTask

DEPTH: Final = 100
"""Candidates of each source that are kept: pools are looked at up to this limit."""
FUSED_LIMIT: Final = 50
"""Candidates of each source in the pools that are fused."""
LIMITS: Final = (10, 20, 30, 50, DEPTH)
"""Limits of a pool that are compared."""
BY_LIMIT: Final = "stack_ridge"
"""The fusion that orders pools of different limits."""


@dataclass(slots=True, eq=False)
class Gathered:
    """The lists of every row, by its name.

    ``lists``: int32[users, k]. ``deep``: of what proposes, int32[users, DEPTH]. ``auc``: float64[
    users]. ``answered``: bool[users]. ``by_limit``: lists of pools of each limit. ``rated``: raw
    scores of the task's ratings, NaN without an answer. ``ask_s``: seconds that sources took.
    ``references``: rows that are neither, to compare with. ``log_loss``: float64[users], of a
    pool's candidates; the name "" knows their share alone.
    """

    lists: dict[str, Lists] = field(default_factory=dict)
    deep: dict[str, Lists] = field(default_factory=dict)
    auc: dict[str, Float64] = field(default_factory=dict)
    answered: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    by_limit: dict[int, Lists] = field(default_factory=dict)
    rated: dict[str, Float64] = field(default_factory=dict)
    ask_s: dict[str, float] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    log_loss: dict[str, Float64] = field(default_factory=dict)


def gather(
    task: RankingTask,
    trained: TrainedModels,
    fused: Sequence[Fusion],
    k: int,
    progress: Callable[[int], None],
    chances: Chances | None = None,
) -> Gathered:
    """Ask all sources for all users of a task, and fuse what they answer.

    Args:
        task: the users.
        trained: the sources.
        fused: ways of fusing.
        k: where lists are cut.
        progress: told the number of users done.
        chances: what scores of candidates stand for.
    """
    found = Gathered()
    for name in trained.models:
        found.lists[name] = _no_lists(task.users, k)
        if name in trained.proposing:
            found.deep[name] = _no_lists(task.users, DEPTH)
        found.auc[name] = np.full(task.users, np.nan)
        found.answered[name] = np.zeros(task.users, np.bool_)
        found.rated[name] = np.full(task.ratings.size, np.nan)
        found.ask_s[name] = 0.0
    for fusion in fused:
        found.lists[fusion.name] = _no_lists(task.users, k)
        if fusion.name == BY_LIMIT:
            found.by_limit = {limit: _no_lists(task.users, k) for limit in LIMITS}

    for answers in ask(trained, task.known):
        _add_sources(found, task, answers, k)
        if fused:
            _add_fusions(found, task, trained, fused, answers, k, chances)
        progress(answers.users.stop)
    return found


def add_references(found: Gathered, task: RankingTask, references: TrainedModels, k: int) -> None:
    """Add rows to compare the sources with, which bring nothing to pools and fusions.

    Args:
        found: what the sources answered.
        task: the users.
        references: what is asked beside the sources, over the same items.
        k: where lists are cut.
    """
    unrated = task.part(np.arange(task.users))
    beside = gather(unrated, references, [], k, lambda _: None)
    found.lists |= beside.lists
    found.auc |= beside.auc
    found.answered |= beside.answered
    found.ask_s |= beside.ask_s
    found.references += list(references.models)


def _add_sources(found: Gathered, task: RankingTask, answers: Answers, k: int) -> None:
    batch = answers.users
    relevant, barred = task.relevant.rows(batch), task.known.sets.rows(batch)
    first, last = np.searchsorted(task.rated_user, [batch.start, batch.stop])
    row, item = task.rated_user[first:last] - batch.start, task.rated_item[first:last]

    for name, scores in answers.open.items():
        began = time.perf_counter()
        best = best_of(scores, DEPTH)
        found.ask_s[name] += answers.seconds[name] + time.perf_counter() - began
        found.lists[name][batch] = best[:, :k]
        if name in found.deep:
            found.deep[name][batch] = best
        found.auc[name][batch] = auc(scores, relevant, barred)
        found.answered[name][batch] = best[:, 0] >= 0
        found.rated[name][first:last] = np.where(
            answers.answers[name][row], answers.raw[name][row, item], np.nan
        )


def _add_fusions(
    found: Gathered,
    task: RankingTask,
    trained: TrainedModels,
    fused: Sequence[Fusion],
    answers: Answers,
    k: int,
    chances: Chances | None,
) -> None:
    batch = answers.users
    deep = {name: lists[batch] for name, lists in found.deep.items()}
    pools = _pools(trained, answers, deep, DEPTH)
    allowed = pools.within(FUSED_LIMIT)
    values = values_of(tuple(trained.models), fused, pools)
    for fusion in fused:
        found.lists[fusion.name][batch] = pools.best(values[fusion.name], allowed, k)
        if fusion.name == BY_LIMIT:
            for limit in LIMITS:
                found.by_limit[limit][batch] = pools.best(
                    values[fusion.name], pools.within(limit), k
                )

    if chances is not None:
        relevant = task.relevant.rows(batch).holds(pools.items)
        for name, scores in values.items():
            _put(found, task, name, batch, chances.losses(name, scores, allowed, relevant))
        _put(found, task, "", batch, chances.losses_of_share(allowed, relevant))


def _put(found: Gathered, task: RankingTask, name: str, batch: slice, losses: Float64) -> None:
    found.log_loss.setdefault(name, np.full(task.users, np.nan))[batch] = losses


def gather_pools(task: RankingTask, trained: TrainedModels) -> Pools:
    """Return the pools of all users of a small task, such as fusions are fitted on.

    Args:
        task: the users.
        trained: the sources.
    """
    parts = []
    for answers in ask(trained, task.known):
        lists = {name: best_of(answers.open[name], FUSED_LIMIT) for name in trained.proposing}
        parts.append(_pools(trained, answers, lists, FUSED_LIMIT))

    width = max(part.items.shape[1] for part in parts)
    return Pools(
        np.concatenate([_widened(part.items, width, -1) for part in parts]),
        np.concatenate([_widened(part.scores, width, 0) for part in parts]),
        np.concatenate([_widened(part.ranks, width, np.iinfo(np.int16).max) for part in parts]),
        np.concatenate([part.answers for part in parts]),
    )


def _pools(
    trained: TrainedModels, answers: Answers, lists: Mapping[str, Lists], limit: int
) -> Pools:
    """Return the pools of some users; what only scores brings no candidates."""
    nothing = _no_lists(len(answers.open[next(iter(trained.models))]), 0)
    every = {name: lists.get(name, nothing) for name in trained.models}
    return make_pools(answers, every, trained.scales, limit)


def places_of_relevant(deep: Mapping[str, Lists], relevant: ItemSets) -> NDArray[np.int16]:
    """Return the place of each relevant item in each source's list, int16[pairs, sources].

    An item that is not in the list has the place DEPTH.

    Args:
        deep: the sources' lists.
        relevant: by user.
    """
    owners = relevant.owners()
    places = np.full((owners.size, len(deep)), DEPTH, np.int16)
    step = max(1, (1 << 22) // DEPTH)
    for start in range(0, owners.size, step):
        part = slice(start, start + step)
        for number, lists in enumerate(deep.values()):
            same = lists[owners[part]] == relevant.indices[part, None]
            places[part, number] = np.where(same.any(axis=1), same.argmax(axis=1), DEPTH)
    return places


def _no_lists(users: int, length: int) -> Lists:
    return np.full((users, length), -1, np.int32)


def _widened(array: NDArray[np.generic], width: int, fill: int) -> NDArray[np.generic]:
    pad = [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, pad, constant_values=fill)
