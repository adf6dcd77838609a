"""Rewards of a page on which some slots hold what was placed there, and not drawn."""

import msgspec
import pytest
from support.logs import RULE, WINDOW, decision

from bandits.log.codec import decode, encode
from bandits.log.encoded_decisions import read_entries, shown_to
from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.records import (
    ActivationRecord,
    LogEntry,
    LogRecord,
    Placed,
    RewardRecord,
    Ruled,
    TickRecord,
)

PAGE = decision(
    chosen=(2, 0, 1),
    user="someone",
    rules=Ruled(placed=[Placed(0, "x"), Placed(3, "y")]),
)
"""Its page is x, c, a, y, b."""
ARRIVES = msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct")


class Behind:
    """The records of the log, where none is kept in memory."""

    def put_by(self, _decisions, _records):
        return None

    def at_hand(self, _positions, _window_ms: int, _spec: str):
        return None

    def closing(self, _position: str, _window_ms: int, _spec: str):
        return PAGE

    def at(self, _position: str):
        return PAGE


class Log:
    """Feeds a join; decisions are remembered with their records, or by hashes."""

    def __init__(self, *, kept: bool, rule: JoinRule = RULE) -> None:
        behind = None if kept else Behind()
        self.join = Join(lambda _: rule, rule, behind=behind, recent_bytes=1 << 30 if kept else 0)
        self.join.fold, self._count = 6, 0

    def at(self, ms: int, record: LogRecord) -> list[JoinedDecision]:
        self._count += 1
        return list(self.join.apply(LogEntry(f"{ms}-{self._count}", record)))

    @property
    def counts(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.join.counts.items() if count}


def test_a_page_says_where_each_that_was_drawn_stands():
    assert list(PAGE.page_slots()) == [1, 2, 4]
    assert (PAGE.placed_in(0), PAGE.placed_in(3)) == ("x", "y")
    far = msgspec.structs.replace(PAGE, rules=Ruled(placed=[Placed(40, "x")]))
    assert list(far.page_slots()) == list(decision(chosen=(0, 1, 2)).page_slots()) == [0, 1, 2]
    assert decode(encode(PAGE)) == PAGE


@pytest.mark.parametrize("kept", [True, False])
def test_a_reward_names_a_slot_of_the_page_or_an_action_and_what_was_placed_teaches_nothing(kept):
    log = Log(kept=kept)
    log.at(0, PAGE)
    for number, (slot, action) in enumerate(
        [(None, None), (3, None), (None, "x"), (3, "y"), (0, "x")]
    ):
        log.at(1, RewardRecord("e", 9.0, f"placed {number}", slot, action))
    for slot, action in [(5, None), (1, "x"), (0, "c"), (3, "a"), (None, "z")]:
        log.at(1, RewardRecord("e", 9.0, None, slot, action))
    log.at(2, RewardRecord("e", 1.0, slot=1))
    log.at(2, RewardRecord("e", 2.0, action_id="a"))
    log.at(2, RewardRecord("e", 3.0, slot=4, action_id="b"))

    (taught,) = log.at(WINDOW, TickRecord())
    assert (taught.slots, taught.rewards) == ((0, 1, 2), (1.0, 2.0, 3.0))
    assert log.counts == {"decisions": 1, "closed": 1, "placed": 5, "invalid": 5, "joined": 3}


@pytest.mark.parametrize("kept", [True, False])
def test_a_reward_of_what_was_placed_counts_once_and_keeps_no_other_from_counting(kept):
    log = Log(kept=kept)
    log.at(0, PAGE)
    for _ in range(2):
        log.at(1, RewardRecord("e", 1.0, "r", 0))
        log.at(1, RewardRecord("e", 1.0, None, 0))
        log.at(1, RewardRecord("e", 1.0, None, 3))
        log.at(1, RewardRecord("e", 1.0, "r", 1))
    (taught,) = log.at(WINDOW, TickRecord())
    assert taught.rewards == (1.0, -1.0, -1.0)
    assert log.counts == {"decisions": 1, "closed": 1, "placed": 3, "joined": 1, "duplicate": 4}


@pytest.mark.parametrize("kept", [True, False])
def test_early_late_and_as_it_arrives(kept):
    log = Log(kept=kept, rule=ARRIVES)
    log.at(0, RewardRecord("e", 1.0, "early", action_id="y"))
    log.at(0, RewardRecord("e", 1.0, "drawn", slot=4))
    assert [each.slots for each in log.at(1, PAGE)] == [(0, 1, 2)]
    assert log.at(2, RewardRecord("e", 1.0, "now", 0)) == []
    assert log.at(1 + WINDOW, TickRecord()) == []
    assert log.at(2 + WINDOW, RewardRecord("e", 1.0, "late", 0)) == []
    assert log.counts == {
        "decisions": 1, "closed": 1, "placed": 2, "joined": 1, "late": 1
    }  # fmt: skip


def test_users_are_told_of_what_was_placed_also_before_an_activation():
    told: list[tuple[int, float]] = []
    log = Log(kept=True)
    log.join.on_reward = lambda _, slot, __, reward, ___: told.append((slot, reward.value))
    log.at(0, msgspec.structs.replace(PAGE, deferred=True))
    log.at(1, RewardRecord("e", 2.0, slot=3))
    log.at(1, RewardRecord("e", 3.0, slot=1))
    log.at(2, ActivationRecord("e"))
    log.at(3, RewardRecord("e", 4.0, slot=2))
    assert told == [(-4, 2.0), (1, 4.0)]


def test_what_was_placed_was_shown():
    (entry,) = read_entries([("1-0", encode(PAGE))], lambda *_: None)
    assert shown_to(entry.record) == shown_to(PAGE) == ("someone", ["c", "a", "b", "x", "y"])
