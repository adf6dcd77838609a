"""VW's logs read back: what was written, whichever way the file is cut; and what is refused."""

import copy
import gzip
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import tries

from bandits.errors import BadRowError, InvalidFieldError, ReplayError
from bandits.types import check_pmf
from simulator.logs import text_records
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.text_records import WEIGHT, Span, TextRecord, cut_into_spans, records
from simulator.logs.vw_text import text_pieces

GOOD = {
    "_label_cost": -1.5,
    "_label_probability": 0.8,
    "_label_Action": 2,
    "_labelIndex": 1,
    "Timestamp": "2017-10-24T00:00:15.5160000Z",
    "Version": "1",
    "EventId": "e1",
    "a": [2, 1],
    "c": {
        "_synthetic": False,
        "hour": 21,
        "User": {
            "age": "25-34",
            "_hidden": 3,
            "clicks": [3, 0.5],
            "likes": ["x", "y"],
            "new": True,
            "none": None,
        },
        "_multi": [
            {
                "_tag": "news",
                "i": {"constant": 1},
                "j": [{"_title": "T"}, {"vision": {"person": 0.5}}],
            },
            {"_tag": "sport", "i": {"constant": 1}},
        ],
    },
    "p": [0.8, 0.2],
    "o": [{"v": 1.0, "EventId": "e1"}],
    "VWState": {"m": "abc/1"},
}
TEXT = """\
shared visit|User age:25 city:Paris |Geo:2 x:0.5
|Item a b:2
0:-1.5:0.25 'sport|Item:0.5 c:4 c:2 | plain :7 :8
"""
NAMES = st.text("abcXYZ_-é", min_size=1, max_size=5).filter(lambda name: not name.startswith("_"))
NUMBERS = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda number: number + 0.0)
FEATURES = st.dictionaries(
    NAMES, st.dictionaries(NAMES, NUMBERS | st.text("pqr", min_size=1), max_size=3), max_size=3
)
DECISIONS = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        FEATURES,
        st.lists(FEATURES, min_size=count, max_size=count),
        st.integers(0, count - 1),
        st.floats(0.001, 1.0),
        st.floats(-1e9, 1e9),
    )
)


def without(*names, **changes):
    return {name: value for name, value in (GOOD | changes).items() if name not in names}


def dsjson(path, *objects):
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return path


def text(path, content=TEXT):
    path.write_text(content)
    return path


def rows_of(pieces):
    return [row for piece in pieces for batch in piece.batches() for row in batch.decisions]


def plain(row):
    pmf = None if row.pmf is None else row.pmf.tolist()
    return (
        *(row.event_id, row.context, list(row.action_ids), row.chosen, row.propensity, row.reward),
        *(row.features, pmf, row.time_ms),
    )


def flat(features):
    return {
        f"{space}.{name}": value
        for space, inside in features.items()
        for name, value in inside.items()
    }


def test_a_dsjson_line_is_read(tmp_path):
    (row,) = rows_of(dsjson_pieces(dsjson(tmp_path / "log", GOOD)))
    assert row.event_id == "e1"
    assert row.context == {
        "hour": 21.0,
        "User.age": "25-34",
        "User.clicks.0": 3.0,
        "User.clicks.1": 0.5,
        "User.likes": ["x", "y"],
        "User.new": True,
    }
    assert row.action_ids == ["news", "sport"]
    assert row.features == [{"i.constant": 1.0, "j.vision.person": 0.5}, {"i.constant": 1.0}]
    assert (row.chosen, row.propensity, row.reward) == (1, 0.8, 1.5)
    assert check_pmf(row.pmf).tolist() == [0.2, 0.8]
    assert row.time_ms == 1508803215516


def test_a_text_example_is_read(tmp_path):
    (row,) = rows_of(text_pieces(text(tmp_path / "log")))
    assert row.event_id == "log@0"
    assert row.context == {"User.age": 25.0, "User.city": "Paris", "Geo.x": 1.0}
    assert row.action_ids == ["1", "2"]  # only one line has a tag
    assert row.features == [
        {"Item.a": 1.0, "Item.b": 2.0},
        {"Item.c": 3.0, "plain": 1.0, "0": 7.0, "1": 8.0},
    ]
    assert (row.chosen, row.propensity, row.reward, row.pmf) == (1, 0.25, 1.5, None)


