"""The users of a test part: what is known of each, and what each turned out to want."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.errors import DataSetError
from bandits.types import Float32, Float64
from bandits.values import FeatureMap
from policies.data.coded import CodedEvents
from policies.training.histories import histories_of
from simulator.ranking.asking import KnownItems
from simulator.ranking.metrics.lists import ItemSets
from simulator.ranking.splits import Split

LIKED: Final = 0.75
"""A rating is for its item from so far up its scale: from 4 of 1 to 5."""


@dataclass(frozen=True, slots=True, eq=False)
class RankingTask:
    """Users whose lists are judged, over the items of the trained sources.

    ``items``: how many there are. ``user_codes``: of the users, into those of the events.
    ``known``: the history of each user; ``relevant``: what the user turned to later, none of it in
    the history. ``gains``: what each of these is worth, float64[pairs]; None: all are alike.
    ``everyone``: the histories of all training users.
    ``rated_user``, ``rated_item`` and ``ratings``: ratings of the test part. ``test_users``: how
    many there were before the sample; ``unknown_items``, ``known_already`` and ``irrelevant``: test
    events left out.
    """

    items: int
    user_codes: NDArray[np.int64]
    known: KnownItems
    relevant: ItemSets
    gains: Float64 | None
    everyone: ItemSets
    rated_user: NDArray[np.int64]
    rated_item: NDArray[np.int64]
    ratings: Float64
    test_users: int
    unknown_items: int
    known_already: int
    irrelevant: int

    def part(self, users: NDArray[np.intp]) -> "RankingTask":
        """Return the task of some of the users, without ratings."""
        starts, at = self.relevant.cells(users)
        return replace(
            self,
            known=self.known.take(users),
            relevant=ItemSets(starts, self.relevant.indices[at]),
            gains=None if self.gains is None else self.gains[at],
            user_codes=self.user_codes[users],
            rated_user=self.rated_user[:0],
            rated_item=self.rated_item[:0],
            ratings=self.ratings[:0],
        )

    @property
    def users(self) -> int:
        """How many users are judged."""
        return len(self.relevant.starts) - 1


def make_task(
    events: CodedEvents,
    split: Split,
    items: Sequence[str],
    *,
    rating_scale: tuple[float, float] | None,
    most_users: int,
    seed: int,
    contexts: Mapping[str, FeatureMap] | None = None,
    worth: Float32 | None = None,
) -> RankingTask:
    """Return the users of a split's test part.

    Args:
        events: all of them.
        split: of these.
        items: of the trained sources, in their order.
        rating_scale: the lowest and the highest value, if values are ratings.
        most_users: users judged at most; of more, so many are drawn.
        seed: of the draw.
        contexts: by user, what a caller would say of each with a request.
        worth: float32[n], what each event is worth; all the same by default.

    Raises:
        DataSetError: no user has anything relevant in the test part; it says why.
    """
    place_of = {item: place for place, item in enumerate(items)}
    places = np.array([place_of.get(item, -1) for item in events.item_ids], np.int64)
    train, test = events.select(split.train), events.select(split.test)
    histories = known_items(train, place_of)

    # What of the test part can be found by a source at all: an item that training knows, that the
    # user did not have, and that the event speaks for.
    at = places[test.item]
    unknown = at < 0
    had = histories.sets.holds_pairs(test.user, at)
    rated = np.isfinite(test.value) & ~unknown if rating_scale else np.zeros(len(test), np.bool_)
    speaks = speaks_for(test, rating_scale)
    wanted = speaks & ~unknown & ~had
    if not wanted.any():
        raise DataSetError(
            f"no user of the test part can be judged: of its {len(test):,} events,"
            f" {int(unknown.sum()):,} are on items that no training event names,"
            f" {int((had & ~unknown).sum()):,} on items that the user had already, and"
            f" {int((~speaks & ~unknown & ~had).sum()):,} do not speak for their item",
            "split",
        )

    users = np.unique(test.user[wanted]).astype(np.int64)
    chosen = users
    if users.size > most_users:
        rng = np.random.default_rng([seed, 3])
        chosen = np.sort(rng.choice(users, most_users, replace=False))
    row_of = np.full(len(events.user_ids), -1, np.int64)
    row_of[chosen] = np.arange(chosen.size)

    said = [(contexts or {}).get(events.user_ids[code], {}) for code in chosen.tolist()]
    kept = rated & ~had & (row_of[test.user] >= 0)
    values = np.ones(len(test)) if worth is None else worth[split.test].astype(np.float64)
    relevant, gains = _sets(
        row_of[test.user[wanted]], at[wanted], values[wanted], chosen.size, len(items)
    )
    return RankingTask(
        items=len(items),
        user_codes=chosen,
        known=replace(histories.take(chosen), contexts=said),
        relevant=relevant,
        gains=None if np.ptp(gains) == 0 else gains,
        everyone=histories.sets.take(np.unique(train.user).astype(np.intp)),
        rated_user=row_of[test.user[kept]],
        rated_item=at[kept],
        ratings=test.value[kept].astype(np.float64),
        test_users=users.size,
        unknown_items=int(unknown.sum()),
        known_already=int((had & ~unknown).sum()),
        irrelevant=int((~speaks & ~unknown & ~had).sum()),
    )


def speaks_for(events: CodedEvents, rating_scale: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Return which events speak for their item, bool[n].

    Args:
        events: what users did.
        rating_scale: the lowest and the highest value, if values are ratings.
    """
    speaks = events.weight > 0
    if rating_scale is not None:
        lowest, highest = rating_scale
        least = lowest + LIKED * (highest - lowest)
        speaks &= ~(events.value < least)  # an event without a rating has no say against it
    return speaks


def known_items(events: CodedEvents, place_of: Mapping[str, int]) -> KnownItems:
    """Return the history of every user, as serving would know it.

    Args:
        events: those that are known.
        place_of: the place of each item among those of the sources.
    """
    histories = histories_of(events)
    code_of = {user: code for code, user in enumerate(events.user_ids)}
    codes = np.array([code_of[user] for user in histories.users], np.int64)
    places = np.array([place_of.get(item, -1) for item in histories.items], np.int64)

    user = np.repeat(codes, np.diff(histories.starts))
    at = places[histories.indices]
    order = np.lexsort((at, user))
    order = order[at[order] >= 0]
    starts = np.searchsorted(user[order], np.arange(len(events.user_ids) + 1))
    sets = ItemSets(starts.astype(np.int64), at[order].astype(np.int32))

    in_time = histories.by_time[at[histories.by_time] >= 0]
    in_time = in_time[np.argsort(user[in_time], kind="stable")]
    return KnownItems(sets, at[in_time].astype(np.int32), histories.weights[in_time])


def _sets(
    user: NDArray[np.int64], item: NDArray[np.int64], worth: Float64, users: int, items: int
) -> tuple[ItemSets, Float64]:
    """Return sets of items by row, and the most that each was worth; row -1 is left out."""
    kept = user >= 0
    cells, place = np.unique(user[kept] * items + item[kept], return_inverse=True)
    gains = np.zeros(cells.size)
    np.maximum.at(gains, place, worth[kept])
    starts = np.searchsorted(cells, np.arange(users + 1, dtype=np.int64) * items)
    return ItemSets(starts.astype(np.int64), (cells % items).astype(np.int32)), gains
