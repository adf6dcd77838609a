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

from bandits.errors import DataSetError
from bandits.types import frozen
from policies.data.coded import CodedEvents, event_weights
from policies.data.data_set import DataSet
from policies.data.manifest import WeightOptions
from simulator.data import datasets
from simulator.imports import Cleaning, import_data

LIKED = 4.0
RATINGS = WeightOptions(rating_scale=(1.0, 5.0))
AS_IT_IS = Cleaning(duplicates="keep", most_a_minute=0)
"""Nothing is left out: the ratings of a study are no clicks of a robot."""
AGE_BANDS = ((18, "under-18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (1000, "45-and-over"))


def age_band(age: int) -> str:
    """Return the name of the band, one of five, that ``age`` (years) falls in."""
    return next(name for upper, name in AGE_BANDS if age < upper)


def split_by_time(ratings: NDArray[Any], fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split each user's ratings by time; both parts are by user, then time, then item.

    Ratings of one user often share a second; the item id orders those, so the split does not depend
    on file order.

    Args:
        ratings: The fields of ``MovieLensWorld.train_ratings``.
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
    artifact does. ``train_ratings`` and ``test_ratings`` have the fields user and item (int64),
    rating (float32, 1 to 5) and timestamp (int64, s); ``train_events`` are the same as the former,
    as training takes them. ``digest``: that of the data set.
    """

    users: tuple[str, ...]
    catalogue: tuple[dict[str, Any], ...]
    train_events: CodedEvents
    digest: str
    train_ratings: NDArray[Any]
    test_ratings: NDArray[Any]
    _contexts: Mapping[str, dict[str, str]]
    _train: Mapping[str, tuple[str, ...]]
    _liked: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, data: DataSet, *, train_fraction: float = 0.75) -> "MovieLensWorld":
        """Make the world of MovieLens 100K as a data set; see ``movielens_data``.

        Args:
            data: The data set.
            train_fraction: Share of each user's ratings that the sources know.
        """
        train, test = split_by_time(_ratings(data.coded()), train_fraction)
        people = [] if (table := data.users()) is None else table.to_pylist()
        users = tuple(person["id"] for person in people)

        # What was rated 4 or more in the held-out part earns a reward.
        history: dict[str, list[str]] = {user: [] for user in users}
        liked: dict[str, set[str]] = {user: set() for user in users}
        for user, item in zip(train["user"].tolist(), train["item"].tolist(), strict=True):
            history[str(user)].append(str(item))
        for user, item in test[["user", "item"]][test["rating"] >= LIKED].tolist():
            liked[str(user)].add(str(item))

        return cls(
            users=users,
            catalogue=tuple(_catalogue(data)),
            train_events=rating_events(train),
            digest=data.digest,
            train_ratings=frozen(train),
            test_ratings=frozen(test),
            _contexts={
                person["id"]: _context(int(person["age"]), person["gender"], person["occupation"])
                for person in people
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


def _catalogue(data: DataSet) -> list[dict[str, Any]]:
    """Return the items. Genres and decade are learned from.

    A title would only be a second name of the item, so it is metadata.
    """
    catalogue = []
    for item in data.items_table().to_pylist():
        genres = [genre for genre in item["class"] or () if genre != "unknown"]
        features: dict[str, Any] = {"genres": genres}
        metadata = {"title": item["movie_title"]}

        # One item has no known year; an absent feature says so.
        year = str(item["release_year"])
        if year.isdigit():
            features["decade"] = str(int(year) // 10 * 10)
            metadata["year"] = year
        catalogue.append({"id": item["id"], "features": features, "metadata": metadata})
    return catalogue


def _ratings(events: CodedEvents) -> NDArray[Any]:
    """Return events as ratings; the ids of MovieLens are numbers."""
    ratings = np.empty(
        len(events), [("user", "i8"), ("item", "i8"), ("rating", "f4"), ("timestamp", "i8")]
    )
    ratings["user"] = np.array(events.user_ids, dtype=np.int64)[events.user]
    ratings["item"] = np.array(events.item_ids, dtype=np.int64)[events.item]
    ratings["rating"], ratings["timestamp"] = events.value, events.time // 1000
    return ratings


def rating_events(ratings: NDArray[Any]) -> CodedEvents:
    """Return ratings as training takes them; see ``MovieLensWorld.train_ratings``."""
    ordered = ratings[np.lexsort((ratings["timestamp"], ratings["user"]))]
    users, user = np.unique(ordered["user"], return_inverse=True)
    items, item = np.unique(ordered["item"], return_inverse=True)
    times, values = 1000 * ordered["timestamp"], ordered["rating"].astype(np.float32)
    types, kinds = ("rating",), np.zeros(len(ordered), np.int16)
    return CodedEvents(
        user_ids=tuple(map(str, users.tolist())),
        item_ids=tuple(map(str, items.tolist())),
        types=types,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=kinds,
        time=times,
        value=values,
        weight=event_weights(types, kinds, times, values, RATINGS),
    )


def movielens_data(folder: Path | None = None) -> DataSet:
    """Return MovieLens 100K as a data set: fetched, checked and imported, once per machine.

    Args:
        folder: Where it is kept; by default among the data sets that were fetched.

    Raises:
        DataUnavailableError: It cannot be fetched.
    """
    home = folder or datasets.default_cache_dir() / "data-sets" / "ml-100k"
    try:
        return DataSet.open(home)
    except DataSetError:
        home.parent.mkdir(parents=True, exist_ok=True)
        files = [str(datasets.get("ml-100k"))]
        return import_data(
            home, files, preset="recbole", weights=RATINGS, cleaning=AS_IT_IS, name="movielens"
        )
