"""The protocol of a world of sessions.

It begins sessions, and a session asks for decisions until its user leaves.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bandits.features.namespaces import CONTEXT, FEATURES, SCORES, NamespaceName
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import ActionSet, Context, Float64
from policies.candidate_pool import explicit_pool
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.requests import RankRequest
from policies.spec import PolicySpec

USE: Sequence[NamespaceName] = (CONTEXT, FEATURES, SCORES)
"""The namespaces that every policy of sessions sees: only features, no user or item ids."""
MAX_STEPS = 100
"""Decisions after which a session is cut off, whatever the world."""
_SPEC = PolicySpec("sessions", use=list(USE))


class Step(NamedTuple):
    """The consequence of a choice: its reward, and whether the user has left for good."""

    reward: float
    left: bool


class Session(Protocol):
    """One user's decisions, from arrival until leaving for good."""

    def request(self) -> RankRequest:
        """Return the decision that is asked for now, the same until the next choice.

        It has no event_id.
        """
        ...

    def choose(self, action_id: str) -> Step:
        """Show an action of the request, and go on."""
        ...


class SessionWorld(Protocol):
    """Where sessions come from.

    Two sessions begun from generators of the same state, and given the same choices, are the same.

    Attributes:
        schema: Every feature that its requests may have.
        max_actions: The most actions of one request.
    """

    name: str
    schema: FeatureSchema
    catalogue: Catalogue
    max_actions: int

    @property
    def scale(self) -> float | Float64:
        """What features are divided by while a network is trained: a number, or float64[d]."""
        ...

    def session(self, rng: np.random.Generator) -> Session:
        """Begin a session of a fresh user; ``rng`` is the session's from now on."""
        ...


def featurise_session(world: SessionWorld, request: RankRequest) -> tuple[Context, ActionSet]:
    """Return what a served policy sees of a request, built by the function that serves.

    Args:
        world: The world that asks.
        request: A request of one of its sessions.
    """
    pool = explicit_pool(request.actions or [])
    return featurise(_SPEC, world.catalogue, request.context, pool.ids, pool.features, pool.scores)
