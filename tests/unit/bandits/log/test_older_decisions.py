"""Decisions without their records: found again, in order, and forgotten, however many there are."""

from collections import OrderedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import RULE

from bandits.log.deadlines import NEVER
from bandits.log.older_decisions import ROWS, OlderDecisions, Opening
from bandits.log.records import RewardRecord
from bandits.log.remembered_decisions import RememberedDecision, slot_by_hash

RULES = {
    "short": RULE,
    "long": msgspec.structs.replace(RULE, window_s=50.0),
    "corrected": msgspec.structs.replace(RULE, late="correct"),
}


def opened(
    name: str, ms: int, spec: str = "short", slots: int = 2
) -> tuple[Opening, RememberedDecision]:
    chosen = [f"{name}.{slot}" for slot in range(slots)]
    opening = Opening(name, spec, "none", False, chosen)
    return opening, RememberedDecision(f"{ms}-0", spec, RULES[spec], None, True, slots)


def older() -> OlderDecisions:
    return OlderDecisions(RULES.__getitem__)


def end(decisions: OlderDecisions, decision: RememberedDecision) -> None:
    decision.forgotten_ms = 1
    if decision.rule.late == "ignore":
        decision.teach_no_more()
    decisions.keep(decision)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.sampled_from(list(RULES)), st.integers(0, 50)),
        max_size=300,
    ),
    st.sampled_from([1, 7, 64]),
)
def test_what_is_here_is_what_a_dictionary_would_hold(steps, crowd):
    """Also where many hashes begin to look at the same place."""
    decisions, known, now = older(), OrderedDict(), 0
    for number, (wait, spec, name) in enumerate(steps):
        now += wait
        while decisions.next_ms <= now:
            due = decisions.next_ms
            closing = decisions.pop_due()
            if closing is not None:
                end(decisions, closing)
                assert known[closing.position][2] == due
            else:
                gone = [
                    at
                    for at, (_, spec, close) in known.items()
                    if close + RULES[spec].window_ms <= due
                ]
                assert gone
                del known[
                    min(
                        gone,
                        key=lambda at: (
                            known[at][2] + RULES[known[at][1]].window_ms,
                            int(at.partition("-")[0]),
                        ),
                    )
                ]
        found = decisions.find(f"{name}")
        held = [at for at, (event, _, _) in known.items() if event == str(name)]
        assert [found.position] == held if found else not held
        if found is None:
            now += 1
            opening, decision = opened(str(name), now, spec, 1 + number % crowd)
            decisions.add(opening, decision)
            known[f"{now}-0"] = (str(name), spec, now + RULES[spec].window_ms)
        assert len(decisions) == len(known)
        assert decisions.first() == (next(iter(known)) if known else None)


def test_a_hundred_thousand_are_found_and_forgotten():
    decisions = older()
    count = 25 * ROWS
    for number in range(count):
        decisions.add(*opened(f"e{number}", 1 + number % 7 + 7 * (number // 7)))
    for number in range(0, count, 97):
        found = decisions.find(f"e{number}")
        assert found is not None
        assert found.slots == 2
        assert slot_by_hash(found, RewardRecord("", 1.0, action_id=f"e{number}.1")) == 1
        assert slot_by_hash(found, RewardRecord("", 1.0, action_id=f"e{number}.2")) is None
    assert decisions.find("other") is None
    while decisions.next_ms != NEVER:
        closing = decisions.pop_due()
        if closing is not None:
            end(decisions, closing)
    assert len(decisions) == 0
    assert len(decisions._blocks) <= 1
    assert not any(decisions._table)
    assert not decisions.names()


@pytest.mark.parametrize("taught", [{}, {0: -1.0, 1: -1.0}, {0: 2.0}, {1: -1.0}])
@pytest.mark.parametrize("seen", [{}, {"r": None, 1: None}])
def test_what_has_become_of_a_decision_is_kept(taught, seen):
    decisions = older()
    opening, decision = opened("e", 5, "corrected")
    decisions.add(opening, decision)
    decision.taught, decision.seen, decision.waiting = taught, seen, len(seen)
    decision.values = dict.fromkeys(range(len(seen)), 3.0)
    decisions.keep(decision)
    found = decisions.find("e")
    assert (found.taught, found.seen, found.values, found.waiting) == (
        taught,
        seen,
        decision.values,
        len(seen),
    )
