"""Where a log's files are: one or many, by path, glob or URI, plain or compressed.

And CSV as others write it.
"""

import gzip
import json
import re

import pytest
from typer.testing import CliRunner
from vowpal_wabbit_next import run_cli_driver

from bandits.errors import BadRowError, ReplayError
from serve_app.cli.main import app
from simulator.learners.progressive import vw_progressive
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.files import RemoteFile, files_of
from simulator.logs.formats import open_log

COLUMNS = CsvColumns(
    reward="click", propensity="p", action="shown", actions="of", context=["device"]
)
HEADER = "device,shown,of,p,click\n"
ROWS = [f"d{number},a,a|b,0.5,{number % 2}\n" for number in range(60)]
QUOTED = """"d,1","a",a|b,0.5,1\n"say ""hi\"\"",b,a|b,0.5,0\n"""


def rows_of(log, log_format="csv", shards=1, **options):
    pieces = open_log(str(log), log_format, shards=shards, columns=COLUMNS, **options)
    return [row for piece in pieces for batch in piece.batches() for row in batch.decisions]


def vw_text(first: int, count: int = 40) -> str:
    lines = []
    for number in range(first, first + count):
        lines.append(f"shared |u u{number % 3}\n")
        lines += [f"{'0:-1:0.5 ' if k == number % 2 else ''}|i a{k}\n" for k in range(2)]
        lines.append("\n")
    return "".join(lines)


def test_a_log_is_read_by_path_glob_and_uri_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    for part in range(3):
        (tmp_path / f"part-{part}.csv").write_text(
            HEADER + "".join(ROWS[20 * part : 20 * part + 20])
        )
    (tmp_path / "other.txt").write_text("nothing")
    devices = [f"d{number}" for number in range(60)]
    for log in (f"{tmp_path}/part-*.csv", f"file://{tmp_path}/part-*.csv"):
        for shards in (1, 7):
            assert [row.context["device"] for row in rows_of(log, shards=shards)] == devices
    one = f"file://{tmp_path}/part-1.csv"
    assert [row.context["device"] for row in rows_of(one)] == devices[20:40]
    assert {row.event_id for row in rows_of(one)} == {
        row.event_id for row in rows_of(tmp_path / "part-1.csv")
    }


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_records_of_lines_are_read_by_uri(tmp_path, suffix):
    data = vw_text(0).encode()
    (tmp_path / f"log.txt{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    here, there = (
        rows_of(f"{at}/log.txt{suffix}", "vw") for at in (tmp_path, f"file://{tmp_path}")
    )
    assert len(here) == 40
    assert [(row.event_id, row.reward, row.features) for row in here] == [
        (row.event_id, row.reward, row.features) for row in there
    ]


@pytest.mark.parametrize(
    "log",
    [
        "missing.csv",
        "missing-*.csv",
        "file:///missing.csv",
        "file:///tmp/missing-*.csv",
        "nowhere://b/a.csv",
    ],
)
def test_a_log_that_is_not_there_is_refused(log):
    with pytest.raises(ReplayError, match=r"cannot (be read|open)"):
        rows_of(log)


def test_only_the_last_part_of_a_uri_is_wild():
    with pytest.raises(ReplayError, match="only the last path segment"):
        files_of("file:///a*/b.csv")
    assert files_of("s3://bucket/a.csv") == [RemoteFile("s3://bucket/a.csv")]
    assert (RemoteFile("s3://bucket/a.csv.gz").name, RemoteFile("s3://bucket/a.csv.gz").suffix) == (
        "a.csv.gz",
        ".gz",
    )


def test_a_vw_policy_learns_from_several_files_as_vw_does_from_one(tmp_path):
    (tmp_path / "a.txt").write_text(vw_text(0))
    (tmp_path / "b.txt").write_text(vw_text(40))
    (tmp_path / "whole").write_text(vw_text(0) + vw_text(40))
    args = "--cb_explore_adf -q ui"
    said = run_cli_driver([*args.split(), "-d", str(tmp_path / "whole")], onethread=True)[0]
    expected = float(re.search(r"average loss = (\S+)", said)[1])
    assert vw_progressive(
        files_of(f"{tmp_path}/*.txt"), args, "text"
    ).average_loss == pytest.approx(expected, abs=1e-5)
    for log in (f"{tmp_path}/*.txt", f"file://{tmp_path}/*.txt"):
        command = [
            "replay",
            "--log",
            log,
            "--format",
            "vw",
            "--method",
            "progressive",
            "--out",
            str(tmp_path / "r.json"),
        ]
        done = CliRunner().invoke(app, [*command, "--policy", f"{{kind: vw, args: '{args}'}}"])
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["results"][0]["average_loss"] == pytest.approx(expected, abs=1e-5)
        assert report["results"][0]["learned"]["rows"] == 80


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv_with_quotes_and_either_end_of_line(tmp_path, monkeypatch, ends, shards):
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    (tmp_path / "log.csv").write_bytes(
        (HEADER + QUOTED + "".join(ROWS)).replace("\n", ends).encode()
    )
    found = rows_of(tmp_path / "log.csv", shards=shards)
    assert [row.context["device"] for row in found] == [
        "d,1",
        'say "hi"',
        *(f"d{number}" for number in range(60)),
    ]
    assert [row.event_id for row in found] == [f"log.csv:{line}" for line in range(2, 64)]


@pytest.mark.parametrize("last", ["", "\n"])
def test_a_line_break_in_a_cell_is_refused(tmp_path, last):
    (tmp_path / "log.csv").write_text(
        HEADER + ROWS[0] + '"d\n2",a,a|b,0.5,1\n' + ROWS[1].rstrip("\n") + last
    )
    with pytest.raises(BadRowError, match=r"log\.csv: a cell holds a line break"):
        rows_of(tmp_path / "log.csv")


def test_a_row_of_another_width_does_not_shift_the_others(tmp_path, monkeypatch):
    """Without an event id a row is named by its line, however the file is cut."""
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    (tmp_path / "log.csv").write_text(
        HEADER + "".join([*ROWS[:5], "too,few\n", *ROWS[5:9], "too,few\n", *ROWS[9:]])
    )
    named = {
        shards: [
            row.event_id for row in rows_of(tmp_path / "log.csv", shards=shards, skip_bad=True)
        ]
        for shards in (1, 4)
    }
    assert named[1] == [f"log.csv:{line}" for line in range(2, 64) if line not in {7, 12}]
    assert named[4] == named[1]
