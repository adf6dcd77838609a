"""A frozen world in the loop of ``simulator.worlds.loop``: policies learn in it, in one process."""

import numpy as np

from policies.requests import ActionRequest, Item, RankRequest
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.parts import Indexes


class FrozenRequests:
    """The visits of a frozen world as requests for one item of the visit's pool.

    The loop's own generator is not used: the world's luck is that of its seed, so that every policy
    meets the same users with the same luck. A reward is the worth of all signals in one sum, and
    comes when the loop's ``Timing`` says. Round k of a run is visit ``first + k``; in ``attackers``
    the honest ones are those of ``world.counted``.

    Args:
        world: The world.
        first: The visit to begin with.
    """

    def __init__(self, world: FrozenWorld, first: int = 0) -> None:
        self.world, self._next = world, first
        people = world.people
        self._actions = [
            ActionRequest(item_id, features or None)
            for item_id, features in zip(people.item_ids, people.features, strict=True)
        ]

    @property
    def number(self) -> int:
        """The visit that was asked for last."""
        return self._next - 1

    def request(self, rng: np.random.Generator) -> RankRequest:  # noqa: ARG002 - see the class
        """Return the next visit's request.

        Raises:
            InvalidFieldError: The world has ended.
        """
        visit = self.world.visit(self._next)
        pool = self.world.pools(np.array([self._next]))[0]
        self._next += 1
        return RankRequest(
            user_id=visit.user_id,
            context=visit.context,
            history=list(visit.recent),
            actions=[self._actions[item] for item in pool.tolist()],
        )

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:  # noqa: ARG002 - see the class
        """Return what showing an item in the first slot earns.

        Args:
            request: The request of the visit that was asked for last.
            action_id: The item that was chosen.
            rng: Left as it is: nothing is drawn.
        """
        return self.world.reward(self.world.outcome(self.number, [action_id]))


class FrozenVisitors(FrozenRequests):
    """The visits of a frozen world as requests of users, for whom a policy's sources propose items.

    What is not on offer at the visit is excluded. Else they are as those of ``FrozenRequests``.

    Args:
        world: The world.
        first: The visit to begin with.
    """

    def __init__(self, world: FrozenWorld, first: int = 0) -> None:
        super().__init__(world, first)
        self._offered: Indexes | None = None
        self._excluded: list[str] = []

    def request(self, rng: np.random.Generator) -> RankRequest:  # noqa: ARG002 - see the class
        """Return the next visit's request.

        Raises:
            InvalidFieldError: The world has ended.
        """
        visit = self.world.visit(self._next)
        self._next += 1
        # The same items are on offer all day.
        if visit.offered is not self._offered:
            self._offered, people = visit.offered, self.world.people
            gone = np.ones(len(people.item_ids), np.bool_)
            gone[visit.offered] = False
            self._excluded = [people.item_ids[at] for at in np.flatnonzero(gone).tolist()]

        return RankRequest(
            user_id=visit.user_id,
            context=visit.context,
            history=list(visit.recent),
            exclude=self._excluded,
        )


def items_on_offer(world: FrozenWorld, number: int) -> list[Item]:
    """Return the items on offer at a visit, with features, as a service's catalogue takes them.

    Args:
        world: The world.
        number: The visit.
    """
    people = world.people
    return [Item(people.item_ids[at], people.features[at]) for at in world.offered(number).tolist()]
