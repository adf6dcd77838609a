"""A spec is chosen without being told how to measure; the command judges what training makes."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from support.small_ranking import crowds, small_artifact, train_small

from bandits.errors import DataSetError
from policies.artifacts import source_artifact
from policies.data.writer import write_data_set
from serve_app.cli.main import main
from simulator.ranking.automatic import evaluate_by_first_split, user_contexts
from simulator.ranking.choose import choose_spec
from simulator.ranking.evaluate import RankingOptions
from simulator.ranking.splits import split_events


def written(folder, events, *, timed=True, users=None):
    times = events.time if timed else np.full(len(events), None)
    table = pa.table(
        {
            "user": [events.user_ids[code] for code in events.user],
            "item": [events.item_ids[code] for code in events.item],
            "time": pa.array(times, pa.int64()),
        }
    )
    return write_data_set(folder, table, users=users, name="crowds")


def measured(data):
    return evaluate_by_first_split(
        data.manifest.name,
        data.coded(),
        data.items(),
        data.manifest.weights,
        RankingOptions(),
        train_small,
        contexts=user_contexts(data),
    )


def test_the_first_split_that_the_data_allows_decides(tmp_path):
    events = crowds(users=120)
    for timed, split in ((True, "global-time"), (False, "user-time")):
        data = written(tmp_path / split, events, timed=timed)
        report = measured(data)
        chosen = choose_spec(report, name="home", artifact="shop")
        assert report.split.name == split
        assert "item_knn" in [source.name for source in chosen.spec.sources]
        assert f"split {split}" in chosen.yaml


def test_users_columns_are_the_context_that_learners_are_judged_with(tmp_path):
    events = crowds(users=120)
    users = pa.table(
        {
            "id": events.user_ids,
            "band": ["old" if number % 2 else "young" for number in range(120)],
            "visits": pa.array([None, *range(119)], pa.float64()),
        }
    )
    data = written(tmp_path / "crowds", events, users=users)
    contexts = user_contexts(data)
    assert contexts[events.user_ids[0]] == {"band": "young"}
    assert contexts[events.user_ids[3]] == {"band": "old", "visits": 2.0}

    report = measured(data)
    names = [row.name for row in report.learners]
    assert "ridge on scores and features, crossed with the context" in names


def test_what_cannot_be_measured_says_why_of_each_split(tmp_path):
    one = crowds(users=1, each=1)
    data = written(tmp_path / "one", one)
    with pytest.raises(DataSetError, match=r"one and the same time.*needs a user with two events"):
        measured(data)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["banditloop", "evaluate", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_the_command_judges_an_artifact_that_was_trained_on_the_earlier_part(
    tmp_path, monkeypatch, capsys
):
    events = crowds(users=150)
    data = written(tmp_path / "data", events).coded()
    early = data.select(split_events(data, "global-time").train).compact()
    source_artifact.write(small_artifact(early), tmp_path / "shop")

    out, page = tmp_path / "report.json", tmp_path / "page.html"
    options = ("--data", tmp_path / "data", "--artifact", tmp_path / "shop", "--users", 100)
    assert run(monkeypatch, *options, "--out", out, "--html", page, "--json") in {0, None}

    report = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["split"]["evaluated_users"] == 100
    assert [row["name"] for row in report["results"]] == [
        "item_knn",
        "popular",
        "borda",
        "rrf",
        "user_knn",
    ]
    assert report["results"][0]["metrics"]["recall"]["value"] > 0.5
    assert any("is not checked" in note for note in report["notes"])
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "random"), "--split is global-time, user-time, last-one, not 'random'"),
        (("--data", "nowhere"), "nowhere is not a data set"),
        (("--artifact", "nowhere"), "banditloop train --out nowhere makes one"),
        (("--sources", "populr"), "no source 'populr': did you mean popular?"),
    ],
)
def test_bad_input_is_one_line(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "data", crowds(users=40))
    source_artifact.write(small_artifact(crowds(users=40)), tmp_path / "shop")
    usual = {"--data": "data", "--artifact": "shop"}
    chosen = [word for pair in (usual | {options[0]: options[1]}).items() for word in pair]
    assert run(monkeypatch, *chosen) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error ")
    assert said in line
