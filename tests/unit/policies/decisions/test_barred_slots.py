"""Slots that bar actions: none of these is ever shown there, and every slot that can be filled is."""

from itertools import permutations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, fresh_ranker

from bandits.decide import decide
from bandits.log.codec import decode, encode
from policies.blend import load_policy
from policies.decisions.barred_slots import BarredSlots
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, SlateRequest
from policies.rules.pages.page import Page
from policies.spec import PolicySpec
from simulator.doctor.control_states import ControlStates
from simulator.doctor.ruled_again import RuledAgain

SPEC = PolicySpec("home")


def asked(barred: list[str], names: str = "abcd", event: str = "e") -> SlateRequest:
    actions = [ActionRequest(name, {"kind": name}) for name in names]
    lists = [list(each) for each in barred]
    return SlateRequest(event_id=event, actions=actions, slots=len(barred), barred=lists)


async def test_the_record_holds_what_the_slots_were_drawn_from_so_that_all_is_derived_again():
    record = await fresh_ranker(SPEC).rank(asked(["ab", "", "d"]))
    again = decode(encode(record))
    assert again == record
    assert record.pmfs()[0][:2].tolist() == [0, 0]

    policy = load_policy(SPEC, fresh_ranker(SPEC).serving.snapshot)
    context, actions = featurise_record(SPEC, Catalogue(), again)
    derived = decide(
        policy,
        context,
        actions,
        event_id="e",
        salt=SALT,
        name="home",
        slots=3,
        page=again.page,
    )
    assert derived.pmfs.tobytes() == record.pmf
    assert list(derived.chosen) == record.chosen


async def test_the_doctor_takes_a_requests_bars_for_what_they_are():
    """Where the spec has no rules, a record may bar, and not add."""
    record = await fresh_ranker(SPEC).rank(asked(["ab", ""]))

    def faults(record):
        again = RuledAgain(SPEC, None, record, lambda _: None, ControlStates(), 1)
        return list(again.faults())

    assert faults(record) == []
    added = np.frombuffer(record.rules.page, "<f2").copy()
    added[np.isfinite(added)] = 0.5
    rules = msgspec.structs.replace(record.rules, page=added.tobytes())
    assert faults(msgspec.structs.replace(record, rules=rules))


async def test_a_request_that_bars_nothing_has_the_record_of_one_without_slots_of_its_own():
    plain = await fresh_ranker(SPEC).rank(asked(["", ""]))
    assert plain.rules is None


async def test_the_policys_own_rules_of_a_page_hold_beside_what_the_request_bars():
    spec = PolicySpec("home", page=Page(most={"kind": 1}))
    actions = [ActionRequest(name, {"kind": name[0]}) for name in ("a1", "a2", "b1", "b2")]
    for number in range(20):
        request = SlateRequest(
            event_id=f"e{number}", actions=actions, slots=2, barred=[["a1"], ["b1"]]
        )
        first, second = (await fresh_ranker(spec).rank(request)).shown()
        assert first != "a1"
        assert second != "b1"
        assert first[0] != second[0]


ADMITTED = st.integers(1, 4).flatmap(
    lambda slots: st.integers(slots, 5).flatmap(
        lambda count: st.lists(
            st.lists(st.booleans(), min_size=count, max_size=count), min_size=slots, max_size=slots
        )
    )
)


@given(ADMITTED)
def test_an_action_is_barred_where_a_later_slot_could_not_be_filled_without_it(rows):
    """As trying every page says."""
    admitted = np.array(rows)
    slots, count = admitted.shape
    pages = [
        page
        for page in permutations(range(count), slots)
        if all(admitted[slot, action] for slot, action in enumerate(page))
    ]
    offsets = BarredSlots(admitted).after([])
    left = np.ones(count, np.bool_) if offsets is None else ~np.isnan(offsets)
    if pages:
        assert left.tolist() == [any(page[0] == at for page in pages) for at in range(count)]
    else:
        assert left.tolist() == admitted[0].tolist()


@pytest.mark.parametrize("event", range(20))
async def test_a_page_is_filled_wherever_it_can_be(event):
    record = await fresh_ranker(SPEC).rank(asked(["", "", "abc"], event=f"e{event}"))
    assert record.shown()[2] == "d"
