import math
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.damage import damaged, rewritten
from support.strategies import MANY, ruled

from bandits.errors import CodecError
from bandits.log import records
from bandits.log.codec import decode, digest, encode, read_entry
from bandits.log.encoded_decisions import read_entries, whole_record
from bandits.log.records import (
    Apprentice,
    Credit,
    DecisionRecord,
    EncodedDecision,
    LogRecord,
    RewardRecord,
)

RULED = records.Ruled(
    filter="item.stock > 0",
    now_ms=1_764_000_000_000,
    did={"view": ["a", "z"], "buy": []},
    removed={"filter": records.Removed(["x"], 70_000)},
    boosts=np.array([0.5, 0, -1], "<f4").tobytes(),
    control="5-0",
    placed=[records.Placed(1, "p")],
    short="",
    unplaced=[records.Unplaced(0, "q", "filtered")],
    page=np.array([0, np.nan, -0.5], "<f2").tobytes(),
)


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
        rules=RULED,
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
    records.WarmStartRecord("d"),
    records.PriorRecord("d", 0.5),
    records.CutRecord(3),
    records.MergeRecord(
        3, [records.MergeInput(3, "7-0", "d", 5), None], "m", "spec", restores=True
    ),
    records.ItemsRecord([records.ItemChange("put", "a", b"{}"), records.ItemChange("delete", "b")]),
    records.ItemsBaseRecord("d"),
    records.ItemsBaseRecord("d", "5-0~v"),
    records.ActivityRecord("u", "a", "view"),
    records.ActivityRecord("u", "a", "rating", 4.5, 1_000, "n1"),
    records.ControlRecord({"at_most item.stock > 3": -0.25, "provider=acme": 0.1}),
    records.MergeUsersRecord("u", "v"),
    records.ErasureRecord("u", "e1"),
    records.RootRecord("5-0", "d"),
    records.RerankedRecord("e", encode(decision(event_id="e"))),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: type(r).__name__)
def test_every_kind_of_record_survives_the_codec(record):
    assert decode(encode(record)) == record
    assert encode(decode(encode(record))) == encode(record)


def test_every_kind_of_record_is_tried_above():
    assert {type(record) for record in EXAMPLES} == set(LogRecord.__args__)


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
        ({"rules": records.Ruled(now_ms=-1)}, "rules.now_ms"),
        ({"rules": records.Ruled(now_ms=1 << 63)}, "rules.now_ms"),
        ({"rules": records.Ruled(removed={"filter": records.Removed(["a"], 0)})}, "rules.removed"),
        ({"rules": records.Ruled(boosts=b"1234")}, "rules.boosts"),
        ({"rules": records.Ruled(boosts=b"12345")}, "rules.boosts"),
        (
            {"rules": records.Ruled(boosts=np.array([0, np.nan, 0], "<f4").tobytes())},
            "rules.boosts",
        ),
        ({"rules": records.Ruled(placed=[records.Placed(-1, "a")])}, "rules.placed"),
        ({"rules": records.Ruled(placed=[records.Placed(1 << 16, "a")])}, "rules.placed"),
        ({"rules": records.Ruled(placed=[records.Placed(1, "a")] * 2)}, "rules.placed"),
        ({"rules": records.Ruled(unplaced=[records.Unplaced(-1, "a", "")])}, "rules.unplaced"),
        ({"rules": records.Ruled(page=np.zeros(4, "<f2").tobytes())}, "rules.page"),
        ({"rules": records.Ruled(page=np.zeros(9, "<f2").tobytes())}, "rules.page"),
        ({"rules": records.Ruled(page=b"1")}, "rules.page"),
        ({"rules": records.Ruled(page=np.full(3, np.inf, "<f2").tobytes())}, "rules.page"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes, target):
    with pytest.raises(CodecError) as error:
        decode(encode(decision(**changes)))
    assert error.value.target == target


