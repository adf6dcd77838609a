"""``banditloop data show`` prints what is in a data set, and writes a page."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from policies.data.writer import write_data_set
from serve_app.cli.data import app
from serve_app.cli.errors import say_error


@pytest.fixture
def shop(tmp_path):
    times = [datetime(2024, 5, day, tzinfo=UTC) for day in (1, 2, 3, 3)]
    events = {"user": ["ann", "ann", "bob", "bob"], "item": ["x", "y", "x", "x"], "time": times}
    write_data_set(tmp_path / "shop", pa.table(events))
    return tmp_path / "shop"


def test_show_prints_tables_or_json_and_writes_a_page(shop, tmp_path):
    shown = CliRunner().invoke(app, ["show", str(shop), "--html", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    for text in ("2024-05-03", "events", "Gini index", "fewer than 5"):
        assert text in shown.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()

    printed = CliRunner().invoke(app, ["show", str(shop), "--json"])
    report = json.loads(printed.stdout)
    assert (report["events"], report["users"]["count"], report["duplicates"]) == (4, 2, 1)


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path, capsys):
    shown = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert say_error(shown.exception)
    said = capsys.readouterr().err
    assert "is not a data set" in said
    assert said.count("\n") == 1
