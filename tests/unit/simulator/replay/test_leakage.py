"""A policy that is evaluated on rows it learned from is told so, whatever became of the rows.

On other rows it is not.

Chance: a row is taken for one learned from only where as many found again have probability 1e-6 by
chance, so all of the cases of other rows together have an alarm with probability below 1e-4.
"""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.fakes import SALT
from typer.testing import CliRunner

from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.artifacts.trained_on import KEPT, LearnedRows, RowOverlap, RowSampler
from policies.spec import PolicySpec
from serve_app.cli.main import app
from serve_app.cli.train import app as train_app
from simulator.learners.trained import (
    FrozenPolicy,
    frozen_policy,
    read_trained,
    snapshot_of,
    train_on_log,
)
from simulator.logs.archive.pieces import ArchivePiece
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import open_log
from simulator.logs.row_ranges import row_range
from simulator.logs.rows import LoggedDecision, MemoryPiece, batch_of
from simulator.ope.targets import UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions
from simulator.replay.leakage import ServiceLog
from simulator.replay.page import html_page
from simulator.replay.report import EvaluationReport

SPEC = PolicySpec("home")
Table = list[str]
HEAD = "id,device,hour,shown,p,click"
TEXT = "name: home\nlearner: {kind: ridge, interactions: [[context, item]]}\n"


def table(count: int, seed: int, *, hours: bool = True, first: int = 0) -> Table:
    """Lines of a log of three actions: on "tv" a is good, on "pc" b.

    With ``hours`` hardly two say the same.
    """
    rng = np.random.default_rng(seed)
    lines = []
    for at in range(first, first + count):
        device, shown = ("tv", "pc")[int(rng.integers(2))], int(rng.integers(3))
        click = int(rng.random() < (0.8 if shown == (0 if device == "tv" else 1) else 0.2))
        hour = f"{rng.uniform(0, 24):.6f}" if hours else "0"
        lines.append(f"{at},{device},{hour},{'abc'[shown]},{1 / 3!r},{click}")
    return lines


def vw(lines: Table) -> Table:
    out = []
    for line in lines:
        _, device, hour, shown, p, click = line.split(",")
        label = {shown: f"0:{-float(click)}:{p} "}
        out.append(
            "\n".join(
                [
                    f"shared |c {device} h:{hour}",
                    *(f"{label.get(each, '')}|a {each}" for each in "abc"),
                    "",
                ]
            )
        )
    return out


def columns(named: bool) -> CsvColumns:
    return CsvColumns(
        reward="click",
        propensity="p",
        event_id="id" if named else None,
        action="shown",
        action_ids=["a", "b", "c"],
        context=["device", "hour"],
        kinds={"hour": "number"},
    )


def written(path: Path, lines: Table, form: str) -> Path:
    text = "\n".join([HEAD, *lines] if form != "vw" else vw(lines)) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def opened(path: Path, form: str, shards: int = 1):
    if form == "vw":
        return open_log(str(path), "vw", shards=shards)
    return open_log(str(path), "csv", shards=shards, columns=columns(form == "named"))


def evaluated(model: TrainedModel, pieces) -> EvaluationReport:
    return evaluate(
        OpeQuestion([frozen_policy(model, "home"), UniformTarget()], ["ips", "snips"]), pieces
    )


def told(report: EvaluationReport) -> bool:
    """Whether it is said, of every number and everywhere, or nowhere."""
    estimates = report.results[0].estimates.values()
    said = {each.verdict == "unreliable" and "learned from" in each.reason for each in estimates}
    assert len(said) == 1, [each.reason for each in estimates]
    compared = [each.result for each in report.comparisons if "home" in {each.left, each.right}]
    assert {
        each.verdict == "unreliable" and "learned from" in each.reason for each in compared
    } == said
    html = html_page(report)
    assert {"so its values are too high" in html} == said
    if said == {True}:
        assert report.winner is None
        assert "is better than every other" not in html
    return said.pop()


SAME: dict[str, Callable[[Table], Table]] = {
    "all": lambda lines: lines,
    "the beginning": lambda lines: lines[:300],
    "grown": lambda lines: [*lines, *table(800, 77, first=800)],
}
MOVED: dict[str, Callable[[Table], Table]] = {
    "the end": lambda lines: lines[500:],
    "the middle": lambda lines: lines[200:500],
    "a tenth": lambda lines: random.Random(1).sample(lines, 80),
    "shuffled": lambda lines: random.Random(2).sample(lines, len(lines)),
    "a part of others": lambda lines: [*table(400, 78, first=5000), *lines[300:450]],
}


FOUND = [
    (form, hours, change)
    for form in ("named", "placed", "vw")
    for hours in (True, False)
    for change in (*SAME, *MOVED)
    # else nothing tells these rows from others
    if hours or change in SAME or (form == "named" and change != "a part of others")
]