@pytest.mark.parametrize(
    ("record", "target"),
    [
        (records.ActivityRecord("", "a", "view"), "user"),
        (records.ActivityRecord("u", "", "view"), "item"),
        (records.ActivityRecord("u", "a", ""), "event_type"),
        (records.ActivityRecord("u", "a", "view", float("nan")), "value"),
        (records.ActivityRecord("u", "a", "view", 1e13), "value"),
        (records.ActivityRecord("u", "a", "view", None, -1), "time_ms"),
        (records.ActivityRecord("u", "a", "view", None, 1 << 60), "time_ms"),
        (records.MergeUsersRecord("u", "u"), "into"),
        (records.ControlRecord({"a": 0.1, "b": float("nan")}), "prices.b"),
        (records.ControlRecord({"a": -1e13}), "prices.a"),
        (records.RerankedRecord("e", b""), "decision"),
        (records.RerankedRecord("e", encode(decision(event_id="another"))), "decision"),
        (records.RerankedRecord("e", encode(records.TickRecord())), "decision"),
        (records.RerankedRecord("e", encode(decision(event_id="e", chosen=[0, 0]))), "chosen"),
        (records.MergeUsersRecord("", "u"), "user"),
        (records.ErasureRecord("", "e"), "user"),
        (records.RootRecord("x", "d"), "position"),
    ],
)
def test_what_is_said_of_users_is_refused_where_it_means_nothing(record, target):
    with pytest.raises(CodecError) as error:
        decode(encode(record))
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


# Fuzzing: whatever the bytes are, they are refused with a CodecError, or are a record that keeps
# every promise.

ids = st.text(min_size=1, max_size=8)
values = st.one_of(
    st.floats(-1e12, 1e12),
    st.text(max_size=4),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=3),
)
feature_maps = st.dictionaries(st.text(max_size=4), values, max_size=3)


def pmf_rows(rng: np.random.Generator, rows: int, columns: int, chosen: list[int]) -> bytes:
    """Each row sums to 1 as nearly as floats can; some entries are 0, never the chosen one."""
    matrix = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.7)
    matrix[np.arange(rows), chosen] += 0.1
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype("<f8").tobytes()


@st.composite
def decisions(draw) -> DecisionRecord:
    actions = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    chosen = draw(
        st.lists(st.integers(0, len(actions) - 1), min_size=1, max_size=len(actions), unique=True)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(ids, max_size=3, unique=True))
    credit = None
    if names and draw(st.booleans()):
        credited = [int(each) for each in rng.integers(0, len(names), len(chosen))]
        credit = Credit(names, pmf_rows(rng, len(chosen), len(names), credited), credited)
    return DecisionRecord(
        draw(ids),
        *draw(st.tuples(*[st.text(max_size=8)] * 4)),
        draw(feature_maps),
        actions,
        draw(
            st.none()
            | st.lists(st.none() | feature_maps, min_size=len(actions), max_size=len(actions))
        ),
        {
            name: np.where(rng.random(len(actions)) < 0.3, np.nan, 2.0).astype("<f4").tobytes()
            for name in names
        },
        pmf_rows(rng, len(chosen), len(actions), chosen),
        chosen,
        draw(st.none() | st.text(max_size=5)),
        draw(st.booleans()),
        draw(st.booleans()),
        credit,
        rules=draw(st.none() | ruled(len(actions), len(chosen))),
        apprentice=draw(st.none() | apprentices(rng, len(actions), len(chosen))),
    )


@st.composite
def apprentices(draw, rng: np.random.Generator, count: int, slots: int) -> Apprentice:
    own = [int(each) for each in rng.permutation(count)[:slots]]
    served = draw(st.sampled_from(records.SERVED))
    return Apprentice(served, pmf_rows(rng, slots, count, own), own)


def changed_pmf(record: DecisionRecord, column: int, value: float) -> bytes:
    """The record's PMF with one entry of its first row replaced."""
    rows = record.pmfs().copy()
    rows[0, column] = value
    return rows.tobytes()


