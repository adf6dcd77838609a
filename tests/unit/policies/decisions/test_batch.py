"""A batch: whichever way a decision of it is made, it is the one that it would be by itself."""

import asyncio
import time
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from support.fakes import FakeSource, fresh_ranker

from bandits.errors import BanditloopError, DuplicateActionError, InvalidFieldError, SourceError
from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode
from bandits.vw.config import VwConfig
from policies.decisions.batch import LEAST, decide_all
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import BareRequest, Item
from policies.rules.turns import LONG_S
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.spec import PolicySpec, RemoteSource
from serve_app.api.bodies import whole, whole_or_error

SPEC = PolicySpec(
    "home",
    sources=[RemoteSource("cf", "http://x")],
    use=["context", "features"],
    learner=VwConfig(args="--cb_explore_adf -q cf"),
    exploration=EpsilonGreedy(),
)
SENT = [
    b'{"event_id": "0", "context": {"c": 1.5}, "actions": [{"id": "a"}, {"id": "b"}]}',
    b'{"event_id": "1", "actions": [{"id": "a", "features": {"f": 2.0}}, {"id": "b"}]}',
    b'{"event_id": "2", "user_id": "ann"}',
    b'{"event_id": "3", "actions": [{"id": "\\u0061"}, {"id": "new"}], "return_pmf": true}',
    b'{"event_id": "4", "actions": [{"id": "a"}, {"id": "a"}]}',
    b'{"event_id": "5", "actions": [{"id": "a"}, {"id": 5}]}',
    b'{"event_id": "6", "actions": [{"id": "b"}, {"id": "a"}], "slots": 2}',
    b'{"event_id": "7", "actions": null, "history": ["a"]}',
    b'{"event_id": "8", "actions": [{"id": "b"}, {"id": "c"}], "exclude": ["c"]}',
    b'{"event_id": "9", "context": {"c": "x"}, "actions": [{"id": "c"}]}',
]


def ranker() -> Ranker:
    catalogue = Catalogue([Item(name, {"f": float(at)}) for at, name in enumerate("abc")])
    return fresh_ranker(SPEC, [FakeSource("cf", {"a": 2.0, "b": 1.0})], catalogue)


async def by_itself(of: Ranker, request: BareRequest) -> bytes | type[BanditloopError]:
    try:
        return encode(await of.rank(whole(request)))
    except BanditloopError as error:
        return type(error)


async def test_each_decision_of_a_batch_is_the_one_that_it_is_by_itself_and_so_is_each_error():
    of = ranker()
    requests = [msgspec.json.decode(each, type=BareRequest) for each in SENT]
    assert len(requests) >= LEAST
    made = await decide_all(of, requests, [None] * len(requests), whole_or_error)
    answers = [type(e) if isinstance(e, BanditloopError) else encode(e) for e in made]
    assert answers == [await by_itself(of, request) for request in requests]
    assert answers[4] is DuplicateActionError
    assert made[5].target == "actions[1].id"
    assert isinstance(made[5], InvalidFieldError)

    together = of.rank_together(requests, [None] * len(requests))
    assert [at for at, record in enumerate(together) if record is not None] == [0, 9]


async def test_few_decisions_are_made_one_by_one_and_who_is_wrong_is_not_asked_for():
    of = ranker()
    requests = [msgspec.json.decode(each, type=BareRequest) for each in SENT[: LEAST - 1]]
    made = await decide_all(of, requests, [SourceError("no"), None, None], whole_or_error)
    assert isinstance(made[0], SourceError)
    assert [encode(each) for each in made[1:]] == [
        await by_itself(of, request) for request in requests[1:]
    ]


class Waiting(FakeSource):
    """Answers once all are waiting for it; from the start if there is nobody to wait for."""

    def __init__(self, name: str, awaited: int) -> None:
        super().__init__(name, {"a": 2.0, "b": 1.0})
        self.awaited, self.there = awaited, asyncio.Event()

    async def candidates(self, request, limit):
        answer = await super().candidates(request, limit)
        if len(self.requests) >= self.awaited:
            self.there.set()
        await self.there.wait()
        return answer


class Counted:
    """A part of decisions, of which it is known how often one method was called."""

    def __init__(self, part, method: str) -> None:
        self.part, self.method, self.calls = part, method, 0

    def __getattr__(self, name: str):
        self.calls += name == self.method
        return getattr(self.part, name)


class AtOnce(ImmediateSource):
    """Proposes what it has, after some milliseconds of work."""

    name = "cf"

    def __init__(self) -> None:
        self.requests: list[SourceRequest] = []

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        self.requests.append(request)
        until = time.perf_counter() + 2 * LONG_S
        while time.perf_counter() < until:
            pass
        return Candidates(("a", "b"), np.array([2.0, 1.0], np.float32))


@pytest.mark.parametrize("awaited", [0, 40, None])
async def test_others_have_their_turns_between_decisions_whose_sources_are_asked(awaited):
    """Whether all that is to be waited for comes at once, or is computed."""
    source = AtOnce() if awaited is None else Waiting("cf", awaited)
    of = fresh_ranker(SPEC, [source], Catalogue([Item("a"), Item("b")]))
    decisions: list[Counted] = []

    def around(part, name, *methods):
        if name != "decide" or "decide_one" in methods:
            return part
        decisions.append(Counted(part, "decide"))
        return decisions[0]

    of.put_around_parts(around)
    asked, decided = [0], [0]

    async def others():
        while True:
            asked.append(len(of.proposers.offered.sources.proposing[0].requests))
            decided.append(decisions[0].calls)
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    requests = [whole(msgspec.json.decode(b"{}", type=BareRequest)) for _ in range(40)]
    made = await decide_all(of, requests, [None] * 40, whole_or_error)
    await asyncio.sleep(0)
    task.cancel()
    assert len(made) == decided[-1] == asked[-1] == 40
    for counts in (asked, decided):
        assert max(after - before for before, after in pairwise(counts)) <= 2
