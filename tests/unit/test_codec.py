import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import records
from bandits.codec import decode, digest, encode
from bandits.errors import CodecError
from bandits.records import Credit, DecisionRecord, LogRecord, RewardRecord


def decision(**changes) -> DecisionRecord:
    record = DecisionRecord(
        event_id="e1",
        policy="home",
        spec="s",
        snapshot_id="n",
        catalogue="c",
        context={"hour": 3.0, "device": "tv", "tags": ["a", "b"], "member": True},
        action_ids=["a", "b", "c"],
        features=[{"price": 1.0}, None, {}],
        scores={"cf": np.array([1, np.nan, 2], "<f4").tobytes()},
        pmf=np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]).tobytes(),
        chosen=[0, 2],
        credit=Credit(["cf"], np.array([[1.0], [1.0]]).tobytes(), [0, 0]),
    )
    return msgspec.structs.replace(record, **changes)


EXAMPLES: list[LogRecord] = [
    decision(),
    records.ActivationRecord("e1"),
    RewardRecord("e1", 1.0, "r1", 0, "a"),
    RewardRecord("e1", -2.5),
    records.TickRecord(),
    records.SpecRecord("d", "s"),
    records.CatalogueRecord("d"),
    records.ArtifactRecord("v"),
    records.BuildRecord({"numpy": "2"}),
    records.CheckpointRecord(),
    records.PinRecord(None),
    records.PinRecord("s"),
    records.RollbackRecord("s", "5-0"),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: type(r).__name__)
def test_every_kind_of_record_survives_the_codec(record):
    assert decode(encode(record)) == record
    assert encode(decode(encode(record))) == encode(record)


def test_every_kind_of_record_is_tried_above():
    assert {type(record) for record in EXAMPLES} == set(LogRecord.__args__)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_no_input_crashes_the_decoder(data):
    for candidate in (data, b"\x01" + data):
        with contextlib.suppress(CodecError):
            decode(candidate)


@settings(max_examples=500)
@given(st.integers(0, 400), st.integers(1, 255), st.sampled_from(EXAMPLES))
def test_a_flipped_byte_is_refused_or_gives_a_valid_record(at, flip, record):
    data = bytearray(encode(record))
    data[at % len(data)] ^= flip
    try:
        changed = decode(bytes(data))
    except CodecError:
        return
    assert decode(encode(changed)) == changed or "nan" in repr(changed)


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"action_ids": []}, "action_ids"),
        ({"action_ids": ["a", "a", "b"]}, "action_ids"),
        ({"chosen": []}, "chosen"),
        ({"chosen": [0, 3]}, "chosen"),
        ({"chosen": [0, 0]}, "chosen"),
        ({"chosen": [1, 0]}, "pmf"),  # the second slot's action 0 has probability 0
        ({"features": [None]}, "features"),
        ({"scores": {"cf": b"1234"}}, "scores.cf"),
        ({"scores": {"cf": np.array([np.inf, 0, 0], "<f4").tobytes()}}, "scores.cf"),
        ({"pmf": np.array([[0.5, 0.25, 0.2], [0.0, 0.5, 0.5]]).tobytes()}, "pmf"),
        ({"pmf": np.array([[1.5, -0.25, -0.25], [0.0, 0.5, 0.5]]).tobytes()}, "pmf"),
        ({"pmf": np.full((2, 3), np.nan).tobytes()}, "pmf"),
        ({"pmf": b""}, "pmf"),
        ({"context": {"x": float("nan")}}, "x"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"credit": Credit(["cf"], np.array([[1.0], [1.0]]).tobytes(), [0])}, "credit.credited"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes, target):
    with pytest.raises(CodecError) as error:
        decode(encode(decision(**changes)))
    assert error.value.target == target


def test_a_reward_that_is_not_finite_is_refused():
    for value in (float("nan"), float("inf")):
        with pytest.raises(CodecError):
            decode(encode(RewardRecord("e", value)))


def test_another_version_is_refused():
    with pytest.raises(CodecError, match="version"):
        decode(b"\x02" + encode(EXAMPLES[0])[1:])


def test_a_digest_names_content():
    assert digest(b"a") == digest(b"a") != digest(b"b")