@pytest.mark.parametrize(("form", "hours", "change"), FOUND)
def test_rows_that_were_learned_from_are_found_again(tmp_path, form, hours, change):
    """By another file, cut in another way.

    Where rows have no ids and hardly say anything, only where they stand.
    """
    lines = table(800, 0, hours=hours)
    model = train_on_log(SPEC, opened(written(tmp_path / "first.log", lines, form), form))
    again = written(tmp_path / "again.log", {**SAME, **MOVED}[change](lines), form)
    report = evaluated(model, opened(again, form, shards=3))
    assert told(report)
    if change == "all":
        assert (
            "100% of these 800 rows (it was trained on first.log)"
            in report.results[0].estimates["ips"].reason
        )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["named", "placed", "vw"])
@pytest.mark.parametrize("hours", [True, False])
@pytest.mark.parametrize("size", [60, 800])
def test_other_rows_are_not_taken_for_them(tmp_path, form, hours, size):
    """Also where they have the same ids, stand in the same places and say the same by chance."""
    model = train_on_log(
        SPEC, opened(written(tmp_path / "log", table(size, 0, hours=hours), form), form)
    )
    for seed in (1, 2, 3):
        others = written(tmp_path / "log", table(800, seed, hours=hours), form)
        assert not told(evaluated(model, opened(others, form, shards=2)))


def test_the_later_part_of_a_log_is_other_rows(tmp_path):
    lines = table(800, 0)
    for form in ("named", "placed"):
        pieces = opened(written(tmp_path / "log", lines, form), form)
        model = train_on_log(SPEC, row_range(pieces, [800], 0, 500))
        assert not told(evaluated(model, row_range(pieces, [800], 500, 800)))
        assert told(evaluated(model, row_range(pieces, [800], 450, 800)))


def test_a_compressed_copy_is_the_same_log(tmp_path):
    lines = table(300, 0)
    model = train_on_log(SPEC, opened(written(tmp_path / "a.vw", lines, "vw"), "vw"))
    assert told(evaluated(model, opened(written(tmp_path / "b.vw.gz", lines, "vw"), "vw")))


