"""A Redis client that fails at one call, before or after its effect."""

from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError


class FaultyRedis(redis.Redis):
    """Counts its calls; the ``fail_at``-th raises, and with ``after`` only once the server has done it."""

    fail_at: int | None = None
    after = False
    calls = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        failing = self.calls == self.fail_at
        if failing and not self.after:
            raise RedisConnectionError("injected before")
        answer = super().execute_command(*args, **options)
        if failing:
            raise RedisConnectionError("injected after")
        return answer
