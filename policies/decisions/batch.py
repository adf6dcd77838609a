"""The decisions of a batch: most are made together, and the rest one by one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from bandits.errors import BanditloopError
from bandits.log.records import DecisionRecord
from policies.profiles.known_user import KnownUser
from policies.requests import RankRequest

PER_TURN, AT_ONCE = 16, 64
"""How many decisions are made one by one, or together, before others get their turn."""
LEAST = 4
"""Fewer are made one by one: to make one with others costs as much as two, and then little more."""
Known = KnownUser | BanditloopError | None
"""What is known of who asks, or why that cannot be said; None: nothing is looked up."""
Decoded = Callable[[RankRequest], RankRequest | BanditloopError]
"""Gives a request with its actions decoded, or says what is wrong with them."""


class RanksBatches(Protocol):
    """What decides; see ``Ranker``."""

    async def rank(self, request: RankRequest, known: KnownUser | None = None) -> DecisionRecord:
        """Make one decision, or say what is wrong with it."""
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

    # Whoever asks a source waits for it: those wait at the same time.
    left = [at for at in left if made[at] is None]
    waiting = [at for at in left if asked[at].actions is None]
    answers = await asyncio.gather(*(_alone(ranker, asked[at], known[at]) for at in waiting))
    for at, answer in zip(waiting, answers, strict=True):
        made[at] = answer
    for number, at in enumerate([at for at in left if asked[at].actions is not None], start=1):
        if number % PER_TURN == 0:
            await asyncio.sleep(0)
        made[at] = await _alone(ranker, asked[at], known[at])
    return [one for one in made if one is not None]


async def _together(
    ranker: RanksBatches, requests: Sequence[RankRequest], known: Sequence[Known]
) -> list[DecisionRecord | None]:
    if len(requests) < LEAST:
        return [None] * len(requests)
    made: list[DecisionRecord | None] = []
    for begin in range(0, len(requests), AT_ONCE):
        if begin:
            await asyncio.sleep(0)
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
