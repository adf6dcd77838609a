"""Readiness over HTTP: which policies wait for a first snapshot, where learning stands still."""

from collections.abc import Mapping, Sequence

from banditloop_client.schemas import Readiness, Stalled
from serve_app.store.progress import LearningHealth


def readiness(
    health: Mapping[str, LearningHealth], status: str | None = None, waiting: Sequence[str] = ()
) -> Readiness:
    """Sum up all policies in one answer.

    Args:
        health: how each policy's learning stands.
        status: the answer's status; None takes that of the policies' learning.
        waiting: names of the policies that wait for a first snapshot.
    """
    stalled = [
        where for name, each in health.items() if (where := stalled_at(name, each)) is not None
    ]
    unknown = any(each.state == "unknown" for each in health.values())
    state = "stalled" if stalled else "unknown" if unknown else "ok"
    return Readiness(state if status is None else status, state, list(waiting), stalled)


def stalled_at(policy: str, health: LearningHealth) -> Stalled | None:
    """Return where a policy's learning stands still, if it does.

    Not why: everybody may ask, and the reason is for those with a key.

    Args:
        policy: its name.
        health: how its learning stands.
    """
    stall = health.stall
    if stall is None:
        return None
    return Stalled(policy, stall.position, stall.kind, stall.since_ms, health.partition)
