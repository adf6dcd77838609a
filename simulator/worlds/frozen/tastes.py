"""Users whose tastes the context tells, and items that are always on offer."""

from collections.abc import Sequence

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.parameters import TasteParameters, VisitParameters
from simulator.worlds.frozen.parts import (
    DAY_MS,
    Coded,
    Indexes,
    Population,
    SignalKind,
    drawn_by_weight,
    examination_by_slot,
    logistic,
    start_ms,
)


class TasteWorld(FrozenWorld):
    """A world in which a click on a looked-at item has logit ``click + appeal + taste * t . v``.

    t is the user's taste, N(0, I) in ``rank`` dimensions, which the context tells as x0, x1 and so
    on; v is the item's, N(0, I / rank), which only clicks tell. A click earns 1.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
        users: int64[visits], the user of each visit; None: drawn by how often users come.
        count: How many users there are; None: as the parameters say.
        views: int64[visits], the item whose page is open at each visit; None: no pages.
    """

    def __init__(
        self,
        parameters: TasteParameters,
        seed: int,
        *,
        users: Indexes | None = None,
        count: int | None = None,
        views: Indexes | None = None,
    ) -> None:
        who = parameters.users if count is None else count
        self._tastes = tastes_of_users(seed, who, parameters.rank)
        self._vectors, self._appeals = vectors_of_items(seed, parameters)
        self._taste, self._click = parameters.taste, parameters.click
        self.log_uniform = parameters.log_uniform

        if users is None:
            users = users_by_visit(seed, parameters)
        tastes = {f"x{at}": self._tastes[:, at].tolist() for at in range(parameters.rank)}
        people = Population(
            item_ids=[f"i{at:04}" for at in range(parameters.items)],
            user_ids=user_ids(seed, who),
            times=times_of_visits(seed, parameters),
            users=users,
            context={name: Coded(values, users) for name, values in tastes.items()},
            items={},
            features=[{}] * parameters.items,
            user_columns=tastes,
            views=views,
        )
        super().__init__(
            parameters,
            seed,
            people,
            [SignalKind("click", 1.0, parameters.click_delay_s * 1000.0)],
            examination_by_slot(parameters.slots, parameters.examination),
        )

    def stages(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[1, n]: P(click | the item is looked at); see FrozenWorld."""
        tastes = self._tastes[self.people.users[visits]]
        affinity = (tastes * self.vectors(visits, items)).sum(axis=-1)
        return logistic(self._click + self._appeals[items] + self._taste * affinity)[None, :]

    def vectors(self, visits: Indexes, items: Indexes) -> Float64:  # noqa: ARG002 - drift turns them
        """Return float64[n, rank]: what items are like at visits.

        Args:
            visits: Numbers of visits.
            items: Indexes of items; the two broadcast.
        """
        vectors: Float64 = self._vectors[items]
        return vectors

    def log_weights(self, items: Indexes) -> Float64:
        """Return how much all users like the items: the logging policy knows that."""
        weights: Float64 = np.exp(self._appeals[items])
        return weights


def tastes_of_users(seed: int, count: int, rank: int) -> Float64:
    """Return float64[count, rank]: tastes, standard normal, rounded to what tables can tell.

    Args:
        seed: The world's seed.
        count: How many users.
        rank: Dimensions.
    """
    return Chance(seed, "tastes").normals(count, rank).round(4)


def vectors_of_items(seed: int, parameters: TasteParameters) -> tuple[Float64, Float64]:
    """Return float64[items, rank], what items are like, and float64[items], their appeal.

    Args:
        seed: The world's seed.
        parameters: The world's parameters.
    """
    vectors = Chance(seed, "items").normals(parameters.items, parameters.rank)
    appeals = parameters.appeal * Chance(seed, "appeals").normals(parameters.items)
    return vectors / np.sqrt(parameters.rank), appeals


def users_by_visit(seed: int, parameters: VisitParameters) -> Indexes:
    """Return int64[visits]: who comes; users differ lognormally in how often.

    Args:
        seed: The world's seed.
        parameters: The world's parameters.
    """
    weights = np.exp(parameters.activity * Chance(seed, "activity").normals(parameters.users))
    return drawn_by_weight(weights, Chance(seed, "users").uniforms(parameters.visits))


def times_of_visits(seed: int, parameters: VisitParameters) -> Indexes:
    """Return int64[visits]: when users come, one in each equal part of the world's days.

    Args:
        seed: The world's seed.
        parameters: The world's parameters.
    """
    places = np.arange(parameters.visits) + Chance(seed, "times").uniforms(parameters.visits)
    span = parameters.days * DAY_MS
    return start_ms(parameters) + (places / parameters.visits * span).astype(np.int64)


def user_ids(seed: int, count: int) -> Sequence[str]:
    """Return ids of users, in an order that tells nothing.

    Args:
        seed: The world's seed.
        count: How many.
    """
    return [f"u{at:05}" for at in Chance(seed, "user ids").order(count).tolist()]
