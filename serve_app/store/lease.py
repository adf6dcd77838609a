"""Who may write: one lease per partition, and a token that fences off whoever lost it unawares.

A process that was paused past its lease may still believe that it leads. So nothing rests on what
it believes: every write that only the leader may do goes through one script, which compares tokens
in Redis at the moment of writing.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from serve_app.store.clients import FAILURES, Redis
from serve_app.store.keys import LogKeys

LEASE_S = 2.0
"""How long a lease outlives its holder's last sign of life."""
HEARTBEAT_S = 0.4
POLL_S = 0.2

log = logging.getLogger("banditloop.lease")

Command = tuple[str | bytes | int, ...]

# Renew what is held (also where the answer that told the token was lost: the owner is in it), or
# take what nobody holds under a token that was never used before; else be known to wait. A process
# that has caught up (its generation is ARGV[4], else 0) takes what an earlier generation holds,
# too: a token ends with its holder's generation.
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
local own = held and (held == ARGV[1] or string.match(held, '^%d+:(.*)$') == ARGV[3])
local older = held and tonumber(string.match(held, '%.(%d+)$') or 0) < tonumber(ARGV[4])
if held and not own and not older then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], 0, now[1] * 1000 - 10000)
  return false
end
redis.call('ZREM', KEYS[3], ARGV[3])
local token = own and held or (redis.call('INCR', KEYS[2]) .. ':' .. ARGV[3])
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token
"""
_RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)

_FENCE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the lease is held by another')
end
"""
# Run commands (each preceded by its length) if the token is still the lease's.
_GUARDED = """
local results, at = {}, 2
while at <= #ARGV do
  local length, command = tonumber(ARGV[at]), {}
  for i = 1, length do command[i] = ARGV[at + i] end
  results[#results + 1] = redis.call(unpack(command))
  at = at + length + 1
end
return results
"""


class LeaseLostError(Exception):
    """Another process leads now; what was about to be written was not."""


class Lease:
    """One process's part in the election.

    ``run`` takes and keeps the lease; ``guarded`` writes under it.

    ``generation`` grows with every deployment: a process that sets ``caught_up`` takes the lease
    from one of an earlier generation, so that a new deployment leads while the old one still runs,
    here or in another cluster.
    """

    def __init__(
        self,
        client: Redis,
        keys: LogKeys,
        owner: str,
        *,
        generation: int = 0,
        lease_s: float = LEASE_S,
    ) -> None:
        """Take part.

        Args:
            client: this process's own connection.
            keys: the log's.
            owner: a name that no other process has.
            generation: that of the deployment.
            lease_s: how long the lease outlives its holder's last sign of life, in seconds.
        """
        self._client = client
        self.keys = keys
        self._owner = f"{owner}.{generation}"
        self._generation = generation
        self._lease_ms = round(lease_s * 1000)

        self.caught_up = threading.Event()
        self._renewed_at = 0.0
        self._token: bytes | None = None
        self.takeovers = 0
        self._abstains = False

    @property
    def token(self) -> bytes | None:
        """The fencing token, while there is reason to believe that it is valid."""
        is_fresh = time.monotonic() - self._renewed_at < self._lease_ms / 1000
        return self._token if is_fresh else None

    def acquire(self) -> bool:
        """Take or renew the lease; return False if another holds it, or this process abstains.

        Raises:
            RedisError: not known which.
        """
        if self._abstains:
            return False

        # The lease counts from before the question, so this process never believes in it too long.
        asked_at = time.monotonic()
        own = self._token or b""
        keys = (self.keys.lease, self.keys.fence, self.keys.waiting)
        above = self._generation if self.caught_up.is_set() else 0
        answer: Any = self._client.eval(
            _ACQUIRE, len(keys), *keys, own, self._lease_ms, self._owner, above
        )
        if answer is None:
            self._token = None
            return False

        if answer != own:
            self.takeovers += 1
            log.info("leading policy %s under token %s", self.keys.policy, answer.decode())
        self._token, self._renewed_at = answer, asked_at
        return True

    def run(self, stop: threading.Event) -> None:
        """Keep the lease, or wait for it, until told to stop; then release it."""
        while not stop.is_set():
            held = False
            try:
                held = self.acquire()
            except FAILURES as error:
                log.warning("the lease cannot be renewed (%s): retrying", type(error).__name__)
            stop.wait(HEARTBEAT_S if held else POLL_S)
        self.release()

    def abstain(self) -> None:
        """Never lead again, so that another may."""
        self._abstains = True
        self.release()

    def release(self) -> None:
        """Give the lease up, so that a standby takes over at once."""
        token, self._token = self._token, None
        if token is not None:
            try:
                self._client.eval(_RELEASE, 1, self.keys.lease, token)
            except FAILURES:
                log.warning("the lease could not be released: it ends by itself")

    def guarded(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one step, if this process still leads; return their answers.

        Raises:
            LeaseLostError: it does not; nothing was run.
            RedisError: not known whether they were run.
        """
        arguments: list[Any] = []
        for command in commands:
            arguments += [len(command), *command]
        return list(self.evaluate(_GUARDED, (), arguments))

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script, if this process still leads; return its answer.

        Args:
            script: Lua.
            keys: what it finds from KEYS[2] on.
            arguments: what it finds from ARGV[2] on.

        Raises:
            LeaseLostError: it does not; nothing was run.
            RedisError: not known whether it was run.
        """
        token = self._token
        if token is None:
            raise LeaseLostError("this process does not lead")

        # The fence compares the token in Redis: what this process believes does not count.
        try:
            return self._client.eval(
                _FENCE + script, 1 + len(keys), self.keys.lease, *keys, token, *arguments
            )
        except ResponseError as error:
            if "FENCED" not in str(error):
                raise
            self._token = None
            raise LeaseLostError(str(error)) from error
