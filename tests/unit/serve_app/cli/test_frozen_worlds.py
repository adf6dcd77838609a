"""``banditloop worlds tables`` and ``parameters``."""

import csv
import json

import pytest
from typer.testing import CliRunner

from bandits.errors import InvalidFieldError
from serve_app.cli.main import app
from simulator.worlds.frozen.committed import PARAMETERS, parameters_digest


def said_by(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["worlds", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_tables_are_written_where_they_shall_be_and_counted(tmp_path):
    folder = tmp_path / "a" / "b"
    small = ["--set", "visits=500", "--set", "users=20", "--seed", "4"]
    said = said_by("tables", "drift", str(folder), *small, "--decisions", "--json")
    report = json.loads(said)
    assert report["world"] == "drift"
    assert report["seed"] == 4
    assert sorted(report["rows"]) == sorted(path.name for path in folder.iterdir())
    for name, rows in report["rows"].items():
        with (folder / name).open(newline="") as file:
            assert len(list(csv.DictReader(file))) == rows
    assert report["rows"]["users.csv"] == 20
    table = said_by("tables", "drift", str(folder), *small)
    assert "events.csv" in table
    assert report["digest"] in table


def test_parameters_are_shown_with_their_digest():
    shown = json.loads(said_by("parameters", "--json"))
    assert shown["digest"] == parameters_digest()
    assert list(shown["worlds"]) == list(PARAMETERS)
    one = json.loads(said_by("parameters", "shop", "--set", "users=7", "--json"))
    assert list(one["worlds"]) == ["shop"]
    assert one["worlds"]["shop"]["users"] == 7
    table = said_by("parameters", "attackers", "--set", "share=0.05")
    assert "0.05, not 0.1" in table
    assert "a number, 0 to 0.2" in table
    assert parameters_digest() in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parameters", "--set", "users=7"), "name the world"),
        (("parameters", "shop", "--set", "user=7"), "did you mean users"),
        (("tables", "shop", "out", "--set", "users=0"), "an integer, 1 to 10,000,000"),
        (("tables", "attackers", "out", "--set", "share=0.5"), "a number, 0 to 0.2"),
        (("tables", "shops", "out"), "did you mean shop"),
        (
            (
                *("tables", "shop", "out", "--set", "items=5", "--set", "categories=2"),
                *("--set", "new_share=1"),
            ),
            "only 2 items are on offer",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    arguments, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidFieldError, match=said):
        CliRunner().invoke(app, ["worlds", *arguments], catch_exceptions=False)
    assert not (tmp_path / "out").exists()
