"""An entry that was read before is read with less work, and says the same."""

import msgspec
import numpy as np
import pytest
from support.logs import decision

from bandits.log.codec import encode
from bandits.log.encoded_decisions import chosen_of, known_decision, read_entries, whole_record
from bandits.log.records import ActivationRecord, Credit, DecisionRecord, RewardRecord, TickRecord

CREDIT = Credit(["cf"], np.ones(2).tobytes(), [0, 0])
DECISIONS = {
    "one slot": decision(),
    "a slate": decision(chosen=(2, 0)),
    "deferred": decision(deferred=True, user="somebody"),
    "held out": decision("é" * 9, holdout=True, unserved=True),
    "credited": decision(chosen=(1, 0), credit=CREDIT),
    "with features": decision(features=[{"x": 1.0}, None, {"y": "z"}], scores={"cf": b"\0" * 12}),
    "more than all": decision(ids=("a",), pmf=np.array([1.0 + 1e-13]).tobytes()),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_known_decision_is_what_a_checked_one_is(name):
    record = DECISIONS[name]
    data = encode(record)
    known = known_decision(data)
    (entry,) = read_entries([("1-0", data)], lambda *_: None)
    assert type(known) is type(entry.record)
    assert whole_record(known) == whole_record(entry.record) == record
    for field in ("event_id", "spec", "catalogue", "deferred", "holdout", "slots"):
        assert getattr(known, field) == getattr(entry.record, field)
    assert chosen_of(known) == (record.action_ids, record.chosen)


@pytest.mark.parametrize("record", [RewardRecord("e", 1.0), ActivationRecord("e"), TickRecord()])
def test_what_is_no_decision_is_none(record):
    assert known_decision(encode(record)) is None


@pytest.mark.parametrize(
    "changes", [{"chosen": []}, {"chosen": [7]}, {"pmf": b""}, {"features": 5}, {"chosen": ["x"]}]
)
def test_what_never_was_a_decision_does_no_harm(changes):
    fields = [getattr(decision(), name) for name in DecisionRecord.__struct_fields__]
    for name, value in changes.items():
        fields[DecisionRecord.__struct_fields__.index(name)] = value
    data = b"\x01" + msgspec.msgpack.encode(["decision", *fields])
    known_decision(data)
    known_decision(data[:40])
