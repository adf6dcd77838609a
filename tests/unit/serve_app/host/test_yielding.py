"""What makes a change while others answer yields to them, and what comes after it does not."""

import asyncio
import os
from functools import partial

from serve_app.host.environment import STARTING, loads_yield, run_yielding

niceness = partial(os.getpriority, os.PRIO_PROCESS, 0)
"""Of the thread that asks."""


def test_a_plan_is_made_by_a_thread_that_yields():
    own = niceness()
    assert run_yielding(niceness) == min(19, own + STARTING)
    assert niceness() == own


async def test_what_is_loaded_before_the_first_request_yields_and_later_loads_do_not():
    own = niceness()
    with loads_yield():
        assert await asyncio.to_thread(niceness) == min(19, own + STARTING)
    assert await asyncio.to_thread(niceness) == own