FAULTS: dict[str, Callable[[DecisionRecord], dict[str, Any]]] = {
    "an id twice": lambda r: {"action_ids": [r.action_ids[-1], *r.action_ids[1:]]},
    "no action": lambda r: {
        "action_ids": [],
        "chosen": [],
        "pmf": b"",
        "scores": {},
        "features": None,
        "credit": None,
    },
    "nothing chosen": lambda r: {"chosen": [], "pmf": b"", "credit": None},
    "chosen twice": lambda r: {
        "chosen": [*r.chosen, r.chosen[0]],
        "pmf": r.pmf + r.pmf[: 8 * len(r.action_ids)],
        "credit": None,
    },
    "an index from the end": lambda r: {"chosen": [r.chosen[0] - len(r.action_ids), *r.chosen[1:]]},
    "an index beyond": lambda r: {"chosen": [len(r.action_ids), *r.chosen[1:]]},
    "a row more": lambda r: {"pmf": r.pmf + r.pmf[: 8 * len(r.action_ids)]},
    "a sum a little off": lambda r: {
        "pmf": changed_pmf(r, r.chosen[0], r.pmfs()[0, r.chosen[0]] + 1e-9)
    },
    "negative": lambda r: {
        "action_ids": ["a", "b"],
        "pmf": struct.pack("<2d", 1.5, -0.5),
        "chosen": [0],
        "scores": {},
        "features": None,
        "credit": None,
    },
    "a chosen one of no chance": lambda r: {
        "pmf": np.eye(len(r.action_ids))[[(c + 1) % len(r.action_ids) for c in r.chosen]].tobytes()
    },
    "NaN in the PMF": lambda r: {"pmf": changed_pmf(r, 0, math.nan)},
    "features of one more": lambda r: {"features": [None] * (len(r.action_ids) + 1)},
    "a feature that is no number": lambda r: {
        "features": [{"x": math.nan}, *[None] * (len(r.action_ids) - 1)]
    },
    "a context that is infinite": lambda r: {"context": {**r.context, "x": -math.inf}},
    "a feature that is too large": lambda r: {"context": {"x": 1.1e19}},
    "a score that is infinite": lambda r: {
        "scores": {"s": np.full(len(r.action_ids), np.inf, "<f4").tobytes()}
    },
    "a score too many": lambda r: {"scores": {"s": bytes(4 * len(r.action_ids) + 4)}},
    "a credit too many": lambda r: {
        "credit": Credit(
            ["s"], struct.pack("<d", 1) * (len(r.chosen) + 1), [0] * (len(r.chosen) + 1)
        )
    },
    "a credit from the end": lambda r: {
        "credit": Credit(["s"], struct.pack("<d", 1) * len(r.chosen), [-1] * len(r.chosen))
    },
    "a credit of no chance": lambda r: {
        "credit": Credit(["s", "t"], struct.pack("<2d", 0, 1) * len(r.chosen), [0] * len(r.chosen))
    },
    "a credit whose PMF is none": lambda r: {
        "credit": Credit(["s"], struct.pack("<d", 0.9) * len(r.chosen), [0] * len(r.chosen))
    },
    "a boost too many": lambda r: {"rules": records.Ruled(boosts=bytes(4 * len(r.action_ids) + 4))},
    "a boost that is none": lambda r: {
        "rules": records.Ruled(boosts=struct.pack("<f", math.nan) * len(r.action_ids))
    },
    "a page with a slot too many": lambda r: {
        "rules": records.Ruled(page=bytes(2 * len(r.action_ids) * (len(r.chosen) + 1)))
    },
    "a page that adds without end": lambda r: {
        "rules": records.Ruled(page=struct.pack("<e", -math.inf) * len(r.action_ids))
    },
    "a moment before 1970": lambda r: {"rules": records.Ruled(now_ms=-1)},
    "more removed than there were": lambda r: {
        "rules": records.Ruled(removed={"filter": records.Removed(["a", "b"], 1)})
    },
    "two items in one place": lambda r: {
        "rules": records.Ruled(placed=[records.Placed(3, "a"), records.Placed(3, "b")])
    },
    "nobody's choice was served": lambda r: {"apprentice": Apprentice("me", r.pmf, r.chosen)},
    "an apprentice of a slot more": lambda r: {
        "apprentice": Apprentice("first", r.pmf + r.pmf[: 8 * len(r.action_ids)], r.chosen)
    },
    "an apprentice of no choice": lambda r: {"apprentice": Apprentice("first", r.pmf, [])},
    "an apprentice that chose beyond": lambda r: {
        "apprentice": Apprentice("first", r.pmf, [len(r.action_ids), *r.chosen[1:]])
    },
    "an apprentice without a chance": lambda r: {
        "apprentice": Apprentice("first", bytes(len(r.pmf)), r.chosen)
    },
    "an event_id too long": lambda r: {"event_id": "\u00e9" * 129},
    "no event_id": lambda r: {"event_id": ""},
}
event_ids = st.one_of(
    ids, st.sampled_from(["", "x" * 256, "x" * 257, "\u00e9" * 128, "\u00e9" * 129])
)
numbers = st.one_of(st.floats(-2e12, 2e12), st.floats(), st.sampled_from([1e12, -1e12, math.nan]))
simple = st.one_of(
    st.builds(
        RewardRecord,
        event_ids,
        numbers,
        st.none() | ids,
        st.none() | st.integers(-3, 50),
        st.none() | ids,
    ),
    st.builds(records.ActivationRecord, event_ids),
    st.builds(records.RollbackRecord, ids, st.from_regex(r"[0-9]{0,20}-?[0-9]{0,20}.?") | ids),
    st.builds(records.WarmStartRecord, ids),
    st.builds(records.PriorRecord, ids, numbers),
    st.builds(records.CutRecord, st.integers(1, 99)),
    st.builds(
        records.MergeRecord,
        st.integers(1, 99),
        st.lists(
            st.none()
            | st.builds(
                records.MergeInput, st.integers(1, 99), st.just("7-0"), ids, st.integers(0, 99)
            )
        ),
        ids,
        ids,
        st.booleans(),
    ),
    st.sampled_from(EXAMPLES),
)
anything = st.one_of(decisions(), decisions(), simple)
encoded = anything.map(encode)


