"""Policies in worlds of sessions: what whole sessions earn, and bandits that learn from them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.kernels.actions import draw
from bandits.log.positions import START
from bandits.types import ActionSet, Context, Float64, Interaction, Pmf, Policy, Snapshot, check_pmf
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec
from simulator.sessions.satiation import SatiationSession
from simulator.sessions.world import MAX_STEPS, Session, SessionWorld, featurise_session

SALT = b"sessions"
PUBLISH_EVERY = 500
SESSIONS_IN_TURN = 32
"""Sessions that a learning bandit serves in turn, so that it does not learn from only one user."""


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """The returns of sessions.

    Attributes:
        returns: float64[n], what each session earned.
        lengths: int64[n], its decisions.
    """

    returns: Float64
    lengths: NDArray[np.int64]


class KnowsClicks:
    """The best myopic policy there can be, in worlds only.

    It is told every P(click) and shows the highest. ``floor`` as everywhere, so that it explores as
    much as the policies it is compared with.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor

    def pmf_of(self, session: Session) -> Pmf:
        """Return float64[K]; ties share."""
        assert isinstance(session, SatiationSession)  # noqa: S101 - the caller's world has no other
        clicks = session.clicks()
        best = clicks == clicks.max()
        pmf: Pmf = (1.0 - self._floor) * best / best.sum() + self._floor / best.size
        return pmf


def play(
    world: SessionWorld,
    policy: Policy | KnowsClicks,
    sessions: int,
    seed: int,
    *,
    steps: int = MAX_STEPS,
) -> Played:
    """Let a policy choose in sessions. The same seed gives every policy the same users and chance.

    Args:
        world: The world of the sessions.
        policy: The policy, which learns no more.
        sessions: How many sessions are played.
        seed: Seed of the users and of the policy's chance.
        steps: The most decisions of one session.
    """
    returns, lengths = np.zeros(sessions), np.zeros(sessions, np.int64)
    for number in range(sessions):
        session = world.session(np.random.default_rng([seed, number, 0]))
        chance = np.random.default_rng([seed, number, 1]).random(MAX_STEPS)

        for step in range(steps):
            request = session.request()
            pmf = (
                policy.pmf_of(session)
                if isinstance(policy, KnowsClicks)
                else check_pmf(policy.pmf(*featurise_session(world, request)))
            )
            action = (request.actions or [])[draw(pmf, float(chance[step]))]
            reward, left = session.choose(action.id)

            returns[number] += reward
            lengths[number] = step + 1
            if left:
                break
    return Played(returns, lengths)


def train_bandit(
    world: SessionWorld,
    spec: PolicySpec,
    steps: int,
    seed: int,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Snapshot:
    """Return what a bandit knows that has learned each decision's own reward and nothing else.

    Args:
        world: The world of the sessions.
        spec: The bandit.
        steps: How many decisions it makes and learns from.
        seed: Seed of the users and of the bandit's chance.
        progress: Told the number of decisions, at every snapshot.
    """
    learner = make_learner(spec, salt=SALT)
    policy = load_policy(spec, learner.snapshot(START))
    chance = np.random.default_rng([seed, 3])

    started = SESSIONS_IN_TURN
    playing = [
        world.session(np.random.default_rng([seed, number, 2]))
        for number in range(SESSIONS_IN_TURN)
    ]
    lengths = [0] * SESSIONS_IN_TURN
    pending: list[Interaction] = []

    for number in range(steps):
        place = number % SESSIONS_IN_TURN
        session = playing[place]

        request = session.request()
        context, actions = featurise_session(world, request)
        pmf = check_pmf(policy.pmf(context, actions))
        chosen = draw(pmf, float(chance.random()))
        reward, left = session.choose(actions.ids[chosen])
        pending.append(_interaction(number, context, actions, chosen, pmf, reward))
        lengths[place] += 1

        # A session that ends makes place for the next.
        if left or lengths[place] == MAX_STEPS:
            playing[place] = world.session(np.random.default_rng([seed, started, 2]))
            lengths[place] = 0
            started += 1

        if len(pending) == PUBLISH_EVERY:
            learner.learn(pending)
            pending = []
            policy = load_policy(spec, learner.snapshot(f"{number + 1}-0"))
            progress(number + 1)

    learner.learn(pending)
    return learner.snapshot(f"{steps}-0")


def _interaction(
    number: int, context: Context, actions: ActionSet, chosen: int, pmf: Pmf, reward: float
) -> Interaction:
    return Interaction(f"{number}", 0, context, actions, chosen, float(pmf[chosen]), reward, number)
