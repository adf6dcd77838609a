"""How fast a shadow works: while its machine is busy it rests, so that it takes little from others.

Niceness gives a shadow no core that somebody else wants. But on the cores that are left it would
still use the memory and the cache that all of them share.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

BUSY: Final = 0.4
"""The share of all cores that others use from which on a machine is busy."""
REST: Final = 9.0
"""Then it rests so many times as long as it has worked."""
PATIENT_S: Final = 600.0
"""Who is further behind works on as fast as it can."""
LOOK_S: Final = 0.2
"""How often it is looked whether the machine is busy."""

Times = tuple[int, int]
"""What others have used of all cores so far, and what there was to use, in ticks."""


def used_by_others() -> Times:
    """Return what was used by whoever yields to nobody; (0, 0) where the kernel does not say."""
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, idle, waiting, hard, soft, *_ = map(int, line.split()[1:])
    except (OSError, ValueError):
        return 0, 0
    used = user + system + hard + soft
    return used, used + nice + idle + waiting


class Pace:
    """Says how long to rest after some work."""

    def __init__(
        self,
        used: Callable[[], Times] = used_by_others,
        *,
        worked_s: Callable[[], float] = time.thread_time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to look at what others do.

        Args:
            used: what others have used of all cores.
            worked_s: seconds of processor that this thread has used.
            now_s: seconds.
        """
        self._used, self._worked_s, self._now_s = used, worked_s, now_s
        self._is_busy = False
        self._before, self._looked_s = used(), now_s()
        self._rested_at = worked_s()

    def rest_s(self, behind_s: float) -> float:
        """Return how long to rest now, in seconds.

        Args:
            behind_s: how far this thread is behind what it follows.
        """
        if self._now_s() - self._looked_s >= LOOK_S:
            used, there = self._used()
            others, cores = used - self._before[0], there - self._before[1]
            self._is_busy = cores > 0 and others > BUSY * cores
            self._before, self._looked_s = (used, there), self._now_s()

        worked = self._worked_s() - self._rested_at
        self._rested_at += worked
        return REST * worked if self._is_busy and behind_s < PATIENT_S else 0.0