def test_tags_are_ids_when_each_action_has_one_of_its_own(tmp_path):
    (row,) = rows_of(text_pieces(text(tmp_path / "log", "1:0:1 'a|x\n'c |y\n")))
    assert row.action_ids == ["a", "c"]
    twice = without(c={"_multi": [{"_tag": "tag"}, {"_tag": "tag"}]})
    (row,) = rows_of(dsjson_pieces(dsjson(tmp_path / "other", twice)))
    assert row.action_ids == ["1", "2"]


def test_the_shared_line_is_optional_and_an_example_needs_no_empty_line_at_the_end(tmp_path):
    log = text(tmp_path / "log", "\n\n|a x\n0:1:0.5 |a y\n\n\nshared |u z\n0:2:0.5 |\n|a y")
    first, second = rows_of(text_pieces(log))
    assert (first.context, first.chosen, first.reward) == ({}, 1, -1.0)
    assert (second.context, second.chosen, second.features) == ({"u.z": 1.0}, 0, [{}, {"a.y": 1.0}])
    assert first.event_id != second.event_id


@tries(100)
@given(decisions=st.lists(DECISIONS, max_size=6), piece_bytes=st.integers(1, 400))
def test_dsjson_is_read_as_it_was_written_however_it_is_cut(
    tmp_path_factory, decisions, piece_bytes
):
    path = tmp_path_factory.mktemp("logs") / "log.dsjson"
    objects = [
        {
            "_label_cost": cost,
            "_label_probability": propensity,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
            "EventId": f"e{number}",
            "a": [chosen + 1],
            "p": [propensity],
            "c": {**context, "_multi": actions},
        }
        for number, (context, actions, chosen, propensity, cost) in enumerate(decisions)
    ]
    dsjson(path, *objects)
    pieces = dsjson_pieces(path, piece_bytes=piece_bytes)
    rows = rows_of(pieces)
    assert [row.event_id for row in rows] == [each["EventId"] for each in objects]
    for row, (context, actions, chosen, propensity, cost) in zip(rows, decisions, strict=True):
        assert row.context == flat(context)
        assert row.features == [flat(action) for action in actions]
        assert (row.chosen, row.propensity, row.reward) == (chosen, propensity, -cost)
        assert (row.pmf is not None) == (len(actions) == 1 and propensity > 1 - 1e-4)


@tries(100)
@given(decisions=st.lists(DECISIONS, max_size=6), piece_bytes=st.integers(1, 400))
def test_text_is_read_as_it_was_written_however_it_is_cut(tmp_path_factory, decisions, piece_bytes):
    path = tmp_path_factory.mktemp("logs") / "log.txt"

    def words(features):
        return " ".join(
            f"|{space} " + " ".join(f"{name}:{value}" for name, value in inside.items())
            for space, inside in features.items()
        )

    content = ""
    for context, actions, chosen, propensity, cost in decisions:
        content += f"shared {words(context)}\n" if context else ""
        for place, action in enumerate(actions):
            content += (
                f"{f'0:{cost}:{propensity} ' if place == chosen else ''}{words(action) or '|'}\n"
            )
        content += "\n"
    rows = rows_of(text_pieces(text(path, content), piece_bytes=piece_bytes))
    assert [plain(row) for row in rows] == [plain(row) for row in rows_of(text_pieces(path))]
    for row, (context, actions, chosen, propensity, cost) in zip(rows, decisions, strict=True):
        assert row.context == flat(context)
        assert row.features == [flat(action) for action in actions]
        assert (row.chosen, row.propensity, row.reward) == (chosen, propensity, -cost)


@pytest.mark.parametrize("blocks", [False, True])
@given(content=st.text("a\n\r", max_size=60), piece_bytes=st.integers(1, 70))
def test_any_cut_of_any_file_holds_the_same_records(tmp_path_factory, blocks, content, piece_bytes):
    path = tmp_path_factory.mktemp("logs") / "log"
    path.write_bytes(content.encode())
    whole = list(records(Span(path, blocks=blocks)))
    spans = cut_into_spans(path, piece_bytes=piece_bytes, blocks=blocks)
    pieces = [record for span in spans for record in records(span)]
    assert [(r.offset, r.lines) for r in pieces] == [(r.offset, r.lines) for r in whole]
    assert [span.start for span in spans[1:]] == [span.stop for span in spans[:-1]]
    for record in whole:
        assert record.numbered().first == content.encode()[: record.offset].count(b"\n") + 1
    if not blocks:
        expected = [line.rstrip("\r") for line in content.split("\n")]
        assert [record.lines for record in whole] == [[line.encode()] for line in expected if line]


