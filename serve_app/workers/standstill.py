"""A learner that cannot go on stays, writes where and why, and tries again at a bounded pace."""

import logging
import time
from collections import deque

import msgspec

from bandits.errors import BanditloopError, StalledError
from bandits.log.positions import has_reached, position_before
from policies.fold.checkpoint import Refusal
from serve_app.store.clients import REDIS_ERRORS
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.progress import KEPT_REFUSALS, Progress, Stall
from serve_app.workers.learner_log import SAME_S

PACE_S, MAX_PACE_S = 0.5, 30.0
"""Time until the next attempt: twice as long each time that the same fails."""
SAY_S = 1.0
"""How often the leader writes its progress."""
WORK = "work after"
"""The kind of a failure in what follows an entry: making, storing and publishing the model."""
AGAIN_S = 120.0
"""Seconds: a failure that comes again within them after it was got over had not gone away."""

log = logging.getLogger("banditloop.learner")


class Standstill:
    """Reports the progress of one learner.

    ``stall`` is where it stands still now; None while it gets on.
    """

    def __init__(self, keys: Keys, lease: Lease, reader: RedisLog) -> None:
        """Write under ``lease``, on the clock of the log that ``reader`` reads."""
        self.stall: Stall | None = None
        self._keys, self._lease, self._reader = keys, lease, reader
        self._retry_at = self._written_at = self._over_at = 0.0
        self._overcome: Stall | None = None
        self._refused: deque[Refusal] = deque(maxlen=KEPT_REFUSALS)
        self._said: tuple[bytes | None, str, Stall | None] = None, "", None

    def wait_s(self) -> float:
        """Return how many seconds are left until the next attempt is due."""
        return max(0.0, self._retry_at - time.monotonic()) if self.stall is not None else 0.0

    def record_failure(self, error: Exception, position: str) -> None:
        """Stand still.

        Args:
            error: what went wrong. A StalledError names its entry.
            position: where the fold is, for an error that is no entry's.
        """
        kind, reason = WORK, f"{type(error).__name__}: {error}"
        if isinstance(error, StalledError):
            position, kind, reason = error.position, error.kind, error.reason
        elif isinstance(error, BanditloopError):
            reason = error.message

        # The attempts go on being counted where it stood still a moment ago.
        before = self.stall
        if before is None and time.monotonic() - self._over_at < AGAIN_S:
            before = self._overcome
        if before is not None and (before.position, before.kind) == (position, kind):
            self.stall = Stall(position, kind, reason, before.since_ms, before.attempts + 1)
        else:
            self.stall = Stall(position, kind, reason, round(time.time() * 1000))

        attempts = self.stall.attempts
        pace_s = min(PACE_S * 2 ** min(attempts - 1, 20), MAX_PACE_S)
        self._retry_at, self._written_at = time.monotonic() + pace_s, 0.0
        log.log(
            logging.ERROR if attempts == 1 else logging.WARNING,
            "learning of policy %s stands still at the %s %s: %s. The model serves on; attempt"
            " %d, the next in %g s",
            self._keys.policy,
            kind,
            position,
            reason,
            attempts,
            pace_s,
            exc_info=error if attempts == 1 else None,
        )

    def record_step(self, position: str) -> None:
        """Get on, if the step that was taken leads past the place of the standstill.

        Args:
            position: where the fold is now; it may not have reached that place again yet.
        """
        if self.stall is not None and has_reached(position, self.stall.position):
            log.warning(
                "learning of policy %s goes on past %s", self._keys.policy, self.stall.position
            )
            self._overcome, self._over_at = self.stall, time.monotonic()
            self.stall, self._written_at = None, 0.0

    def record_refusal(self, refusal: Refusal) -> None:
        """Note an entry that the fold has refused, to be written under the lease."""
        log.warning("the %s at %s is refused: %s", refusal.kind, refusal.position, refusal.reason)
        self._refused.append(refusal)

    def write_progress(self, position: str) -> None:
        """Write how far the fold is, once in SAY_S, and refusals at once; a standby writes nothing.

        What was said already is said again after SAME_S.

        Args:
            position: where the fold is.

        Raises:
            LeaseLostError: another learner leads.
            RedisError: it is not known whether it was written.
        """
        since_s = time.monotonic() - self._written_at
        if self._lease.token is None or not (since_s >= SAY_S or self._refused):
            return

        # The fold that met the entry is torn: what counts is that all before it is applied.
        if self.stall is not None and self.stall.kind != WORK:
            position = position_before(self.stall.position)
        said = self._lease.token, position, self.stall
        if said == self._said and since_s < SAME_S and not self._refused:
            return
        progress = Progress(position, self._reader.now_ms(), self.stall)
        commands: list[Command] = [("SET", self._keys.progress, msgspec.msgpack.encode(progress))]

        # A refusal is written once, also by a leader that folds it again.
        pending = [msgspec.msgpack.encode(refusal) for refusal in self._refused]
        for encoded in pending:
            commands += [
                ("LREM", self._keys.refusals, 0, encoded),
                ("LPUSH", self._keys.refusals, encoded),
            ]
        if pending:
            commands.append(("LTRIM", self._keys.refusals, 0, KEPT_REFUSALS - 1))

        self._lease.guarded(commands)
        for _ in pending:
            self._refused.popleft()
        self._written_at, self._said = time.monotonic(), said


def redis_error_behind(error: BaseException | None) -> BaseException | None:
    """Return the error of Redis that led to this one; None if none did."""
    while error is not None and not isinstance(error, REDIS_ERRORS):
        error = error.__cause__
    return error
