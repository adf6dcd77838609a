"""``segments``: two arms whose difference is known for every segment of users."""

from typing import NamedTuple

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.names import invented_words
from simulator.worlds.frozen.parameters import SegmentsParameters
from simulator.worlds.frozen.parts import (
    DAY_MS,
    Coded,
    Indexes,
    Population,
    SignalKind,
    drawn_by_weight,
    logistic,
)
from simulator.worlds.frozen.tastes import times_of_visits, user_ids, users_by_visit

USUAL, NEW = 0, 1
"""Indexes of the two arms."""


class SegmentUplift(NamedTuple):
    """The truth about a segment.

    ``usual`` and ``new`` are the expected revenue per visit of either arm, ``uplift`` is their
    difference, and ``relative`` that as a share of ``usual``.
    """

    segment: str
    users: int
    visits: int
    usual: float
    new: float
    uplift: float
    relative: float


class SegmentsWorld(FrozenWorld):
    """Users who buy seldom, for amounts that are skewed; the new arm makes some buy more often.

    A user keeps a propensity to buy, an average amount and an uplift, so visits of one user are
    alike: users, not visits, are the cases of a comparison. The reward is the revenue.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
    """

    name = "segments"
    log_uniform = 0.0

    def __init__(self, parameters: SegmentsParameters, seed: int) -> None:
        count, chance = parameters.users, Chance(seed, "buyers")
        segments = drawn_by_weight(
            np.array(parameters.shares), Chance(seed, "segments").uniforms(count)
        )
        buying, amounts, lifts = chance.normals(3, count)
        usual = logistic(parameters.buys + parameters.buys_spread * buying)
        uplifts = np.array(parameters.uplifts)[segments] + parameters.uplift_spread * lifts

        self._buys: Float64 = np.stack([usual, np.clip(usual * (1.0 + uplifts), 0.0, 1.0)])
        spread = parameters.amount_user_spread
        self._amounts: Float64 = parameters.amount * np.exp(spread * amounts - spread**2 / 2.0)
        self._arms = np.array([parameters.holdout, 1.0 - parameters.holdout])
        self._holdout_chance = Chance(seed, "holdout")
        self.segments: Indexes = segments
        """int64[users]: the segment of each user."""

        names = invented_words(Chance(seed, "segment names"), len(parameters.shares))
        of_users = [names[segment] for segment in segments.tolist()]
        users = users_by_visit(seed, parameters)
        people = Population(
            item_ids=["usual", "new"],
            user_ids=user_ids(seed, count),
            times=times_of_visits(seed, parameters),
            users=users,
            context={"segment": Coded(of_users, users)},
            items={},
            features=[{}, {}],
            user_columns={"segment": of_users},
        )
        delay_ms = parameters.purchase_delay_days * DAY_MS
        bought = SignalKind(
            "purchase", 0.0, delay_ms, worth_of_value=1.0, spread=parameters.amount_spread
        )
        super().__init__(parameters, seed, people, [bought], np.ones(1))
        self._names = names

    def stages(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[1, n]: P(purchase); see FrozenWorld."""
        bought: Float64 = self._buys[items, self.people.users[visits]][None, :]
        return bought

    def values(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[1, n]: the mean amount; see FrozenWorld."""
        amounts = self._amounts[self.people.users[visits]]
        return np.broadcast_to(amounts, np.broadcast_shapes(visits.shape, items.shape))[None, :]

    def log_weights(self, items: Indexes) -> Float64:
        """Return the shares of the arms."""
        weights: Float64 = self._arms[items]
        return weights

    def log_chance(self, visits: Indexes, slot: int) -> Float64:
        """Return float64[n]: a uniform that a user keeps, so that nobody sees both arms.

        Args:
            visits: Numbers of visits.
            slot: The slot.
        """
        return self._holdout_chance.at(self.people.users[visits], slot)

    def uplifts(self) -> list[SegmentUplift]:
        """Return the truth of every segment, and of all users together as the last, named ``all``.

        It is exact: of these users and these visits, over all that could happen at them.
        """
        visits = np.arange(self.visits)
        of_visits = self.segments[self.people.users]
        arms = [self.means(visits, np.array([arm])) for arm in (USUAL, NEW)]

        found = []
        for at, name in [*enumerate(self._names), (None, "all")]:
            mine = np.ones(len(visits), bool) if at is None else of_visits == at
            users = len(self.segments) if at is None else int((self.segments == at).sum())
            if mine.any():
                usual, new = (float(means[mine].mean()) for means in arms)
                lift = new - usual
                found.append(
                    SegmentUplift(name, users, int(mine.sum()), usual, new, lift, lift / usual)
                )
        return found
