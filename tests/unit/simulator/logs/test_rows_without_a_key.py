"""Rows that do not say which event they are of are events of their own, and no one thing."""

import numpy as np
import pytest
from support.tables import BARE, COLUMNS, campaign, written

from simulator.logs.formats import open_log
from simulator.logs.obd import obd_pieces
from simulator.logs.tables import MISSING
from simulator.ope.targets import LoggingTarget
from simulator.replay.evaluate import OpeQuestion, evaluate


def keys_of(pieces) -> list[int]:
    return [key for piece in pieces for batch in piece.batches() for key in batch.keys.tolist()]


@pytest.mark.parametrize("empty", [*MISSING, " "])
def test_rows_without_an_event_id_are_events_of_their_own(tmp_path, monkeypatch, empty):
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    rows = [
        (empty if number % 2 else f"e{number // 4}", 1, "a", "a|b", 0.5, 1) for number in range(200)
    ]
    log = written(tmp_path / "log.csv", rows)
    named = {
        shards: [
            row.event_id
            for piece in open_log(str(log), "csv", columns=COLUMNS, shards=shards)
            for batch in piece.batches()
            for row in batch.decisions
        ]
        for shards in (1, 5)
    }
    assert named[1] == named[5]
    assert len(set(named[1])) == 100 + 50  # two rows of each event that has a name
    assert len(set(keys_of(open_log(str(log), "csv", columns=COLUMNS)))) == 150


def test_an_interval_is_as_wide_whether_half_of_the_rows_have_an_event_id(tmp_path):
    """4,000 rows, half of which have none: the bootstrap's width is within 15% of the normal one.

    200 draws put the standard deviation of the ratio at 5%, and a false alarm at 3 in 1,000; the
    seed is fixed.
    """
    rng = np.random.default_rng(0)
    rows = [
        ("" if number % 2 else f"e{number}", 1, "a", "a|b", 0.5, int(rng.random() < 0.5))
        for number in range(4000)
    ]
    pieces = open_log(str(written(tmp_path / "log.csv", rows)), "csv", columns=COLUMNS)
    found = {
        interval: evaluate(OpeQuestion([LoggingTarget()], ("snips",), interval=interval), pieces)
        .results[0]
        .estimates["snips"]
        for interval in ("normal", "bootstrap")
    }
    widths = {name: each.interval[1] - each.interval[0] for name, each in found.items()}
    assert widths["bootstrap"] == pytest.approx(widths["normal"], rel=0.15)
    assert sum(found["bootstrap"].interval) / 2 == pytest.approx(
        found["normal"].value, abs=0.2 * widths["normal"]
    )


def test_files_of_one_name_hold_different_events(tmp_path):
    """As a table that is partitioned by day lies on disk."""
    for day in ("day=1", "day=2"):
        (tmp_path / day).mkdir()
        written(tmp_path / day / "part.csv", [(1, "a", "a|b", 0.5, 1)] * 3, "x,shown,of,p,click")
        lines = ["shared |u a\n0:-1:0.5 |i a\n|i b\n\n"] * 3
        (tmp_path / day / "part.txt").write_text("".join(lines))
    assert len(set(keys_of(open_log(f"{tmp_path}/*/part.csv", "csv", columns=BARE)))) == 6
    assert len(set(keys_of(open_log(f"{tmp_path}/*/part.txt", "vw")))) == 6


@pytest.mark.parametrize(
    "given", ['"EventId": ""', '"EventId": " "', '"eventId": "", "EventId": null', '"pdrop": 0.0']
)
def test_decisions_of_dsjson_without_an_id_are_events_of_their_own(tmp_path, given):
    label = '"_label_cost": -1, "_label_probability": 0.5, "_label_Action": 1, "_labelIndex": 0'
    line = f'{{{label}, "a": [1, 2],'
    (tmp_path / "log.json").write_text(
        f'{line} "p": [0.5, 0.5], {given}, "c": {{"_multi": [{{"x": 1}}, {{"x": 2}}]}}}}\n' * 3
    )
    assert len(set(keys_of(open_log(str(tmp_path / "log.json"), "dsjson")))) == 3


@pytest.mark.parametrize("index", [("", ""), (" ", " ")])
def test_rows_of_obd_without_a_number_are_events_of_their_own(tmp_path, index):
    assert len(set(keys_of(obd_pieces(campaign(tmp_path / "men", ("1", "2"), index=index))))) == 2


def test_rows_of_obd_without_a_column_of_numbers_are_not_named_by_their_time(tmp_path):
    folder = campaign(tmp_path / "men", ("1", "2"))
    lines = (folder / "men.csv").read_text().splitlines()
    (folder / "men.csv").write_text("\n".join(line.partition(",")[2] for line in lines) + "\n")
    assert len(set(keys_of(obd_pieces(folder)))) == 2
