"""The optimum of a small world by dynamic programming, and the exact value of any policy in it.

Exact where a decision is among all items and a user is told by the group: then group and satiations
are the whole state. Value iteration (Bellman 1957); every step ends the session with a probability
above 0, so it contracts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.types import Float64
from simulator.sessions.satiation import Levels, SatiationWorld

TOLERANCE = 1e-12
Choice = Callable[[int, Levels], Float64]
"""Returns a PMF over all items, float64[items], from group and satiations."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """One group's decision process: S states, A items.

    Attributes:
        reward: float64[S, A], P(click).
        goes_on: float64[S, A], the probability that the visit goes on.
        comes_back: float64[S, A], the probability that the user leaves and comes back.
        after: int[S, A], the state after a step.
        rested: int[S, A], the state after a return.
    """

    states: list[Levels]
    reward: Float64
    goes_on: Float64
    comes_back: Float64
    after: NDArray[np.intp]
    rested: NDArray[np.intp]

    def backup(self, value: Float64) -> Float64:
        """Return float64[S, A]: reward and what follows, if a state is worth ``value`` [S]."""
        worth: Float64 = (
            self.reward + self.goes_on * value[self.after] + self.comes_back * value[self.rested]
        )
        return worth


Improve = Callable[[Chain, Float64], Float64]
"""Returns the value of each state, float64[S], from what each action is worth, float64[S, A]."""


def chain_of(world: SatiationWorld, group: int) -> Chain:
    """Return the decision process of one group of users.

    Args:
        world: A small world.
        group: The group, from 0.

    Raises:
        InvalidFieldError: The world's states are more than group and satiations.
    """
    p = world.parameters
    if p.personal_spread or p.candidates != (len(world.ids), len(world.ids)):
        raise InvalidFieldError(
            f"dynamic programming needs a world like 'small', not {p.name!r}", "world"
        )

    states = [
        np.array(levels, np.int64) for levels in product(range(p.levels + 1), repeat=p.topics)
    ]
    number = {tuple(levels.tolist()): at for at, levels in enumerate(states)}

    shape = len(states), len(world.ids)
    reward, goes_on, comes_back = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    after, rested = np.zeros(shape, np.intp), np.zeros(shape, np.intp)

    items = np.arange(len(world.ids))
    for at, levels in enumerate(states):
        reward[at] = world.click(world.affinities[group], items, levels)
        for item, topic in enumerate(world.topics.tolist()):
            then = world.shown(topic, levels)

            # The user leaves whether or not the item was clicked, with other probabilities.
            chance = reward[at, item]
            leaves = chance * world.leave(topic, levels, clicked=True)
            leaves += (1.0 - chance) * world.leave(topic, levels, clicked=False)

            goes_on[at, item] = 1.0 - leaves
            comes_back[at, item] = leaves * world.comes_back(then)
            after[at, item] = number[tuple(then.tolist())]
            rested[at, item] = number[tuple(world.rested(then).tolist())]

    return Chain(states, reward, goes_on, comes_back, after, rested)


def optimal_return(world: SatiationWorld) -> float:
    """Return the largest expected return of a session, from a fresh user of a random group."""
    return _mean_return(world, lambda _, worth: worth.max(axis=1))


def myopic_return(world: SatiationWorld) -> float:
    """Return the expected return of always showing the item of the highest P(click).

    P(click) is known; of several such items the first is shown.
    """
    return _mean_return(
        world, lambda chain, worth: worth[np.arange(len(worth)), chain.reward.argmax(axis=1)]
    )


def value_of(world: SatiationWorld, choice: Choice) -> float:
    """Return the expected return of a policy that looks at group and satiations only.

    Args:
        world: A small world.
        choice: The policy.
    """
    values = []
    for group in range(world.parameters.groups):
        chain = chain_of(world, group)
        pmfs = np.array([choice(group, levels) for levels in chain.states])
        values.append(_solve(chain, partial(_followed, pmfs)))
    return float(np.mean(values))


def _followed(pmfs: Float64, _: Chain, worth: Float64) -> Float64:
    mean: Float64 = (pmfs * worth).sum(axis=1)
    return mean


def _mean_return(world: SatiationWorld, improve: Improve) -> float:
    return float(
        np.mean(
            [_solve(chain_of(world, group), improve) for group in range(world.parameters.groups)]
        )
    )


def _solve(chain: Chain, improve: Improve) -> float:
    """Return the value of the first state, a fresh user's, at the fixed point."""
    value = np.zeros(len(chain.states))
    while True:
        then = improve(chain, chain.backup(value))
        if np.abs(then - value).max() < TOLERANCE:
            return float(then[0])
        value = then
