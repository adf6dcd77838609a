"""``attackers``: among honest users are accounts that click on a few items to push them."""

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.parameters import AttackersParameters
from simulator.worlds.frozen.parts import Indexes
from simulator.worlds.frozen.tastes import (
    TasteWorld,
    tastes_of_users,
    users_by_visit,
    vectors_of_items,
)

_CHUNK = 50_000


class AttackersWorld(TasteWorld):
    """Tastes, and a share of visits by attackers, which do not count for the value of a policy.

    Every visit opens a page: honest users one that they like, attackers one of their targets. An
    attacker looks at all slots and clicks on targets alone.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
    """

    name = "attackers"

    def __init__(self, parameters: AttackersParameters, seed: int) -> None:
        attack = Chance(seed, "attacks").uniforms(parameters.visits) < parameters.share
        accounts = Chance(seed, "accounts").uniforms(parameters.visits) * parameters.accounts
        users = np.where(
            attack, parameters.users + accounts.astype(np.int64), users_by_visit(seed, parameters)
        )
        count = parameters.users + parameters.accounts

        # The items that fewest users like are pushed.
        _, appeals = vectors_of_items(seed, parameters)
        targets = np.argsort(appeals, kind="stable")[: parameters.targets]
        views = _views(seed, parameters, users, tastes_of_users(seed, count, parameters.rank))
        pushed = targets[
            (Chance(seed, "pushed").uniforms(parameters.visits) * len(targets)).astype(np.int64)
        ]

        super().__init__(
            parameters,
            seed,
            users=users,
            count=count,
            views=np.where(attack, pushed, views),
        )

        self.attack: NDArray[np.bool_] = attack
        """bool[visits]: whether a visit is an attacker's."""
        self.targets: Indexes = np.sort(targets)
        """Indexes of the items that are pushed."""
        self._pushes = np.where(np.isin(np.arange(parameters.items), targets), 1.0, 0.0)
        self._pushes *= parameters.persistence

    def stages(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[1, n]: P(click | the item is looked at); see FrozenWorld."""
        honest = super().stages(visits, items)
        return np.where(self.attack[visits], self._pushes[items], honest)

    def looked_at(self, visits: Indexes, slots: Indexes) -> Float64:
        """Return float64[n]: the probability that the slot is looked at; 1 for attackers.

        Args:
            visits: Numbers of visits.
            slots: As many slots; the two broadcast.
        """
        return np.where(self.attack[visits], 1.0, super().looked_at(visits, slots))

    def counted(self, visits: Indexes) -> NDArray[np.bool_]:
        """Return bool[n]: whether the visit is honest."""
        return ~self.attack[visits]


def _views(seed: int, parameters: AttackersParameters, users: Indexes, tastes: Float64) -> Indexes:
    """Return int64[visits]: the page that an honest user opens, softmax of what they like."""
    vectors, appeals = vectors_of_items(seed, parameters)
    chance, views = Chance(seed, "views"), np.empty(parameters.visits, np.int64)
    for first in range(0, parameters.visits, _CHUNK):
        visits = np.arange(first, min(first + _CHUNK, parameters.visits))
        liked = parameters.taste * tastes[users[visits]] @ vectors.T + appeals
        luck = chance.at(visits[:, None], np.arange(parameters.items))
        # The largest of logit plus Gumbel noise is a draw from the softmax.
        views[visits] = np.argmax(liked - np.log(-np.log(luck)), axis=1)
    return views
