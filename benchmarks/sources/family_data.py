"""Two data sets for family_peers.py, each split by time: what is trained on, and who wants what later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bandits.types import Float32
from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.data.coded import CodedEvents
from policies.data.data_set import DataSet
from policies.training.content.descriptions import describe
from policies.training.fits import TrainConfig
from policies.training.histories import histories_of
from policies.training.prior import contexts_of
from policies.training.training_data import TrainingData, features_of
from simulator.imports import import_data
from simulator.ranking.splits import SplitName, split_events
from simulator.ranking.task import make_task
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.tables import write_tables
from simulator.worlds.movielens import movielens_data

# Of the columns of users and items, those that are categories: every library takes them.
COLUMNS = {
    "shop": (("group",), ("category", "brand")),
    "movielens": (("gender", "occupation"), ("release_year",)),
}
PAST = 20
"""Items of a history that a library's scorer is told."""
BESIDE = 4
"""Items that are drawn beside each that was taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A data set in two parts.

    ``events`` and ``training``: the first part. ``liked``: the items, by user, that somebody with a
    history turned to in the second and had not had before.
    """

    name: str
    events: CodedEvents
    training: TrainingData
    liked: Mapping[str, frozenset[str]]
    split: str

    @property
    def histories(self) -> Histories:
        """Who interacted with what in the first part."""
        return self.training.histories


def shop(folder: Path, *, seed: int = 0) -> Trial:
    """Return the frozen shop, its last 20% by time being the second part.

    Args:
        folder: where its tables are written.
        seed: of the world.
    """
    tables = folder / "tables"
    write_tables(frozen_world("shop", seed=seed), tables)
    data = import_data(
        folder / "data",
        [str(tables / "events.csv")],
        items=[str(tables / "items.csv")],
        users=[str(tables / "users.csv")],
    )
    return _trial("shop", data, "global-time", 0.2)


def movielens() -> Trial:
    """Return MovieLens 100K, the last 25% of each user's ratings being the second part."""
    return _trial("movielens", movielens_data(), "user-time", 0.25)


def _trial(name: str, data: DataSet, by: SplitName, share: float) -> Trial:
    events = data.coded()
    split = split_events(events, by, share)
    first = events.select(split.train)
    histories = histories_of(first)
    task = make_task(
        events,
        split,
        histories.items,
        rating_scale=data.manifest.weights.rating_scale,
        most_users=10**9,
        seed=0,
    )
    wanted, starts = task.relevant.indices, task.relevant.starts
    liked = {
        events.user_ids[code]: frozenset(
            histories.items[at] for at in wanted[starts[row] : starts[row + 1]].tolist()
        )
        for row, code in enumerate(task.user_codes.tolist())
        if events.user_ids[code] in histories.user_index
    }
    items = tuple(data.items())
    training = TrainingData(
        histories, describe(items, TrainConfig().content), features_of(items), contexts_of(data)
    )
    return Trial(name, first, training, liked, split.sentence)


def write_for_peers(trial: Trial, folder: Path) -> None:
    """Write what the libraries are fitted on: numbers of users and items, times, and categories.

    ``user``, ``item``, ``time``: int64[n], by user, oldest first; ``tested``: int64[m], the users
    whose lists are asked for; ``user_features``, ``item_features``: int64[users or items, columns].

    Args:
        trial: the data set.
        folder: where to; the file has the trial's name.
    """
    histories = trial.histories
    order = histories.by_time
    times = np.zeros(order.size, np.int64) if histories.times is None else histories.times[order]
    of_users, of_items = COLUMNS[trial.name]
    save_file(
        {
            "user": np.repeat(np.arange(len(histories.users)), np.diff(histories.starts)),
            "item": histories.indices[order].astype(np.int64),
            "time": times,
            "tested": np.array([histories.user_index[user] for user in trial.liked], np.int64),
            "user_features": _codes(histories.users, trial.training.contexts, of_users),
            "item_features": _codes(histories.items, trial.training.items, of_items),
        },
        folder / f"{trial.name}.safetensors",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Whether a test user turned to an item: each of ``liked``, and others that the user has not had.

    ``user`` and ``item``: int64[n], by number; ``label``: float32[n], 1 or 0.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: Float32


def questions_of(trial: Trial, others: int = 5) -> Questions:
    """Return questions, so many others beside each liked item, drawn evenly.

    Args:
        trial: the data set.
        others: drawn beside each.
    """
    histories, rng = trial.histories, np.random.default_rng(0)
    places = {item: at for at, item in enumerate(histories.items)}
    users, items, labels = [], [], []
    for user, liked in trial.liked.items():
        row = histories.user_index[user]
        wanted = np.array(sorted(places[item] for item in liked), np.int64)
        left = np.setdiff1d(np.arange(len(histories.items)), [*wanted, *histories.row(row)[0]])
        drawn = rng.choice(left, min(others * wanted.size, left.size), replace=False)
        items += [wanted, drawn]
        labels += [np.ones(wanted.size, np.float32), np.zeros(drawn.size, np.float32)]
        users.append(np.full(wanted.size + drawn.size, row, np.int64))
    return Questions(np.concatenate(users), np.concatenate(items), np.concatenate(labels))


def write_rows(trial: Trial, questions: Questions, folder: Path, *, seed: int) -> None:
    """Write what the libraries' scorers are fitted on and asked.

    Each interaction with four items beside it that the user does not have, a half of them drawn
    by how popular they are, as ours are fitted. Of fitted rows, ``user``, ``item``, ``label`` and
    ``past``, int64[n, PAST], the items before it by number plus one, 0 for none; of the questions
    the same, their names with ``asked_`` before them.

    Args:
        trial: the data set.
        questions: what is asked.
        folder: where to.
        seed: of the draws.
    """
    histories, rng = trial.histories, np.random.default_rng(seed)
    order, users = histories.by_time, len(histories.users)
    item = histories.indices[order].astype(np.int64)
    user = np.repeat(np.arange(users), np.diff(histories.starts))
    past = np.zeros((item.size, PAST), np.int64)
    for back in range(1, PAST + 1):
        same = user[back:] == user[:-back]
        past[back:, PAST - back] = np.where(same, item[:-back] + 1, 0)

    count = len(histories.items)
    often = np.bincount(item, minlength=count) / item.size
    drawn = rng.choice(count, (item.size, BESIDE), p=0.5 * often + 0.5 / count)
    has = np.isin(user[:, None] * count + drawn, user * count + item)
    beside, at = drawn[~has], np.nonzero(~has)[0]
    newest = np.zeros((users, PAST), np.int64)
    for row in range(users):
        own = histories.row(row)[0][-PAST:]
        newest[row, PAST - own.size :] = own.astype(np.int64) + 1
    save_file(
        {
            "user": np.concatenate([user, user[at]]),
            "item": np.concatenate([item, beside]),
            "label": np.repeat(np.array([1, 0], np.float32), [item.size, beside.size]),
            "past": np.concatenate([past, past[at]]),
            "asked_user": questions.user,
            "asked_item": questions.item,
            "asked_past": newest[questions.user],
        },
        folder / f"{trial.name}.rows.safetensors",
    )


def _codes(
    ids: Sequence[str], features: Mapping[str, FeatureMap], columns: Sequence[str]
) -> NDArray[np.int64]:
    """Return the categories of users or items as numbers, int64[ids, columns]."""
    found: list[NDArray[Any]] = []
    for column in columns:
        values = [str(features.get(each, {}).get(column, "")) for each in ids]
        found.append(np.unique(values, return_inverse=True)[1])
    return np.stack(found, axis=1).astype(np.int64)
