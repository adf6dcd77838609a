"""The decisions of a batch: most are made together, and the rest one by one."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from bandits.errors import BanditloopError
from bandits.log.records import DecisionRecord
from policies.profiles.known_user import KnownUser
from policies.requests import RankRequest
from policies.rules.turns import Turn, next_turn

AT_ONCE = 64
"""How many decisions are made together before others get their turn."""
LEAST = 4
"""Fewer are made one by one: to make one with others costs as much as two, and then little more."""
Known = KnownUser | BanditloopError | None
"""What is known of who asks, or why that cannot be said; None: nothing is looked up."""
Decoded = Callable[[RankRequest], RankRequest | BanditloopError]
"""Gives a request with its actions decoded, or says what is wrong with them."""


class RanksBatches(Protocol):
    """What decides; see ``Ranker``."""

    @property
    def waits(self) -> bool:
        """Whether it waits for sources of candidates, which is no work of its own."""
        ...

    async def rank(self, request: RankRequest, known: KnownUser | None = None) -> DecisionRecord:
        """Make one decision, or say what is wrong with it."""
        ...

    async def read_filter(self, where: str | None) -> None:
        """Read a request's filter before its decision is made."""
        ...

    def rank_together(
        self, requests: Sequence[RankRequest], known: Sequence[object]
    ) -> list[DecisionRecord | None]:
        """Make those decisions that can be made together."""
        ...


async def decide_all(
    ranker: RanksBatches,
    requests: Sequence[RankRequest],
    known: Sequence[Known],
    decoded: Decoded,
) -> list[DecisionRecord | BanditloopError]:
    """Decide each request, in order; others that wait for the event loop take turns in between.

    Args:
        ranker: decides.
        requests: what is asked.
        known: what is known of who asks.
        decoded: decodes actions that are as they were sent.
    """
    made: list[DecisionRecord | BanditloopError | None] = list(
        await _together(ranker, requests, known)
    )

    # What could not be found in the text of a request is looked at once it is decoded.
    left = [at for at, one in enumerate(made) if one is None]
    asked = list(requests)
    read: list[int] = []
    for at in left:
        whole = decoded(requests[at])
        if isinstance(whole, BanditloopError):
            made[at] = whole
        elif whole is not requests[at]:
            asked[at] = whole
            read.append(at)
    again = await _together(ranker, [asked[at] for at in read], [known[at] for at in read])
    for at, one in zip(read, again, strict=True):
        made[at] = one

    left = [at for at in left if made[at] is None]
    alone = _one_by_one(ranker, [asked[at] for at in left], [known[at] for at in left])
    for at, answer in zip(left, await alone, strict=True):
        made[at] = answer
    return [one for one in made if one is not None]


async def _one_by_one(
    ranker: RanksBatches, requests: Sequence[RankRequest], known: Sequence[Known]
) -> list[DecisionRecord | BanditloopError]:
    """Decide each request by itself, in turns with others that wait for the event loop.

    Where sources have to be waited for, they are asked for many requests at the same time.
    """
    made: list[DecisionRecord | BanditloopError | None] = [None] * len(requests)
    waiting: dict[int, asyncio.Task[DecisionRecord | BanditloopError]] = {}
    waits = ranker.waits
    try:
        for at, request in enumerate(requests):
            if waits and request.actions is None:
                await _read_filter(ranker, request)
                waiting[at] = asyncio.create_task(_alone(ranker, request, known[at]))
                await next_turn()

        turn = Turn()
        for at, request in enumerate(requests):
            if at not in waiting:
                if turn.is_over:
                    await turn.give_way()
                made[at] = await _alone(ranker, request, known[at])

        for at, task in waiting.items():
            made[at] = await task
    finally:
        for task in waiting.values():
            task.cancel()
    return [one for one in made if one is not None]


async def _read_filter(ranker: RanksBatches, request: RankRequest) -> None:
    """Have a request's filter read, so that a batch has one read at a time, and others theirs."""
    if request.filter is not None:
        with contextlib.suppress(BanditloopError):  # the decision says it
            await ranker.read_filter(request.filter)


async def _together(
    ranker: RanksBatches, requests: Sequence[RankRequest], known: Sequence[Known]
) -> list[DecisionRecord | None]:
    if len(requests) < LEAST:
        return [None] * len(requests)
    made: list[DecisionRecord | None] = []
    for begin in range(0, len(requests), AT_ONCE):
        if begin:
            await next_turn()
        part = slice(begin, begin + AT_ONCE)
        made += ranker.rank_together(requests[part], known[part])
    return made


async def _alone(
    ranker: RanksBatches, request: RankRequest, known: Known
) -> DecisionRecord | BanditloopError:
    if isinstance(known, BanditloopError):
        return known
    try:
        return await ranker.rank(request, known)
    except BanditloopError as error:
        return error
