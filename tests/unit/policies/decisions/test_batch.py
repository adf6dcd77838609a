"""A batch: whichever way a decision of it is made, it is the one that it would be by itself."""

import msgspec
from support.fakes import FakeSource, fresh_ranker

from bandits.errors import BanditloopError, DuplicateActionError, InvalidFieldError, SourceError
from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode
from bandits.vw.config import VwConfig
from policies.decisions.batch import LEAST, decide_all
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import BareRequest, Item
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