def as_trees(data: bytes) -> Any:
    return msgpack.unpackb(data[1:], strict_map_key=False)


@settings(max_examples=MANY // 2)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda data: b"\x01" + data),
        damaged(encoded),
        st.builds(lambda version, data: bytes([version]) + data[1:], st.integers(0, 255), encoded),
    )
)
def test_damaged_bytes_are_refused_or_are_a_record_that_keeps_every_promise(data):
    refused_or_a_record(data)


@settings(max_examples=MANY)
@given(rewritten(encoded.map(as_trees)))
def test_well_formed_msgpack_is_refused_or_is_a_record_that_keeps_every_promise(tree):
    refused_or_a_record(b"\x01" + msgpack.packb(tree))


def read_alike(data: bytes) -> None:
    """A fold's reader refuses and reads what the codec does, and tells it likewise."""
    told: list[str] = []
    expected = read_entry("5-0", data, lambda _, error: told.append(error.message))
    told_folds: list[str] = []
    (entry,) = read_entries([("5-0", data)], lambda _, error: told_folds.append(error.message))
    assert told_folds == told
    assert entry.id == "5-0"

    record = entry.record
    if isinstance(record, EncodedDecision):
        assert record.data == data
        full = whole_record(record)
        assert all(
            getattr(record, name) == getattr(full, name)
            for name in ("event_id", "spec", "catalogue", "slots", "deferred", "holdout")
        )
        assert record.has_placed == bool(full.placed)
        assert full.credit is None
        assert all(0 < full.propensity(slot) <= 1 for slot in range(full.slots))
        record = full
    assert msgspec.msgpack.encode(record) == msgspec.msgpack.encode(expected.record)


def refused_or_a_record(data: bytes) -> None:
    read_alike(data)
    try:
        record = decode(data)
    except CodecError as error:
        assert error.message  # noqa: PT017 - that it is this error and no other is the test
        return
    again = encode(record)
    assert encode(decode(again)) == again
    promises(data)
    promises(again)


