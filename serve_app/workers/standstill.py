"""A learner that cannot go on stays, says where and why, and tries again at a bounded pace.

It says what it refuses.
"""

import logging
import time
from collections import deque

import msgspec

from bandits.errors import BanditloopError, StalledError
from bandits.log.positions import has_reached, position_before
from policies.fold.checkpoint import Refusal
from serve_app.store.clients import REDIS_ERRORS
from serve_app.store.event_log import LogReader
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.progress import KEPT_REFUSALS, Progress, Stall

PACE_S, MAX_PACE_S = 0.5, 30.0
"""Until the next attempt: twice as long each time that the same fails."""
SAY_S = 1.0
WORK = "work after"
"""The kind of what fails, and is no entry: what is made, stored and published of the model."""
AGAIN_S = 120.0
"""What fails again within this time after it was got over has not gone away."""

log = logging.getLogger("banditloop.learner")


class Standstill:
    """What one learner says of its progress.

    ``stall``: where it stands still now; None when it gets on.
    """

    def __init__(self, keys: Keys, lease: Lease, reader: LogReader) -> None:
        self.stall: Stall | None = None
        self._keys, self._lease, self._reader = keys, lease, reader
        self._retry_at = self._said_at = self._over_at = 0.0
        self._before: Stall | None = None
        self._refused: deque[Refusal] = deque(maxlen=KEPT_REFUSALS)

    def wait_s(self) -> float:
        """How long until the next attempt is due."""
        return max(0.0, self._retry_at - time.monotonic()) if self.stall is not None else 0.0

    def stands(self, error: Exception, position: str) -> None:
        """Something went wrong; ``position``: of the fold, if it was no entry."""
        kind, reason = WORK, f"{type(error).__name__}: {error}"
        if isinstance(error, StalledError):
            position, kind, reason = error.position, error.kind, error.reason
        elif isinstance(error, BanditloopError):
            reason = error.message
        known = self.stall
        if (
            known is None
            and self._before is not None
            and time.monotonic() - self._over_at < AGAIN_S
        ):
            known = self._before
        if known is not None and (known.position, known.kind) == (position, kind):
            self.stall = Stall(position, kind, reason, known.since_ms, known.attempts + 1)
        else:
            self.stall = Stall(position, kind, reason, round(time.time() * 1000))
        pace_s = min(PACE_S * 2 ** min(self.stall.attempts - 1, 20), MAX_PACE_S)
        self._retry_at, self._said_at = time.monotonic() + pace_s, 0.0
        told = log.error if self.stall.attempts == 1 else log.warning
        told(
            "learning of policy %s stands still at the %s %s: %s. The model serves on; attempt"
            " %d, the next in %g s",
            self._keys.policy,
            kind,
            position,
            reason,
            self.stall.attempts,
            pace_s,
            exc_info=error if self.stall.attempts == 1 else None,
        )

    def gets_on(self, position: str) -> None:
        """A step was taken, up to a position: what it stood still at is behind it, or not yet reached again."""
        if self.stall is not None and has_reached(position, self.stall.position):
            log.warning(
                "learning of policy %s goes on past %s", self._keys.policy, self.stall.position
            )
            self._before, self._over_at = self.stall, time.monotonic()
            self.stall, self._said_at = None, 0.0

    def refused(self, refusal: Refusal) -> None:
        """The fold has refused an entry: it is said under the lease."""
        log.warning("the %s at %s is refused: %s", refusal.kind, refusal.position, refusal.reason)
        self._refused.append(refusal)

    def say(self, position: str) -> None:
        """Once in SAY_S, and what was refused at once, if this process leads.

        Raises:
            LeaseLostError, RedisError: it does not, or it is not known.
        """
        due = time.monotonic() - self._said_at >= SAY_S
        if self._lease.token is None or not (due or self._refused):
            return
        if self.stall is not None and self.stall.kind != WORK:
            position = position_before(self.stall.position)
        progress = Progress(position, self._reader.now_ms(), self.stall)
        commands: list[Command] = [("SET", self._keys.progress, msgspec.msgpack.encode(progress))]
        pending = list(self._refused)
        for each in pending:
            encoded = msgspec.msgpack.encode(each)
            commands += [
                ("LREM", self._keys.refusals, 0, encoded),
                ("LPUSH", self._keys.refusals, encoded),
            ]
        if pending:
            commands.append(("LTRIM", self._keys.refusals, 0, KEPT_REFUSALS - 1))
        self._lease.guarded(commands)
        for _ in pending:
            self._refused.popleft()
        self._said_at = time.monotonic()


def redis_error_behind(error: BaseException | None) -> BaseException | None:
    """Redis's error that led to this one."""
    while error is not None and not isinstance(error, REDIS_ERRORS):
        error = error.__cause__
    return error
