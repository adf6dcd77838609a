"""A checkpoint that is taken now, where a client is not to wait for the next one."""

import time

from bandits.log.positions import has_reached
from bandits.log.records import CheckpointRecord
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.personalizer.refusals import RefusedCall

POLL_S = 0.02


def checkpoint_now(stored: StoredPolicy, *, within_s: float) -> None:
    """Have a learner store a checkpoint of all that the log says by now.

    Args:
        stored: the policy.
        within_s: how long to wait for it, in seconds.

    Raises:
        RefusedCall: no learner has stored one in time.
    """
    deadline = time.monotonic() + within_s
    at = stored.control(CheckpointRecord())
    while not any(has_reached(each.position, at) for each in stored.checkpoints.list()):
        if time.monotonic() >= deadline:
            raise RefusedCall(
                503,
                "OperationNotAllowed",
                f"no learner has stored its state within {within_s:g} s: send it again once one"
                " runs, and banditloop doctor finds nothing",
            )
        time.sleep(POLL_S)
