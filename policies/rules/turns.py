"""Long work on the event loop, a part at a time: in between, other requests have their turns.

Of all long work together one part is done at a time: whoever is quick waits for one part, not for
one of each.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from policies.rules.columns import Bools

TURN_S: Final = 0.001
"""How long the event loop is held, about; longer only where a single thing takes that long."""
LONG_S: Final = 0.004
"""The same for work that is made of many small things."""
AT_ONCE: Final = 64
"""Things that are asked about together before others have a turn."""
LEAST: Final = 64
MOST: Final = 65_536
_TURNS: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, "_Turns"]()
T = TypeVar("T")
R = TypeVar("R")
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
            await _next_of_filters(held_s)
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


class Turn:
    """A turn of work that is done for one thing after the other.

    While it is not over, whoever works asks for no more than the time.
    """

    def __init__(self) -> None:
        """Begin it."""
        self._until_s = time.perf_counter() + LONG_S

    @property
    def is_over(self) -> bool:
        """Whether it has taken so long that others are to have theirs."""
        return time.perf_counter() > self._until_s

    async def give_way(self) -> None:
        """Wait until others have had their turns, and begin another."""
        await next_turn()
        self._until_s = time.perf_counter() + LONG_S


async def gather_in_turns(ask: Callable[[T], Awaitable[R]], things: Sequence[T]) -> list[R]:
    """Return what is answered to each of many things, as ``asyncio.gather`` does.

    Args:
        ask: answers one; some are asked at once, and others have their turns before the next are.
        things: what is asked of.
    """
    asked: list[asyncio.Future[R]] = []
    try:
        for at, thing in enumerate(things):
            if at and at % AT_ONCE == 0:
                await next_turn()
            asked.append(asyncio.ensure_future(ask(thing)))
    except asyncio.CancelledError:
        for each in asked:
            each.cancel()
        raise
    return list(await asyncio.gather(*asked))


async def next_turn() -> None:
    """Wait until all others that are ready have had a turn, and it is one's own."""
    await asyncio.sleep(0)
    await own_turn()


async def own_turn() -> None:
    """Wait for a turn of one's own; not at all if no other long work has the one that goes on."""
    turns = _turns_of(asyncio.get_running_loop())
    if turns.is_taken:
        await turns.waits_in(turns.waiting)
    else:
        turns.take()


async def _next_of_filters(held_s: float) -> None:
    """Wait for the next turn of a filter, as long at least as it has held the event loop."""
    turns = _turns_of(asyncio.get_running_loop())
    turns.rest(held_s)
    await turns.waits_in(turns.filters)


def _turns_of(loop: asyncio.AbstractEventLoop) -> "_Turns":
    turns = _TURNS.get(loop)
    if turns is None:
        turns = _TURNS[loop] = _Turns()
    return turns


Line = deque[asyncio.Future[None]]


class _Turns:
    """Passes of an event loop, each of which is the turn of one long work at most.

    Filters stand in a line of their own, and after a turn of one they rest as long as it took:
    whoever is quick needs several passes, and meets a filter in half of them at most.
    """

    def __init__(self) -> None:
        self.is_taken = False
        self.waiting, self.filters = Line(), Line()
        self._rested_s = 0.0
        self._is_due = False
        self._was_filter = False

    async def waits_in(self, line: Line) -> None:
        """Wait in a line until a turn is given."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        line.append(waiting)
        self._see_to_filters(loop)
        await waiting

    def rest(self, held_s: float) -> None:
        """Let filters rest as long as one has held the event loop."""
        loop = asyncio.get_running_loop()
        self._rested_s = max(self._rested_s, loop.time() + held_s)

    def take(self) -> None:
        """Take the turn, which ends with the pass that goes on."""
        self.is_taken = True
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Give the next pass to whoever has waited the longest, of both lines in turn."""
        loop = asyncio.get_running_loop()
        self.is_taken = False
        lines = [self.waiting, self.filters]
        for line in lines if self._was_filter else reversed(lines):
            if line is self.filters and loop.time() < self._rested_s:
                continue
            while line:
                first = line.popleft()
                if not first.done():  # else whoever waited has left
                    self._was_filter = line is self.filters
                    first.set_result(None)
                    self.take()
                    return
        self._see_to_filters(loop)

    def _see_to_filters(self, loop: asyncio.AbstractEventLoop) -> None:
        """See that they have a turn once they have rested."""
        if self.filters and not self.is_taken and not self._is_due:
            self._is_due = True
            loop.call_at(self._rested_s, self._end_rest)

    def _end_rest(self) -> None:
        self._is_due = False
        if not self.is_taken:
            self._pass_on()


def _timed(look: Callable[[int, int], Any], at: int, until: int) -> tuple[Any, float]:
    began = time.thread_time()
    return look(at, until), time.thread_time() - began
