"""A world whose users tire of what they have just seen, leave when bored, and may come back.

A user has an affinity to each topic. Showing an item adds to the satiation of its topic and takes
from that of all others, whether it was clicked or not. With u the user's affinity to the item's
topic, q the item's quality and s in [0, 1] the satiation of the topic before it is shown:

    P(click)          = sigmoid(offset + u + q - tires s)
    P(leaves, click)  = leaves + bores s              P(leaves, no click) = leaves + bores s + dull
    P(comes back)     = returns (1 - mean satiation)  and then every satiation is halved

and rounded down to a level.

A session is all visits of one user: it ends when the user leaves and does not come back. Its return
is its number of clicks. With tires = bores = returns = 0 a choice matters for what comes after it
only through its own click, and with dull = 0 not even so: then the myopic policy is optimal.

Source of the idea: satiation in recommenders, Kapoor et al. 2015 (doi:10.1145/2684822.2685306);
myopic against long-term choices, Ie et al. 2019 (arXiv:1905.12767).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from simulator.sessions.world import Step

Levels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The numbers of a world; the module's formulas say what the others do.

    Attributes:
        candidates: Least and most items that a decision is among, drawn afresh each time.
        affinity_spread: Standard deviation of a group's affinities.
        personal_spread: Standard deviation of a user's own affinities, around the group's.
        score_noise: Standard deviation of the error of the source ``cf``, which scores items by the
            user's affinity.
        quality: Items' qualities are spread evenly over +- this.
        levels: Steps of satiation.
        rise: Steps that showing an item adds; every decision takes one away.
    """

    name: str
    topics: int = 5
    items_per_topic: int = 8
    groups: int = 4
    candidates: tuple[int, int] = (6, 12)
    affinity_spread: float = 0.7
    personal_spread: float = 0.4
    score_noise: float = 0.2
    quality: float = 0.6
    offset: float = -0.5
    levels: int = 4
    rise: int = 2
    tires: float = 1.5
    leaves: float = 0.06
    bores: float = 0.15
    dull: float = 0.03
    returns: float = 0.4


# Fixed before any policy was trained in them. The first two differ in nothing but the carry-over.
WORLDS: Mapping[str, Parameters] = {
    world.name: world
    for world in (
        Parameters("satiation"),
        Parameters("steady", tires=0.0, leaves=0.1, bores=0.0, dull=0.0, returns=0.0),
        Parameters(
            "small",
            topics=3,
            items_per_topic=2,
            groups=2,
            candidates=(6, 6),
            personal_spread=0.0,
            score_noise=0.0,
            quality=0.4,
        ),
    )
}


class SatiationWorld:
    """The world with these parameters; ``seed`` draws the groups' affinities. See SessionWorld."""

    scale = 1.0

    def __init__(self, parameters: Parameters, seed: int = 0) -> None:
        self.parameters = p = parameters
        self.name = p.name
        self.max_actions = p.candidates[1]
        rng = np.random.default_rng([seed, 7])
        self.affinities: Float64 = rng.normal(0.0, p.affinity_spread, (p.groups, p.topics))
        self.topics = np.repeat(np.arange(p.topics), p.items_per_topic)
        self.qualities = np.tile(np.linspace(-p.quality, p.quality, p.items_per_topic), p.topics)
        self.ids = tuple(f"i{number}" for number in range(len(self.topics)))
        self.catalogue = Catalogue()
        self.schema = FeatureSchema.of(
            context=[*(f"group=g{g}" for g in range(p.groups)), "satiation"],
            features=[*(f"topic=t{t}" for t in range(p.topics)), "quality", "recent"],
            scores=["cf.score", "cf.rank", "cf.present"],
        )

    def session(self, rng: np.random.Generator) -> "SatiationSession":
        """Begin a session; see SessionWorld."""
        return SatiationSession(self, rng)

    def request(
        self, group: int, items: NDArray[np.intp], scores: Float64, levels: Levels
    ) -> RankRequest:
        """Return what is asked about a user of a group.

        Args:
            group: The group, from 0.
            items: int[K], the items that the decision is among.
            scores: float64[items of the world], of the source ``cf``.
            levels: int[topics], the user's satiations.
        """
        top, actions = self.parameters.levels, []
        for item in items.tolist():
            topic = int(self.topics[item])
            own: FeatureMap = {
                "topic": f"t{topic}",
                "quality": float(self.qualities[item]),
                "recent": float(levels[topic]) / top,
            }
            actions.append(ActionRequest(self.ids[item], own, {"cf": float(scores[item])}))

        return RankRequest(
            context={"group": f"g{group}", "satiation": float(levels.mean()) / top}, actions=actions
        )

    def click(self, affinity: Float64, items: NDArray[np.intp], levels: Levels) -> Float64:
        """Return P(click) of items, float64[n].

        Args:
            affinity: float64[topics].
            items: int[n].
            levels: int[topics], the user's satiations.
        """
        p, topics = self.parameters, self.topics[items]
        logit = (
            p.offset
            + affinity[topics]
            + self.qualities[items]
            - p.tires * levels[topics] / p.levels
        )
        chance: Float64 = 1.0 / (1.0 + np.exp(-logit))
        return chance

    def leave(self, topic: int, levels: Levels, *, clicked: bool) -> float:
        """Return the probability that the user leaves this visit after being shown the topic.

        Args:
            topic: The topic, from 0.
            levels: int[topics], satiations before it was shown.
            clicked: Whether the item was clicked.
        """
        p = self.parameters
        return p.leaves + p.bores * float(levels[topic]) / p.levels + (0.0 if clicked else p.dull)

    def shown(self, topic: int, levels: Levels) -> Levels:
        """Return the satiations after a topic was shown, int[topics].

        Args:
            topic: The topic, from 0.
            levels: int[topics], satiations before it was shown, each from 0 to the parameter
                ``levels``; they are not changed.
        """
        after = np.maximum(levels - 1, 0)
        after[topic] = min(self.parameters.levels, int(levels[topic]) + self.parameters.rise)
        return after

    def comes_back(self, levels: Levels) -> float:
        """Return the probability that a user who has left with these satiations comes back."""
        return self.parameters.returns * (1.0 - float(levels.mean()) / self.parameters.levels)

    @staticmethod
    def rested(levels: Levels) -> Levels:
        """Return the satiations of a user who has come back."""
        return levels // 2


