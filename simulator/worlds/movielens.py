"""A data-driven world: MovieLens 100K users, who like what they later rated 4 or more.

For each user the first 75% of the ratings, by time, are known to the sources; a reward is 1 when
the chosen item is among the user's remaining ratings and was rated at least 4. What a user never
rated gives 0, which understates every policy alike (a liked film never rated counts as a miss);
rewards compare policies, they do not measure satisfaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.types import frozen
from simulator.data import datasets

LIKED = 4.0
AGE_BANDS = ((18, "under-18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (1000, "45-and-over"))


def age_band(age: int) -> str:
    """Return the name of the band, one of five, that ``age`` (years) falls in."""
    return next(name for upper, name in AGE_BANDS if age < upper)


def split_by_time(ratings: NDArray[Any], fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split each user's ratings by time; both parts are by user, then time, then item.

    Ratings of one user often share a second; the item id orders those, so the split does not depend
    on file order.

    Args:
        ratings: The fields of ``datasets.ratings``.
        fraction: Share of each user's ratings in the first part, rounded down.

    Returns:
        The earlier and the later ratings.
    """
    ordered = ratings[np.lexsort((ratings["item"], ratings["timestamp"], ratings["user"]))]

    _, starts, counts = np.unique(ordered["user"], return_index=True, return_counts=True)
    rank = np.arange(len(ordered)) - np.repeat(starts, counts)
    early = rank < np.repeat(np.floor(counts * fraction), counts)
    return ordered[early], ordered[~early]


@dataclass(frozen=True, slots=True, eq=False)
class MovieLensWorld:
    """Users, what is known of them, and what they turn out to like. All ids are strings.

    ``catalogue`` lists ``{"id", "features": {genres, decade}, "metadata": {title, year}}``, as an
    artifact does. ``train_ratings`` and ``test_ratings`` have the fields of ``datasets.ratings``.
    """

    users: tuple[str, ...]
    catalogue: tuple[dict[str, Any], ...]
    train_ratings: NDArray[Any]
    test_ratings: NDArray[Any]
    _contexts: Mapping[str, dict[str, str]]
    _train: Mapping[str, tuple[str, ...]]
    _liked: Mapping[str, frozenset[str]]

    @classmethod
    def load(cls, path: Path, *, train_fraction: float = 0.75) -> "MovieLensWorld":
        """Make the world from the directory that ``datasets.get("ml-100k")`` returns.

        Args:
            path: The directory.
            train_fraction: Share of each user's ratings that the sources know.

        Raises:
            DataUnavailableError: A file is missing or malformed.
        """
        train, test = split_by_time(datasets.ratings(path), train_fraction)
        people = datasets.users(path)
        users = tuple(str(user) for user in people["id"])

        # What was rated 4 or more in the held-out part earns a reward.
        history: dict[str, list[str]] = {user: [] for user in users}
        liked: dict[str, set[str]] = {user: set() for user in users}
        for user, item in zip(train["user"].tolist(), train["item"].tolist(), strict=True):
            history[str(user)].append(str(item))
        for user, item in test[["user", "item"]][test["rating"] >= LIKED].tolist():
            liked[str(user)].add(str(item))

        return cls(
            users=users,
            catalogue=tuple(_catalogue(path)),
            train_ratings=frozen(train),
            test_ratings=frozen(test),
            _contexts={
                str(p["id"]): _context(int(p["age"]), str(p["gender"]), str(p["occupation"]))
                for p in people
            },
            _train={user: tuple(items) for user, items in history.items()},
            _liked={user: frozenset(items) for user, items in liked.items()},
        )

    def draw_user(self, rng: np.random.Generator) -> str:
        """Return a user, drawn uniformly."""
        return self.users[int(rng.integers(len(self.users)))]

    def context(self, user: str) -> dict[str, str]:
        """Return the user's ``age_band``, ``gender``, ``occupation`` and ``group``.

        A group is one of 10, age band by gender.
        """
        return dict(self._contexts[user])

    def train_history(self, user: str) -> tuple[str, ...]:
        """Return the items the user is known to have rated, oldest first; never candidates."""
        return self._train[user]

    def held_out(self, user: str) -> frozenset[str]:
        """Return the items that give a reward: those rated at least 4 after the training part."""
        return self._liked[user]

    def reward(self, user: str, item_id: str) -> float:
        """Return 1.0 if the user turns out to like the item, else 0.0.

        Args:
            user: One of ``users``.
            item_id: The item's id in MovieLens; an unknown one earns 0.
        """
        return float(item_id in self._liked[user])


def _context(age: int, gender: str, occupation: str) -> dict[str, str]:
    band = age_band(age)
    return {
        "age_band": band,
        "gender": gender,
        "occupation": occupation,
        "group": f"{band}:{gender}",
    }


def _catalogue(path: Path) -> list[dict[str, Any]]:
    """Return the items. Genres and decade are learned from.

    A title would only be a second name of the item, so it is metadata.
    """
    catalogue = []
    for item in datasets.items(path):
        features: dict[str, Any] = {"genres": str(item["genres"]).split()}
        metadata = {"title": str(item["title"])}
        if item["year"]:  # one item has no known year; an absent feature says so
            features["decade"] = str(int(item["year"]) // 10 * 10)
            metadata["year"] = str(int(item["year"]))
        catalogue.append({"id": str(item["id"]), "features": features, "metadata": metadata})
    return catalogue
