"""What users did outside of decisions is trained on, by person, without those who were erased."""

import numpy as np
import pytest

from bandits.log.records import (
    ActivityRecord,
    ErasureRecord,
    LogEntry,
    LogRecord,
    MergeUsersRecord,
    TickRecord,
)
from policies.training.histories import histories_of
from simulator.refresh.activity import SpaceActivity
from simulator.refresh.rewarded import coded_events

TYPES = {"view": 1.0, "purchase": 3.0, "look": 0.0, "hide": -2.0}


def read(*records: LogRecord) -> SpaceActivity:
    entries = [LogEntry(f"{1000 + at}-0", record) for at, record in enumerate(records)]
    return SpaceActivity.of(entries, TYPES)


def did(user: str, item: str, kind: str = "view") -> ActivityRecord:
    # The caller's time orders profiles alone.
    return ActivityRecord(user, item, kind, time_ms=5)


def rows(events) -> list[tuple[str, str, str, float, int]]:
    return [
        (events.user_ids[u], events.item_ids[i], events.types[t], float(w), int(ms))
        for u, i, t, w, ms in zip(
            events.user, events.item, events.type, events.weight, events.time, strict=True
        )
    ]


def test_events_have_the_weight_of_their_type_and_the_time_of_the_log():
    said = read(did("ann", "a"), TickRecord(), did("bob", "b", "purchase"), did("ann", "c", "look"))
    assert rows(said.coded()) == [
        ("ann", "a", "view", 1.0, 1000),
        ("bob", "b", "purchase", 3.0, 1002),
    ]
    assert histories_of(said.coded()).weights.tolist() == [1.0, 3.0]
    assert len(read(did("ann", "a", "a type of another policy")).coded()) == 0


def test_what_speaks_against_an_item_undoes_what_came_before():
    said = read(
        did("ann", "a"), did("bob", "a"), did("ann", "a", "hide"), did("ann", "b"), did("ann", "a")
    )
    assert [row[:2] + row[4:] for row in rows(said.coded())] == [
        ("ann", "b", 1003),
        ("ann", "a", 1004),
        ("bob", "a", 1001),
    ]


def test_pseudonyms_of_one_person_are_one_user_in_every_log():
    said = read(
        did("visitor", "a"),
        MergeUsersRecord("visitor", "ann"),
        did("ann", "b"),
        MergeUsersRecord("ann", "anna"),
    )
    assert {row[0] for row in rows(said.of_persons(said.coded()))} == {"anna"}
    assert said.persons() == {"visitor": "anna", "ann": "anna"}

    one = np.zeros(2, np.int64)
    rewarded = coded_events(
        ["visitor", "bob"],
        ["x", "y"],
        ("rewarded",),
        np.arange(2),
        np.arange(2),
        one,
        np.array([7, 8]),
        one,
        one,
    )
    assert [row[:2] for row in rows(said.of_persons(rewarded))] == [("anna", "x"), ("bob", "y")]


@pytest.mark.parametrize("erased", ["visitor", "ann"])
def test_nothing_is_trained_on_that_an_erased_person_did(erased):
    said = read(
        did("visitor", "a"),
        did("ann", "b"),
        MergeUsersRecord("visitor", "ann"),
        did("bob", "b"),
        ErasureRecord(erased, "job"),
    )
    kept = {row[0] for row in rows(said.of_persons(said.coded()))}
    assert kept == ({"ann", "bob"} if erased == "visitor" else {"bob"})


def test_rings_end():
    said = read(MergeUsersRecord("a", "b"), MergeUsersRecord("b", "a"), did("a", "x"))
    assert len(said.of_persons(said.coded())) == 1
