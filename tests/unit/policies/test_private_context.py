"""Private features reach sources and the holdout, and neither the record nor the model."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FakeLog, FakeSource, fresh_ranker

from bandits.errors import SpecError
from bandits.log.codec import encode
from bandits.log.records import RewardRecord, TickRecord
from policies.requests import ActionRequest, RankRequest, plain_features, without_private
from policies.spec import Holdout, PolicySpec, RemoteSource, decode_spec, spec_of

PRIVATE = ["home", "income"]
PLAIN = PolicySpec("shop", sources=[RemoteSource("cf", "http://x")])
SPEC = msgspec.structs.replace(PLAIN, context_private=PRIVATE)
GIVEN = {"hour": 7, "income": 31337.25, "home": {"street": "Downing", "at": [0.5, 0.25]}}
WHOLE = plain_features(GIVEN, "context")


def test_a_record_holds_what_is_not_private() -> None:
    source = FakeSource("cf", {"a": 3.0, "b": 2.0})
    ranker = fresh_ranker(SPEC, [source])

    record = asyncio.run(ranker.rank(RankRequest("e", user_id="ann", context=WHOLE)))
    assert record.context == {"hour": 7.0}
    assert b"Downing" not in encode(record)
    assert b"income" not in encode(record)

    # The source was shown everything, and may send it on, where its configuration says so.
    assert source.requests[-1].context == WHOLE


def test_the_decision_is_that_of_a_request_without_them() -> None:
    """So whoever derives it again from its record finds the same."""
    whole, public = (
        RankRequest("e", context=context, actions=[ActionRequest("a"), ActionRequest("b")])
        for context in (WHOLE, {"hour": 7.0})
    )
    ranker = fresh_ranker(SPEC)
    assert asyncio.run(ranker.rank(whole)) == asyncio.run(ranker.rank(public))


def test_a_holdout_may_go_by_a_private_feature() -> None:
    ranker = fresh_ranker(
        msgspec.structs.replace(SPEC, holdout=Holdout(0.5, "cf", "income")),
        [FakeSource("cf", {"a": 1.0, "b": 0.5})],
    )

    def held_out(income: float, event: int) -> bool:
        request = RankRequest(f"e{event}", context={"income": income})
        return asyncio.run(ranker.rank(request)).holdout

    # One unit is always in the same group, and units are in both.
    groups = {income: {held_out(income, event) for event in range(4)} for income in range(20)}
    assert all(len(group) == 1 for group in groups.values())
    assert set.union(*groups.values()) == {False, True}


def test_nothing_is_learned_from_them() -> None:
    """The model that they were sent to is, byte for byte, that of requests without them."""

    def learned(contexts: list[dict]) -> bytes:
        log, ranker = FakeLog(SPEC), fresh_ranker(SPEC, [FakeSource("cf", {"a": 1.0, "b": 0.5})])
        for number, context in enumerate(contexts):
            record = asyncio.run(ranker.rank(RankRequest(f"e{number}", context=context)))
            log.append(record, at=1000 * (number + 1))
            log.append(RewardRecord(f"e{number}", 1.0), at=1000 * (number + 1) + 1)
        log.append(TickRecord(), at=10_000_000)
        fold = log.fold()
        assert fold.learned == len(contexts)
        return fold.snapshot().payload

    public = [{"hour": float(hour)} for hour in range(5)]
    private = [{**each, "income": 10.0 * at, "home.street": "x"} for at, each in enumerate(public)]
    assert learned(private) == learned(public)


@given(st.dictionaries(st.text(max_size=4), st.floats(0, 1)), st.lists(st.text(max_size=3)))
def test_what_is_left_is_neither_named_nor_below_a_name(
    context: dict[str, float], private: list[str]
) -> None:
    left = without_private(context, private)
    for name in context:
        above = [name[:end] for end in range(len(name)) if name[end] == "."]
        assert (name in left) == (not {name, *above} & set(private))


def test_a_context_without_any_is_taken_as_it_is() -> None:
    context = {"hour": 7.0}
    assert without_private(context, ()) is context
    assert without_private(context, PRIVATE) is context


@pytest.mark.parametrize(
    ("names", "at", "says"),
    [
        ([], "context_private", "leave it out"),
        (["a", ""], "context_private[1]", "no feature is called"),
        (["a."], "context_private[0]", "no feature is called"),
        (["a", "a"], "context_private[0]", "twice"),
        (["a", "b", "a.c"], "context_private[2]", "below another"),
    ],
)
def test_names_that_say_nothing_are_refused(names: list[str], at: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        spec_of({"name": "shop", "context_private": names})
    assert caught.value.target == at


def test_a_spec_says_what_is_private_in_the_log() -> None:
    assert decode_spec(SPEC.encoded).context_private == PRIVATE
    assert SPEC.digest != PLAIN.digest
    assert SPEC.model_digest == PLAIN.model_digest