def decisions(count: int, first: int = 0, seed: int = 0) -> list[LoggedDecision]:
    rng = np.random.default_rng(seed)
    return [
        LoggedDecision(
            f"e{at}",
            {"s": str(at // 3)},
            ["a", "b"],
            int(rng.integers(2)),
            0.5,
            float(rng.integers(2)),
            pmf=np.full(2, 0.5),
            time_ms=1000 * at + 1,
        )
        for at in range(first, first + count)
    ]


def test_sessions_are_told_as_well():
    model = train_on_log(SPEC, [MemoryPiece(decisions(300))])
    question = SessionQuestion(
        [frozen_policy(model, "home"), UniformTarget()], horizon=3, session="s"
    )
    assert told(evaluate_sessions(question, [MemoryPiece(decisions(300))]))
    assert not told(evaluate_sessions(question, [MemoryPiece(decisions(300, first=3000, seed=1))]))


def test_a_model_of_an_earlier_build_is_met_with_caution(tmp_path):
    """It loads, to the byte; its estimates are weak at best, and it does not win."""
    model = train_on_log(SPEC, [MemoryPiece(decisions(300))])
    earlier = {
        "format": model.format,
        "spec_bytes": model.spec_bytes,
        "learned": 300,
        "checkpoint": model.checkpoint,
    }
    data = msgspec.msgpack.encode(earlier)
    old = decode_trained(data)
    assert old.encoded == data
    assert snapshot_of(old, salt=SALT).payload == snapshot_of(model, salt=SALT).payload
    lines = table(2000, 5)
    learned = train_on_log(
        SPEC, opened(written(tmp_path / "first", table(800, 0), "named"), "named")
    )
    pieces = opened(written(tmp_path / "second", lines, "named"), "named")
    assert evaluated(learned, pieces).winner == "home"
    report = evaluated(msgspec.structs.replace(learned, rows=msgspec.UNSET), pieces)
    assert report.winner is None
    for each in report.results[0].estimates.values():
        assert each.verdict == "weak"
        assert "nothing says which rows it learned from" in each.reason
    assert all(each.verdict == "reliable" for each in report.results[1].estimates.values())


def test_a_model_that_build_1c51045_wrote_is_read_to_the_byte():
    path = Path(__file__).parents[3] / "fixtures" / "trained-1c51045.model"
    model = decode_trained(path.read_bytes())
    assert model.encoded == path.read_bytes()
    assert (model.learned, model.rows) == (40, msgspec.UNSET)
    report = evaluate(
        OpeQuestion([read_trained(path, "home"), UniformTarget()], ["ips"]),
        [MemoryPiece(decisions(300))],
    )
    assert "nothing says which rows it learned from" in report.results[0].estimates["ips"].reason


def test_a_policy_of_a_simulated_world_has_learned_from_no_log(tmp_path):
    model = msgspec.structs.replace(train_on_log(SPEC, [MemoryPiece(decisions(50))]), rows=None)
    assert decode_trained(model.encoded) == model
    assert not told(evaluated(model, [MemoryPiece(decisions(300))]))


@pytest.mark.parametrize(
    ("through", "policy", "found"),
    [(60_000, "home", True), (60_000, "other", False), (0, "home", False)],
)
def test_a_snapshot_of_a_service_has_learned_from_its_archive_up_to_its_position(
    through, policy, found
):
    class Archive(ArchivePiece):
        def batches(self):
            yield batch_of(decisions(200))

    snapshot = snapshot_of(train_on_log(SPEC, [MemoryPiece(decisions(50))]), salt=SALT)
    target = FrozenPolicy("home", SPEC, snapshot, (), ServiceLog("home", f"{through}-0"))
    for folder in (policy, f"{policy}/partition=1"):
        report = evaluate(
            OpeQuestion([target, UniformTarget()], ["ips"]), [Archive("root", folder)]
        )
        assert told(report) == found
        if found:
            assert "60 of these 200 rows" in report.results[0].estimates["ips"].reason
    assert not told(
        evaluate(OpeQuestion([target, UniformTarget()], ["ips"]), [MemoryPiece(decisions(200))])
    )


def test_the_sample_of_a_long_log_is_the_same_in_any_pieces_and_finds_small_parts():
    rng = np.random.default_rng(0)
    placed, said = rng.integers(0, 2**64, (2, 100_000), np.uint64)
    said[::10] = said[0]
    whole, pieces = RowSampler(), RowSampler()
    whole.add("log", placed, said, np.zeros(100_000, np.int64))
    for start in range(0, 100_000, 7001):
        rows = slice(start, start + 7001)
        pieces.add("log", placed[rows], said[rows], np.array([5, 0, start + 1]))
    one, other = whole.rows(), pieces.rows()
    assert (one.placed, one.said) == (other.placed, other.said)
    assert one.rows == other.rows == 100_000
    assert one.shards[0].digest == other.shards[0].digest
    assert (other.shards[0].first_ms, other.shards[0].last_ms) == (1, 98_015)
    assert len(one.placed.hashes) == 8 * KEPT
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=LearnedRows) == one
    for rows, share in ((slice(500, 1000), 1.0), (slice(0, 100_000), 1.0), (slice(0, 0), 0.0)):
        seen = RowOverlap()
        seen.count(one, placed[rows], said[rows])
        assert seen.share(one) == share
    for part in (0.05, 0.3):
        mixed = np.where(
            rng.random(20_000) < part, placed[:20_000], rng.integers(0, 2**64, 20_000, np.uint64)
        )
        seen = RowOverlap()
        seen.count(one, mixed, rng.integers(0, 2**64, 20_000, np.uint64))
        assert seen.share(one) == pytest.approx(part, abs=5 * (part * (1 - part) / 3200) ** 0.5)
        nothing = RowOverlap()
        nothing.count(
            one,
            rng.integers(0, 2**64, 20_000, np.uint64),
            said[rng.integers(0, 100_000, 20_000)] ^ np.uint64(7),
        )
        assert nothing.share(one) == 0.0


def test_the_command_says_so_in_the_table_the_report_and_the_page(tmp_path):
    spec, model = tmp_path / "home.yaml", tmp_path / "home.model"
    spec.write_text(TEXT)
    log = written(tmp_path / "log.csv", table(800, 0), "named")
    options = [
        "--format",
        "csv",
        "--columns",
        msgspec.json.encode(columns(True)).decode(),
        "--log",
        str(log),
    ]
    done = CliRunner().invoke(train_app, ["policy", str(spec), *options, "--out", str(model)])
    assert done.exit_code == 0, done.output
    for policy in (str(model), f"{{kind: trained, path: {model}, name: home}}"):
        out, html = tmp_path / "report.json", tmp_path / "page.html"
        command = [
            "replay",
            *options,
            "--policy",
            policy,
            "--policy",
            "uniform",
            "--out",
            str(out),
            "--html",
            str(html),
        ]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        report = msgspec.json.decode(out.read_bytes())
        assert report["winner"] is None
        assert {each["verdict"] for each in report["results"][1]["estimates"].values()} == {
            "unreliable"
        }
        assert "best: home" not in done.output
        assert "it learned from 100% of these 800 rows" in html.read_text()
