"""What a world of sessions is: it begins sessions, and a session asks for decisions until its user leaves."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bandits.features.namespaces import CONTEXT, FEATURES, SCORES, NamespaceName
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import ActionSet, Context
from policies.catalogue import Catalogue
from policies.features import featurise
from policies.pool import explicit_pool
from policies.requests import RankRequest
from policies.spec import PolicySpec

USE: Sequence[NamespaceName] = (CONTEXT, FEATURES, SCORES)
"""The namespaces that every policy of sessions sees: neither who the user is nor which item it is, only features."""
MAX_STEPS = 100
"""Decisions after which a session is cut off, whatever the world."""
_SPEC = PolicySpec("sessions", use=list(USE))


class Step(NamedTuple):
    """What a choice brought: its reward, and whether the user has left for good."""

    reward: float
    left: bool


class Session(Protocol):
    """One user's decisions, from arrival until leaving for good."""

    def request(self) -> RankRequest:
        """The decision that is asked for now, without an event_id.

        The same until the next choice.
        """
        ...

    def choose(self, action_id: str) -> Step:
        """Show an action of the request, and go on."""
        ...


class SessionWorld(Protocol):
    """Where sessions come from.

    ``schema``: every feature that its requests may have; ``max_actions``: the most of one.

    Two sessions begun from generators of the same state, and given the same choices, are the same.
    """

    name: str
    schema: FeatureSchema
    catalogue: Catalogue
    max_actions: int

    def session(self, rng: np.random.Generator) -> Session:
        """A new session of a fresh user; ``rng`` is the session's from now on."""
        ...


def featurise_session(world: SessionWorld, request: RankRequest) -> tuple[Context, ActionSet]:
    """What a served policy sees of a request: built by the function that serves."""
    pool = explicit_pool(request.actions or [])
    return featurise(_SPEC, world.catalogue, request.context, pool.ids, pool.features, pool.scores)
