"""The outcome of an entry that a command has appended to the log.

That is what success means, not how far the log was read.
"""

import time

from bandits.errors import RefusedError, StalledError
from bandits.log.positions import has_reached, is_after
from serve_app.admin.stored_policy import StoredPolicy

POLL_S = 0.05


def has_become(stored: StoredPolicy, at: str, kind: str, *, within_s: float) -> bool:
    """Wait until a learner has done what an entry says; return False if none has read it in time.

    Args:
        stored: the policy.
        at: the entry's position.
        kind: its kind.
        within_s: how long to wait, in seconds.

    Raises:
        RefusedError: it was refused, with the reason.
        StalledError: learning stands still, there or before.
    """
    deadline = time.monotonic() + within_s
    while True:
        # Asked before the refusals, which a learner writes before how far it has read.
        read = _is_read(stored, at, kind)
        for refused in stored.refusals():
            if (refused.position, refused.kind) == (at, kind):
                raise RefusedError(f"the {kind} at {at} was refused: {refused.reason}", kind)

        progress = stored.progress()
        stall = None if progress is None else progress.stall
        if not read and stall is not None and has_reached(at, stall.position):
            raise StalledError(stall.position, stall.kind, stall.reason)

        if read or time.monotonic() >= deadline:
            return read
        time.sleep(POLL_S)


def is_pinned(stored: StoredPolicy, name: str) -> None:
    """Demand that a pinned snapshot is served.

    Args:
        stored: the policy, whose learner has read the pin.
        name: the snapshot's id.

    Raises:
        RefusedError: another is served; with the reason.
    """
    stats, head = stored.stats(), stored.head()
    if stats is None or stats.pinned != name:
        raise RefusedError(
            f"{name} is not pinned: an unpin, a rollback or a new spec came after", "pin"
        )
    if head != name:
        raise RefusedError(
            f"{name} is pinned, but no longer stored: the newest snapshot is served; unpin", "pin"
        )


def _is_read(stored: StoredPolicy, at: str, kind: str) -> bool:
    # With several partitions a rollback is an entry of partition 0, and done by the next merge.
    if stored.partitions > 1 and kind == "rollback":
        head = stored.head()
        return head is not None and is_after(stored.find(head)[1].position, at)
    stats = stored.stats()
    return stats is not None and has_reached(stats.position, at)
