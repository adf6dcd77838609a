"""Rewards of several signals: the reward of a slot is the sum of what they are worth."""

from itertools import permutations

import msgspec
import pytest
from support.logs import decision

from bandits.errors import CodecError
from bandits.log.codec import decode, encode
from bandits.log.join import Join, JoinRule
from bandits.log.records import LogEntry, LogRecord, RewardRecord, TickRecord
from bandits.log.versions import FOLD
from policies.profiles.signals import SignalOptions, signalled_rule

JOIN = JoinRule(window_s=10, default_reward=-1.0)
SIGNALS = {
    "click": 1.0,
    "hide": -2.0,
    "purchase": SignalOptions(10.0, window="30s", aggregation="sum"),
}
RULE = signalled_rule(JOIN, SIGNALS)


def reward(signal: str | None, value: float = 1.0, **fields) -> RewardRecord:
    return RewardRecord("e", value, signal=signal, **fields)


def taught(
    *steps: tuple[int, LogRecord], rule: JoinRule = RULE, fold: int = FOLD
) -> tuple[list[float], Join]:
    """The rewards that one decision at 0 teaches, with corrections; and the join."""
    join, lessons = Join(lambda _: rule, rule, fold=fold), []
    for number, (ms, record) in enumerate([(0, decision()), *steps, (10**6, TickRecord())]):
        lessons += [each.rewards[0] for each in join.apply(LogEntry(f"{ms}-{number}", record))]
    return lessons, join


def test_what_signals_are_worth_is_added_up_in_whatever_order_they_come():
    came = [reward("click"), reward("purchase", 2.0), reward("purchase", 1.0, reward_id="two")]
    orders = [list(enumerate(order, 1)) for order in permutations([*came, reward("hide")])]
    found = {tuple(taught(*order)[0]) for order in orders}
    assert found == {(1.0 + 30.0 - 2.0,)}


def test_without_any_signal_the_default_is_taught_and_what_names_none_is_worth_its_value():
    assert taught()[0] == [-1.0]
    assert taught((1, reward(None, 0.5)))[0] == [0.5]
    assert taught((1, reward(None, 0.5)), (2, reward("click")))[0] == [1.5]


def test_without_an_id_a_reward_is_the_one_of_its_slot_and_signal():
    lessons, join = taught(
        (1, reward("click")),
        (2, reward("click", 5.0)),
        (3, reward("hide")),
        (4, reward("hide", slot=0)),
        (5, reward("click", reward_id="own")),
    )
    assert lessons == [-1.0]
    assert (join.counts["joined"], join.counts["duplicate"]) == (3, 2)


@pytest.mark.parametrize("rule", [JOIN, RULE])
def test_a_signal_that_the_spec_does_not_weigh_is_refused_and_counted(rule):
    lessons, join = taught((1, reward("share")), rule=rule)
    assert lessons == [-1.0]
    assert join.counts["unknown_signal"] == 1
    assert join.counts["joined"] == 0


def test_each_signal_has_a_window_of_its_own_and_the_decision_waits_for_the_longest():
    lessons, join = taught(
        (9_999, reward("click")), (10_000, reward("hide")), (29_999, reward("purchase"))
    )
    assert lessons == [11.0]
    assert (join.counts["joined"], join.counts["late"]) == (2, 1)


def test_what_is_late_for_its_signal_corrects_where_the_rule_says_so():
    rule = msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct")
    lessons, join = taught((1, reward("click")), (20_000, reward("hide")), rule=rule)
    assert lessons == [-1.0, 2.0, -2.0]
    assert join.counts["late"] == 1


def test_counts_and_sums_are_kept_by_signal():
    _, join = taught(
        (1, reward("click", 0.5)), (2, reward("click", 1.5, reward_id="b")), (3, reward(None, 3.0))
    )
    assert join.signals == {"click": (2, 2.0), "": (1, 3.0)}


def test_builds_of_before_read_no_signal():
    """So that their snapshots come out of the log again, whoever wrote what they did not know."""
    assert taught((1, reward("share", 0.5)), rule=JOIN, fold=4)[0] == [0.5]
    early = [(0, reward("share", 0.5))]
    join = Join(lambda _: JOIN, JOIN, fold=4)
    for number, (ms, record) in enumerate([*early, (1, decision())]):
        join.apply(LogEntry(f"{ms}-{number}", record))
    assert join.counts["joined"] == 1


def test_somebody_is_told_what_a_reward_is_worth():
    told: list[tuple[str | None, float]] = []
    join = Join(lambda _: RULE, RULE, fold=FOLD)
    join.on_reward = lambda record, slot, ms, reward, worth: told.append((reward.signal, worth))
    steps = [decision(), reward("hide"), reward("purchase", 2.0), reward(None, 0.0)]
    for number, record in enumerate(steps):
        join.apply(LogEntry(f"{number}-0", record))
    assert told == [("purchase", 20.0)]

    join.tells_all = True
    join.apply(LogEntry("9-0", reward("hide", reward_id="again")))
    assert told[1:] == [("hide", -2.0)]


@pytest.mark.parametrize("signal", ["", "s" * 65])
def test_a_signal_has_a_name_of_some_bytes(signal):
    with pytest.raises(CodecError, match="1 to 64 bytes"):
        decode(encode(reward(signal)))
