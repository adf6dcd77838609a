"""A log of sessions, as a service would have made it.

Decisions are made by the path that serves, and joined with their rewards.
"""

import msgspec
import numpy as np

from bandits.types import Snapshot
from policies.candidate_pool import explicit_pool
from policies.ranker import Ranker
from policies.spec import PolicySpec
from simulator.logs.rows import LoggedDecision
from simulator.sessions.play import SALT
from simulator.sessions.world import MAX_STEPS, SessionWorld

DECISION_MS = 10_000
"""Time from one decision of a user to the next; users follow each other a day apart."""
DAY_MS = 86_400_000


def log_sessions(
    world: SessionWorld, spec: PolicySpec, snapshot: Snapshot, sessions: int, seed: int
) -> list[LoggedDecision]:
    """Return what a policy chose in sessions and what it earned: rows for an evaluation.

    Args:
        world: The world of the sessions.
        spec: The policy.
        snapshot: What it has learned; it learns no more.
        sessions: How many sessions are played.
        seed: Seed of the sessions.
    """
    ranker = Ranker(spec, [], salt=SALT)
    ranker.serve("log", snapshot)
    ranker.offer(world.catalogue)

    rows = []
    for number in range(sessions):
        session = world.session(np.random.default_rng([seed, number, 4]))
        for step in range(MAX_STEPS):
            request = msgspec.structs.replace(
                session.request(), event_id=f"{seed}.{number}.{step}", user_id=f"{seed}.{number}"
            )

            # The service decides, and the user answers.
            record = ranker.decide(request, explicit_pool(request.actions or []))
            (chosen,) = record.chosen
            reward, left = session.choose(record.action_ids[chosen])

            rows.append(
                LoggedDecision(
                    event_id=record.event_id,
                    context=record.context,
                    action_ids=record.action_ids,
                    chosen=chosen,
                    propensity=record.propensity(0),
                    reward=reward,
                    features=record.features,
                    scores=record.source_scores(),
                    pmf=record.pmfs()[0],
                    time_ms=1 + number * DAY_MS + step * DECISION_MS,
                    record=record,
                    catalogue=world.catalogue,
                )
            )
            if left:
                break
    return rows
