"""Long work on the event loop, a part at a time: in between, other requests have their turns.

Of all long work together one part is done at a time: whoever is quick waits for one part, not for
one of each.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from policies.rules.columns import Bools

TURN_S: Final = 0.001
"""How long the event loop is held, about; longer only where a single thing takes that long."""
LEAST: Final = 64
MOST: Final = 65_536
_LONG: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]()
FASTER: Final = 4
"""A part is at most so many times as large as the one before."""


async def in_turns(count: int, first: int, look: Callable[[int, int], Any]) -> Bools:
    """Return what is found of many things, bool[count].

    Args:
        count: how many there are.
        first: how many are looked at together at first.
        look: says of those from one place to another whether it is so, bool[n] or one for all.
    """
    found = np.empty(count, np.bool_)
    if count <= first:
        found[:] = look(0, count)
        return found
    at, size, held_s, turn_s, least_s = 0, first, 0.0, TURN_S, 0.0
    while at < count:
        if held_s >= turn_s:
            await _next_turn()
            held_s = 0.0
        until = min(at + size, count)
        found[at:until], took_s = _timed(look, at, until)

        # What even one thing takes is not saved by smaller parts.
        held_s += took_s
        if took_s > 2 * turn_s and not least_s:
            _, least_s = _timed(look, at, at + 1)
            turn_s = max(TURN_S, 2 * least_s)
        each_s = max(took_s - least_s, 1e-6) / (until - at)
        fitting = int((turn_s - least_s) / each_s)
        at, size = until, min(max(fitting, LEAST), FASTER * size, MOST)
    return found


async def _next_turn() -> None:
    """Wait until all others that are ready have had a turn, and it is one's own."""
    loop = asyncio.get_running_loop()
    if loop not in _LONG:
        _LONG[loop] = asyncio.Lock()
    async with _LONG[loop]:
        await asyncio.sleep(0)


def _timed(look: Callable[[int, int], Any], at: int, until: int) -> tuple[Any, float]:
    began = time.thread_time()
    return look(at, until), time.thread_time() - began