class SatiationSession:
    """A session of one user; see Session.

    What is random is drawn from ``rng`` in a fixed order, a fixed number of draws per step.
    """

    def __init__(self, world: SatiationWorld, rng: np.random.Generator) -> None:
        p = world.parameters
        self._world, self._rng = world, rng
        self.group = int(rng.integers(p.groups))
        self.affinity: Float64 = world.affinities[self.group] + rng.normal(
            0.0, p.personal_spread, p.topics
        )
        self._scores = self.affinity[world.topics] + rng.normal(0.0, p.score_noise, len(world.ids))
        self.levels: Levels = np.zeros(p.topics, np.int64)
        self._draw()

    def _draw(self) -> None:
        low, high = self._world.parameters.candidates
        count = int(self._rng.integers(low, high + 1))
        self.items = self._rng.permutation(len(self._world.ids))[:count]

    def clicks(self) -> Float64:
        """Return float64[K]: P(click) of each action of the request; known to the world only."""
        return self._world.click(self.affinity, self.items, self.levels)

    def request(self) -> RankRequest:
        """Return the decision that is asked for now; see Session."""
        return self._world.request(self.group, self.items, self._scores, self.levels)

    def choose(self, action_id: str) -> Step:
        """Show an action of the request, and go on; see Session.

        Raises:
            InvalidFieldError: It is no action of the request.
        """
        world = self._world
        item = int(action_id.removeprefix("i")) if action_id in world.ids else -1
        if item not in self.items:
            raise InvalidFieldError(
                f"{action_id!r} is not among the actions that were asked about", "action_id"
            )

        topic = int(world.topics[item])
        chances = self._rng.random(3)
        clicked = bool(chances[0] < world.click(self.affinity, np.array([item]), self.levels)[0])
        leaves = bool(chances[1] < world.leave(topic, self.levels, clicked=clicked))

        # Whether a user comes back depends on the satiations after the item was shown.
        self.levels = world.shown(topic, self.levels)
        left = leaves and not chances[2] < world.comes_back(self.levels)
        if leaves:
            self.levels = world.rested(self.levels)

        self._draw()
        return Step(float(clicked), left)


@lru_cache(maxsize=16)
def satiation_world(name: str, seed: int = 0) -> SatiationWorld:
    """Return one of WORLDS.

    Args:
        name: The world's name.
        seed: Seed of its groups' affinities.

    Raises:
        InvalidFieldError: There is no such world.
    """
    if name not in WORLDS:
        raise InvalidFieldError(
            f"there is no world {name!r}; there are {', '.join(WORLDS)}, movielens", "world"
        )
    return SatiationWorld(WORLDS[name], seed)
