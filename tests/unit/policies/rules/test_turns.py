"""A filter holds the event loop for moments, however long it takes."""

import asyncio
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from policies.rules.ruled_items import SWITCH_S, Asked, RuledItems
from policies.rules.turns import AT_ONCE, LEAST, LONG_S, Turn, gather_in_turns, in_turns, own_turn
from policies.spec import spec_of


async def test_parts_are_as_large_as_fit_in_a_turn_and_others_have_theirs_in_between():
    looked: list[int] = []
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(begin: int, end: int):
        looked.append(end - begin)
        until = time.thread_time() + 50e-6 * (end - begin)
        while time.thread_time() < until:
            pass
        return np.arange(begin, end) % 3 == 0

    task = asyncio.create_task(others())
    found = await in_turns(1_000, 512, slow)
    task.cancel()
    assert found.tolist() == [number % 3 == 0 for number in range(1_000)]
    assert looked[0] == 512  # then it is known how long one takes
    assert max(looked[2:]) <= 2 * LEAST
    assert turns >= len(looked) // 2


async def test_of_much_long_work_one_part_is_done_between_the_turns_of_others():
    parts = [0]

    async def others():
        while True:
            parts.append(0)
            await asyncio.sleep(0)

    def slow(begin: int, end: int):
        parts[-1] += 1
        until = time.thread_time() + 3e-3
        while time.thread_time() < until:
            pass
        return True

    works = [in_turns(10 * LEAST, LEAST, slow) for _ in range(5)]
    task = asyncio.create_task(others())
    assert all(found.all() for found in await asyncio.gather(*works))
    task.cancel()
    begun = 1 + parts.index(next(part for part in parts if part))
    assert max(parts[begun:]) <= 3  # of one work, what fits in a turn


async def test_between_turns_of_many_filters_others_have_theirs_and_time_to_rest():
    """Other long work waits for one filter, not for all; whoever waits for more meets half."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    done = False

    def slow(begin: int, end: int):
        """Take 3 ms for LEAST things, and so for each part; one thing alone is no part."""
        until = time.thread_time() + 3e-3 * (end - begin) / LEAST
        while time.thread_time() < until:
            pass
        if end - begin > 1:
            took.append(loop.time())
        return True

    async def others() -> list[int]:
        """How many parts of filters there are between two turns of other long work."""
        between: list[int] = []
        while not done:
            before = len(took)
            await own_turn()
            between.append(len(took) - before)
            await asyncio.sleep(0)
        return between

    task = asyncio.create_task(others())
    await asyncio.gather(*(in_turns(4 * LEAST, LEAST, slow) for _ in range(20)))
    done = True
    assert max(await task) <= 1 + 20  # at once, all of them begin
    assert sum(between > 1 for between in await task) <= 2
    assert len(took) == 4 * 20
    begun = took[20:]
    rests = [after - before for before, after in pairwise(begun)]
    assert np.median(rests) > 5e-3  # of which 3 ms are the part itself


async def test_between_two_filters_that_are_read_others_have_their_turns(monkeypatch):
    rules = spec_of({"name": "home", "filter": {"where": "true", "fields": ["price"]}}).rules
    assert rules is not None
    items, passes, read_at = RuledItems(rules), 0, []
    monkeypatch.setattr(items, "_read", lambda _: read_at.append(passes))

    async def others():
        nonlocal passes
        while len(read_at) < 60:
            passes += 1
            await asyncio.sleep(0)

    asked = [f"item.price > {number}.0 {'&& true ' * 20}" for number in range(60)]
    await asyncio.gather(others(), *(items.read_ahead(where) for where in asked))
    assert all(before < after for before, after in pairwise(read_at))
    assert len(read_at) == 60


async def test_what_is_quick_is_done_in_one_turn():
    looked: list[int] = []

    def quick(begin: int, end: int):
        looked.append(end - begin)
        return True

    assert (await in_turns(100, 1_024, quick)).all()
    assert looked == [100]
    assert (await in_turns(0, 1_024, quick)).size == 0


async def test_a_hundred_questions_about_long_texts_are_answered_a_few_items_at_a_time():
    where = " || ".join(f"item.text.contains('x{number}')" for number in range(99))
    rules = spec_of({"name": "home", "filter": {"where": "true", "fields": ["text"]}}).rules
    assert rules is not None
    items = RuledItems(rules)
    texts = {f"i{n}": f"{'long ' * 200} {n % 7} x{n}" for n in range(3_000)}
    items.take_in(list(texts), [{"text": text} for text in texts.values()])
    asked = Asked({}, dict, 0, items.own_filter(where[:1_990].rpartition(" || ")[0]))

    turns, done = 0, False

    async def others():
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    admitted = await items.admits_in_turns(asked)
    done = True
    await task
    assert turns > 2
    assert np.array_equal(admitted, items.admits(np.arange(len(items)), asked))
    assert admitted.sum() == sum(
        any(f"x{k}" in text for k in range(where[:1_990].count("||"))) for text in texts.values()
    )


async def test_a_long_filter_is_read_once_by_a_thread_that_gives_way_often():
    rules = spec_of({"name": "home", "filter": {"where": "true", "fields": ["text"]}}).rules
    assert rules is not None
    items, usual_s = RuledItems(rules), sys.getswitchinterval()
    intervals: list[float] = []

    def noted(where):
        intervals.append(sys.getswitchinterval())
        return RuledItems.own_filter(items, where)

    items.own_filter = noted
    where = " || ".join(f"item.text.contains('read once {number}')" for number in range(9))
    await asyncio.gather(items.read_ahead(where), items.read_ahead(f"!({where})"))
    await items.read_ahead(where)
    assert intervals == pytest.approx([SWITCH_S, SWITCH_S])
    assert sys.getswitchinterval() == usual_s


async def test_many_are_asked_some_at_a_time_and_answer_in_their_order():
    asked: list[int] = []
    seen: list[int] = []

    async def answer(number: int) -> int:
        asked.append(number)
        await asyncio.sleep(0)
        return -number

    async def others():
        while True:
            seen.append(len(asked))
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    count = 3 * AT_ONCE + 1
    assert await gather_in_turns(answer, range(count)) == [-number for number in range(count)]
    task.cancel()
    steps = [after - before for before, after in pairwise([0, *seen, len(asked)])]
    assert max(steps) <= AT_ONCE

    waiting = asyncio.Event()
    never = asyncio.create_task(gather_in_turns(lambda _: waiting.wait(), range(count)))
    await asyncio.sleep(0)
    never.cancel()
    await asyncio.wait([never])
    assert never.cancelled()


async def test_a_turn_is_over_after_a_while():
    turn = Turn()
    while not turn.is_over:
        pass
    began = time.perf_counter()
    await turn.give_way()
    assert not turn.is_over or time.perf_counter() - began > LONG_S
