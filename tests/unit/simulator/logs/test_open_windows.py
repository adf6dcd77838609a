"""A log whose windows are open: how many decisions wait, until when, and what can be said now."""

import json
import re

import msgspec
import pytest
from support.logs import archived
from support.towns import SPECS, log_of
from typer.testing import CliRunner

from bandits.errors import ReplayError, RowsWaitError
from bandits.log.join import Join, JoinRule
from bandits.log.positions import position_ms
from bandits.log.records import DecisionRecord
from serve_app.cli.main import app
from serve_app.cli.train import app as train_app
from serve_app.personalizer.evaluations.judging import LogPart, judge_served
from simulator.learners.trained import train_on_log
from simulator.logs.archive.rows import decision_rows
from simulator.logs.archive.rules import evaluation_rule
from simulator.logs.formats import open_log
from simulator.logs.rows import waiting_of
from simulator.ope.targets import LoggingTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions
from simulator.replay.search import search
from simulator.replay.search_space import SearchSpace

WEEK = 7 * 86_400
LONG = msgspec.structs.replace(SPECS["softmax"], join=JoinRule(window_s=WEEK))


@pytest.fixture(scope="module")
def town():
    return log_of("", 1500, seed=3, spec=LONG)


@pytest.fixture(scope="module")
def archive(town, tmp_path_factory):
    return archived(tmp_path_factory.mktemp("archive"), town, LONG, 9)


def decisions_of(town):
    return [entry for entry in town if isinstance(entry.record, DecisionRecord)]


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_open_decisions_are_counted_however_the_archive_is_cut(archive, town, shards):
    pieces = open_log(str(archive), "archive", shards=shards)
    assert sum(len(batch) for piece in pieces for batch in piece.batches()) == 0
    made = decisions_of(town)
    waiting = waiting_of(pieces)
    assert waiting.decisions == len({entry.record.event_id for entry in made})
    assert waiting.first_ms == made[0].time_ms + 1000 * WEEK
    # the last one may be a duplicate
    assert made[-1].time_ms + 1000 * WEEK - waiting.last_ms < 60_000


ASKED = {
    "ope": lambda pieces: evaluate(OpeQuestion([LoggingTarget(), UniformTarget()]), pieces),
    "sessions": lambda pieces: evaluate_sessions(
        SessionQuestion((LoggingTarget(),), session="town"), pieces
    ),
    "train": lambda pieces: train_on_log(LONG, pieces),
    "search": lambda pieces: search(
        SearchSpace(spec="x", vary={"floor": {"choice": [0.1, 0.2]}}), LONG, pieces
    ),
}


@pytest.mark.parametrize("asked", ASKED)
def test_whoever_finds_no_rows_says_what_waits_and_until_when(archive, asked):
    with pytest.raises(
        RowsWaitError,
        match=r"1,\d\d\d decisions wait for their windows, the first until \d{4}-.*--window-s",
    ):
        ASKED[asked](open_log(str(archive), "archive"))


@pytest.mark.slow
def test_an_evaluation_of_personalizers_protocol_waits_for_nothing_and_says_so(archive):
    """It has not failed: there is nothing to tell yet, and until when."""
    times = ["1970-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"]
    judged = judge_served(LogPart(str(archive), *times))
    assert judged.waits
    assert judged.found == []
    assert judged.said.startswith("the log has no rows to evaluate yet")
    nowhere = judge_served(LogPart(str(archive / "none"), *times))
    assert not nowhere.waits
    assert nowhere.said


@pytest.mark.parametrize("method", ["ope", "progressive", "rejection"])
def test_the_command_says_it_and_looks_earlier_when_asked(archive, tmp_path, method):
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: p\nexploration: {kind: epsilon_greedy}\n")
    policy = "uniform" if method == "ope" else str(spec)
    command = [
        "replay",
        "--log",
        str(archive),
        "--method",
        method,
        "--policy",
        policy,
        "--bound",
        "5",
    ]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ReplayError)
    assert "decisions wait for their windows" in done.exception.message
    out = tmp_path / "r.json"
    done = CliRunner().invoke(app, [*command, "--window-s", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["log"]["rows"] > 1000
    said = json.dumps(report["results"][-1])
    assert (
        "only rewards within 2 s of a decision are counted, where the policy waits 604800 s" in said
    )
    assert '"reliable"' not in said


@pytest.mark.parametrize("shards", [1, 4])
def test_a_shorter_window_counts_the_rewards_that_came_within_it(archive, town, shards):
    """As if the policy had always had that window."""
    rule = evaluation_rule(JoinRule(window_s=2))
    join = Join(lambda _: rule, rule=rule)
    expected = [
        row for entry in town for joined in join.apply(entry) for row in decision_rows(joined)
    ]
    pieces = open_log(str(archive), "archive", shards=shards, window_s=2)
    found = [row for piece in pieces for batch in piece.batches() for row in batch.decisions]
    assert [(row.event_id, row.slot, row.reward) for row in found] == [
        (row.event_id, row.slot, row.reward) for row in expected
    ]
    assert sum(row.reward for row in found) > 100
    last_ms = position_ms(town[-1].id)
    assert waiting_of(pieces).first_ms > last_ms


def test_a_window_that_is_no_shorter_changes_nothing(archive, town):
    short = msgspec.structs.replace(LONG, join=JoinRule(window_s=2))
    assert evaluation_rule(short.join, WEEK) == evaluation_rule(short.join)
    (piece,) = open_log(str(archive), "archive", window_s=WEEK)
    assert piece.caution == ""


def test_what_is_left_out_is_in_the_report(archive):
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget()]),
        open_log(str(archive), "archive", window_s=2, shards=3),
    )
    estimates = [each for result in report.results for each in result.estimates.values()]
    assert {each.verdict for each in estimates} <= {"weak", "unreliable"}
    assert all(re.search(r"only rewards within 2 s", each.reason) for each in estimates)
    assert all("only rewards within 2 s" in each.result.reason for each in report.comparisons)
    pieces = open_log(str(archive), "archive", window_s=2)
    assert sum(len(batch) for piece in pieces for batch in piece.batches()) == report.log.rows
    waiting = waiting_of(pieces)
    assert waiting.decisions > 10
    assert (report.log.waiting, report.log.waiting_until_ms) == (waiting.decisions, waiting.last_ms)


@pytest.mark.parametrize(
    ("log_format", "window_s"), [("csv", 5.0), ("dsjson", 5.0), ("archive", 0.0), ("archive", -1.0)]
)
def test_a_window_that_cannot_be_is_refused(tmp_path, log_format, window_s):
    with pytest.raises(ReplayError, match="a window of some seconds needs an archive"):
        open_log(str(tmp_path), log_format, window_s=window_s)


def test_what_is_trained_before_windows_have_closed_is_said(archive, tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\nexploration: {kind: epsilon_greedy}\n")
    command = [
        "policy",
        str(tmp_path / "p.yaml"),
        "--log",
        str(archive),
        "--out",
        str(tmp_path / "model"),
    ]
    done = CliRunner().invoke(train_app, command)
    assert isinstance(done.exception, ReplayError)
    assert "decisions wait for their windows" in done.exception.message
    done = CliRunner().invoke(train_app, [*command, "--window-s", "2"])
    assert done.exit_code == 0, done.output
    assert "only rewards within 2 s of a decision are counted" in " ".join(done.output.split())