def test_a_piece_holds_as_many_bytes_as_it_was_told(tmp_path):
    path = dsjson(tmp_path / "log", *[GOOD] * 100)
    size = path.stat().st_size
    assert len(cut_into_spans(path, piece_bytes=size)) == 1
    assert len(cut_into_spans(path, piece_bytes=-(-size // 4))) == 4
    with pytest.raises(InvalidFieldError):
        cut_into_spans(path, piece_bytes=0)


def test_a_piece_goes_to_another_process_and_is_read_again(tmp_path):
    path = dsjson(tmp_path / "log", GOOD, {"a": "x"}, without("EventId"))
    (piece,) = dsjson_pieces(path, skip_bad=True)
    first = [plain(row) for row in rows_of([piece])]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there_and_back = pool.submit(copy.copy, piece).result()
    assert (
        [plain(row) for row in rows_of([there_and_back])]
        == [plain(row) for row in rows_of([piece])]
        == first
    )
    assert piece.skipped == there_and_back.skipped == 1


def test_batches_have_a_limit_and_a_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(text_records, "BATCH_ROWS", 2)
    (piece,) = dsjson_pieces(dsjson(tmp_path / "log", GOOD, without(pdrop=0.5), GOOD, GOOD, GOOD))
    batches = list(piece.batches())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert np.concatenate([batch.columns[WEIGHT] for batch in batches]).tolist() == [1, 2, 1, 1, 1]
    assert batches[0].reward.tolist() == [1.5, 1.5]


def compressed(path, data):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    else:
        path.write_bytes(pa.Codec("zstd").compress(data, asbytes=True))
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_one_piece_with_the_same_rows(tmp_path, suffix):
    plain_file = dsjson(tmp_path / "log", *[without("EventId")] * 50)
    packed = compressed(tmp_path / f"log{suffix}", plain_file.read_bytes())
    pieces = dsjson_pieces(packed, piece_bytes=10)
    assert len(pieces) == 1
    assert [plain(row)[1:] for row in rows_of(pieces)] == [
        plain(row)[1:] for row in rows_of(dsjson_pieces(plain_file))
    ]
    cut_off = compressed(tmp_path / f"cut{suffix}", np.random.default_rng(0).bytes(5000))
    cut_off.write_bytes(cut_off.read_bytes()[:-2000])
    with pytest.raises(ReplayError, match="cut"):
        rows_of(dsjson_pieces(cut_off, skip_bad=True))


def test_the_line_is_named_in_a_compressed_file_and_in_a_later_piece(tmp_path):
    good = [json.dumps(GOOD)] * 30
    data = "\r\n".join([*good, "", "{]"]).encode()
    for name in ("log.gz", "log.zst"):
        with pytest.raises(BadRowError, match="line 32"):
            rows_of(dsjson_pieces(compressed(tmp_path / name, data)))
    path = tmp_path / "log"
    path.write_bytes(data)
    *_, last = dsjson_pieces(path, piece_bytes=2000)
    with pytest.raises(BadRowError, match=f"{path}, line 32"):
        rows_of([last])


def test_a_file_without_decisions_has_no_rows(tmp_path):
    path = text(tmp_path / "log", "")
    assert rows_of([*dsjson_pieces(path), *text_pieces(path)]) == []
    with pytest.raises(ReplayError, match="missing"):
        dsjson_pieces(tmp_path / "missing")


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert len(rows_of(dsjson_pieces(path))) == 1


@pytest.mark.parametrize("content", ["x" * 200, "|x\n" * 100])
def test_a_record_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(text_records, "MAX_RECORD_BYTES", 100)
    with pytest.raises(ReplayError, match="100 bytes"):
        rows_of(text_pieces(text(tmp_path / "log", content), skip_bad=True))


@pytest.mark.parametrize(
    "line",
    [
        {"EventId": "e1", "RewardValue": 1.0},
        without("_label_cost", "_label_probability", "_label_Action", "_labelIndex"),
        without(_skipLearn=True),
    ],
)
def test_what_is_not_a_decision_is_neither_a_row_nor_bad(tmp_path, line):
    (piece,) = dsjson_pieces(dsjson(tmp_path / "log", line, GOOD), skip_bad=True)
    assert len(rows_of([piece])) == 1
    assert piece.skipped == 0


@pytest.mark.parametrize(
    ("changes", "agree"),
    [
        ({"p": [0.8, 0.3]}, False),
        ({"p": [0.8]}, False),
        ({"a": [2, 2]}, False),
        ({"a": [1, 2]}, False),
        ({"p": [0.80001, 0.2]}, True),
        ({"p": None}, False),
    ],
)
def test_a_pmf_is_given_only_where_the_line_holds_one(tmp_path, changes, agree):
    (row,) = rows_of(dsjson_pieces(dsjson(tmp_path / "log", without(**changes))))
    assert (row.pmf is not None) == agree
    assert row.pmf is None or check_pmf(row.pmf)[1] == pytest.approx(0.8, rel=1e-4)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("{]", "line"),
        ('{"EventId": "\xff"}', "line"),
        (json.dumps(GOOD).replace("25-34", "\xff"), None),
        (without(_label_cost="x"), "line"),
        (without("_label_cost"), "_label_cost"),
        (without("_label_probability"), "_label_cost"),
        (without(_label_probability=0), "propensity"),
        (without(_label_probability=1.01), "propensity"),
        (without(_label_cost=1e13), "reward"),
        (without(_labelIndex=0), "_labelIndex"),
        (without("_labelIndex", "_label_Action", "a"), "_labelIndex"),
        (without("_label_Action", _labelIndex=2), "chosen"),
        (without("_labelIndex", _label_Action=0), "chosen"),
        (without(pdrop=1.0), "pdrop"),
        (without(_outcomes=[]), "_outcomes"),
        (without("c"), "c._multi"),
        (without(c={"_multi": [1]}), "c._multi"),
        (without(c={"x": 1e30, "_multi": [{}, {}]}), "x"),
        (without(c={"x": 10**400, "_multi": [{}, {}]}), None),
        (json.dumps(GOOD).replace("21", '{"a":' * 990 + "1" + "}" * 990), None),
        (json.dumps(GOOD).replace("21", "[" * 100_000 + "]" * 100_000), "line"),
        (without(Timestamp="yesterday"), "Timestamp"),
    ],
)
def test_a_malformed_dsjson_line_is_refused_by_name_or_skipped_and_counted(tmp_path, line, target):
    path = tmp_path / "log"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_bytes("\n".join([json.dumps(GOOD), bad, json.dumps(GOOD)]).encode("latin-1"))
    with pytest.raises(BadRowError) as caught:
        rows_of(dsjson_pieces(path))
    assert caught.value.message.startswith(f"{path}, line 2: ")
    assert target in (None, caught.value.target)
    (piece,) = dsjson_pieces(path, skip_bad=True)
    assert len(rows_of([piece])) == 2
    assert piece.skipped == 1


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("0:1:0.5 0:1:0.5 |i x", "label"),
        ("0:1 |i x", "label"),
        ("0:x:0.5 |i x", "label"),
        ("a:1:0.5 |i x", "label"),
        ("0:1:0.5|i x", "label"),
        ("0:1:0.5\t|i x", "label"),
        ("shared|i x", "label"),
        ("0:1:0 |i x", "propensity"),
        ("0:1:1.5 |i x", "propensity"),
        ("0:1:-.5 |i x", "propensity"),
        ("0:1e13:0.5 |i x", "reward"),
        ("0:1:0.5 |i:x y", "i"),
        ("0:1:0.5 |i y:", "y"),
        ("0:1:0.5 |i y:1:2", "y"),
        ("0:1:0.5 |i y:1e30", "i.y"),
        ("0:1:0.5 |i \xff", "line"),
        ("0:1:0.5 i y", "label"),
        ("shared |u x\n0:1:0.5 |i y", "shared"),
        ("0:1:0.5 |i y\n0:1:0.5 |i y", "label"),
    ],
)
def test_a_malformed_text_example_is_refused_by_name_or_skipped_and_counted(tmp_path, line, target):
    path = tmp_path / "log"
    path.write_bytes(f"{TEXT}\n|i first\n{line}\n|i last\n\n{TEXT}".encode("latin-1"))
    with pytest.raises(BadRowError) as caught:
        rows_of(text_pieces(path))
    at = TEXT.count("\n") + 3 + (line.count("\n") if target == "label" else 0)
    assert caught.value.message.startswith(f"{path}, line {at}: ")
    assert caught.value.target == target
    (piece,) = text_pieces(path, skip_bad=True)
    assert len(rows_of([piece])) == 2
    assert piece.skipped == 1


def test_examples_without_a_label_are_not_decisions(tmp_path):
    (piece,) = text_pieces(text(tmp_path / "log", "|a x\n|a y\n\n" + TEXT), skip_bad=True)
    assert len(rows_of([piece])) == 1
    assert piece.skipped == 0


def test_a_record_knows_where_it_is():
    record = TextRecord(Path("dir/log"), 7, [b"x"], first=3)
    assert (record.event_id, record.where(1)) == ("log@7", "dir/log, line 4")