def test_a_page_on_which_all_is_placed_keeps_every_promise():
    placed = records.Ruled(placed=[records.Placed(0, "p")])
    record = decision(**{**FAULTS["no action"](decision()), "rules": placed})
    refused_or_a_record(encode(record))
    assert decode(encode(record)) == record


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@settings(max_examples=MANY // 25)
@given(decisions())
def test_a_decision_with_a_fault_is_refused_or_keeps_every_promise(fault, record):
    """Some faults are none in a small decision."""
    refused_or_a_record(encode(msgspec.structs.replace(record, **fault(record))))


@settings(max_examples=MANY // 2)
@given(simple)
def test_another_record_with_any_values_is_refused_or_keeps_every_promise(record):
    refused_or_a_record(encode(record))


@settings(max_examples=MANY // 2)
@given(decisions())
def test_a_valid_record_is_accepted_and_keeps_every_promise(record):
    data = encode(record)
    assert encode(decode(data)) == data
    promises(data)
    read_alike(data)


@settings(max_examples=MANY // 5)
@given(st.lists(st.one_of(encoded, damaged(encoded)), max_size=6))
def test_records_that_are_read_together_are_read_as_each_alone(parts):
    def read(some: list[bytes]) -> list[bytes]:
        named = [(f"{at}-0", data) for at, data in enumerate(some)]
        entries = read_entries(named, lambda _, error: told.append(error.message))
        assert [entry.id for entry in entries] == [name for name, _ in named]
        return [msgspec.msgpack.encode(entry.record) for entry in entries]

    told: list[str] = []
    together, said_together = read(parts), list(told)
    told.clear()
    assert [each for part in parts for each in read([part])] == together
    assert told == said_together


@settings(max_examples=MANY // 5)
@given(decisions())
def test_a_fold_decodes_no_usual_decision(record):
    usual = msgspec.structs.replace(record, credit=None)
    (entry,) = read_entries([("1-0", encode(usual))], lambda *_: None)
    rounded = any(usual.propensity(slot) > 1 for slot in range(usual.slots))
    assert isinstance(entry.record, DecisionRecord if rounded else EncodedDecision)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda r: type(r).__name__)
def test_no_proper_beginning_of_a_record_is_a_record_nor_is_one_with_more_behind_it(kind):
    data = encode(kind)
    for wrong in (*(data[:end] for end in range(len(data))), data + b"\xc0", data + data[1:]):
        with pytest.raises(CodecError):
            decode(wrong)


# What bandits/log/records.py promises, asked of the bytes: msgpack by another library, sums
# by another method.

TEXT, OPTIONAL_TEXT = (str,), (str, type(None))


def promises(data: bytes) -> None:  # noqa: C901, PLR0912 - a table of kinds
    """Every promise, by kind."""
    assert data[0] == 1
    kind, *fields = msgpack.unpackb(data[1:], strict_map_key=False)
    if kind == "decision":
        decision_promises(fields)
    elif kind == "reward":
        event_id, value, *rest = fields
        reward_id, slot, action_id = [*rest, None, None, None][:3]
        event_id_promises(event_id)
        assert is_number(value)
        assert abs(value) <= 1e12
        assert slot is None or (type(slot) is int and slot >= 0)
        assert type(reward_id) in OPTIONAL_TEXT
        assert type(action_id) in OPTIONAL_TEXT
    elif kind == "activation":
        event_id_promises(fields[0])
    elif kind == "build":
        assert all(type(each) in TEXT for pair in fields[0].items() for each in pair)
    elif kind == "prior":
        assert type(fields[0]) in TEXT
        assert is_number(fields[1])
        assert 0 < fields[1] <= 1000
    elif kind == "cut":
        merge_promises(fields[0], [])
    elif kind == "merge":
        merge_promises(fields[0], fields[1])
    elif kind == "control":
        assert all(type(each) in TEXT for each in fields[0])
        assert all(is_number(each) and abs(each) <= 1e12 for each in fields[0].values())
    elif kind == "reranked":
        assert decode(fields[1]).event_id == fields[0]
    elif kind in {"items", "items_base"}:
        items_promises(kind, fields)
    elif kind in {"activity", "merge_users", "erasure"}:
        users_promises(kind, fields)
    else:
        named = {
            "tick": 0,
            "spec": 2,
            "catalogue": 1,
            "artifact": 1,
            "checkpoint": 0,
            "pin": 1,
            "rollback": 2,
            "root": 2,
        }
        count = {**named, "warm_start": 1}[kind]
        assert all(
            type(each) in (OPTIONAL_TEXT if kind == "pin" else TEXT) for each in fields[:count]
        )
    if kind in {"rollback", "root"}:
        position_promises(fields[1 if kind == "rollback" else 0])


def users_promises(kind: str, fields: list) -> None:
    texts = fields[:3] if kind == "activity" else fields[:2]
    assert all(type(each) in TEXT for each in texts)
    assert all(texts[: 1 if kind == "erasure" else None])
    if kind == "merge_users":
        assert texts[0] != texts[1]
    if kind == "activity":
        value, time_ms, name = [*fields[3:], None, None, None][:3]
        assert value is None or (is_number(value) and abs(value) <= 1e12)
        assert time_ms is None or 0 <= time_ms < 253_402_300_800_000
        assert type(name) in OPTIONAL_TEXT


def items_promises(kind: str, fields: list) -> None:
    if kind == "items_base":
        digest, version = [*fields, None][:2]
        assert type(digest) in TEXT
        assert type(version) in OPTIONAL_TEXT
        return
    assert fields[0]
    for op, item_id, *rest in fields[0]:
        assert op in {"put", "patch", "delete"}
        assert type(item_id) in TEXT
        assert item_id
        assert type([*rest, b""][0]) is bytes


def position_promises(position: str) -> None:
    milliseconds, sequence = position.split("-")
    assert 0 <= int(milliseconds) < 10**19
    assert 0 <= int(sequence) < 10**19


def merge_promises(number: int, inputs: list[Any]) -> None:
    given = [each for each in inputs if each is not None]
    assert all(0 < each < 2**53 for each in (number, *(each[0] for each in given)))
    for each in given:
        position_promises(each[1])
        assert type(each[2]) in TEXT


def event_id_promises(event_id: Any) -> None:
    assert type(event_id) is str
    assert 1 <= len(event_id.encode()) <= 256


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


RULES_AT = 19
"""Where a decision's rules stand among its fields, and ``placed`` is the seventh of theirs."""
APPRENTICE_AT = 20
"""Where it says what an apprentice would have chosen."""


def decision_promises(fields: list[Any]) -> None:
    event_id, *names, context, ids, features, scores, pmf, chosen = fields[:11]
    user, deferred, holdout, credit = [
        *fields[11:],
        *[None, False, False, None][len(fields[11:]) :],
    ][:4]
    event_id_promises(event_id)
    assert all(type(each) in TEXT for each in (*names, *ids))
    # Where all of a page is placed, nothing was drawn.
    rules = fields[RULES_AT] if len(fields) > RULES_AT else None
    all_placed = not chosen and bool([*(rules or ()), *[None] * 7][6])
    assert len(ids) == len(set(ids)) >= (0 if all_placed else 1)
    assert features is None or len(features) == len(ids)
    for each in (context, *(features or ())):
        feature_promises(each)
    for source, column in scores.items():
        assert type(source) in TEXT
        assert not any(math.isinf(x) for x in struct.unpack(f"<{len(ids)}f", column))
    if all_placed:
        assert pmf == b""
    else:
        pmf_promises(pmf, len(ids), chosen)
    assert len(set(chosen)) == len(chosen)
    assert type(user) in OPTIONAL_TEXT
    assert type(deferred) is type(holdout) is bool
    if credit is not None:
        sources, probabilities, credited = credit[:3]
        assert all(type(each) in TEXT for each in sources)
        assert len(credited) == len(chosen)
        pmf_promises(probabilities, len(sources), credited)
    if len(fields) > APPRENTICE_AT and fields[APPRENTICE_AT] is not None:
        served, probabilities, own = fields[APPRENTICE_AT][:3]
        assert served in {"first", "request", "drawn", "source", "holdout"}
        assert len(own) == len(set(own)) == len(chosen)
        if own:
            pmf_promises(probabilities, len(ids), own)


def feature_promises(features: dict[str, Any] | None) -> None:
    for name, value in (features or {}).items():
        assert type(name) in TEXT
        if is_number(value):
            assert abs(value) <= 1e19
        elif type(value) is list:
            assert all(type(each) in TEXT for each in value)
        else:
            assert type(value) in {str, bool}


def pmf_promises(data: bytes, columns: int, chosen: list[int]) -> None:
    """Exact sums, where the codec's are numpy's.

    Between the two lies less than one rounding per column.
    """
    assert chosen
    rows = list(struct.iter_unpack(f"<{columns}d", data))
    assert len(rows) == len(chosen)
    for row, index in zip(rows, chosen, strict=True):
        assert type(index) is int
        assert 0 <= index < columns
        assert all(0.0 <= p <= 1.0 + 1e-11 for p in row)
        assert abs(math.fsum(row) - 1.0) <= 1e-12 + columns * 2.0**-53
        assert row[index] > 0.0
