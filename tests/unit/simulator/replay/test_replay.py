"""Replay: the same rows and the same answers however a log is cut.

What cannot be answered is refused by name.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.logs import archived, decision
from support.towns import SPECS, K, log_of
from typer.testing import CliRunner

from bandits.errors import ArchiveError, BadRowError, ReplayError, SpecError
from bandits.log.codec import encode
from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.records import DecisionRecord, LogEntry
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range
from policies.items.catalogue import Catalogue
from serve_app.cli.main import app
from simulator.logs.archive.rows import decision_rows
from simulator.logs.archive.rules import evaluation_rule
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import open_log
from simulator.logs.rows import LoggedDecision, Piece
from simulator.logs.scored_rows import UNSCORED
from simulator.ope.table_target import TableTarget
from simulator.ope.targets import (
    ColumnTarget,
    LoggingTarget,
    SourceTarget,
    UniformTarget,
)
from simulator.parallel import in_processes
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.page import html_page
from simulator.replay.parse_policy import parse_policy
from simulator.replay.report import NO_LOWER_END, EvaluationReport, SearchSummary, Trial

ALL = ("ips", "clipped_ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros")


# A log of decisions in a CSV: three actions, a context that matters, a logging policy that is not
# uniform


def table_of(path: Path, rows: dict[str, Sequence[float]], *, context: str = "") -> Path:
    lines = [f"{context + ',' if context else ''}action,probability"]
    for at, row in rows.items():
        lines += [
            f"{at + ',' if context else ''}{action},{p}"
            for action, p in zip("abc", row, strict=True)
        ]
    path.write_text("\n".join(lines))
    return path


def csv_log(path: Path, count: int = 2000, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    logging = {"web": (0.5, 0.3, 0.2), "app": (0.2, 0.2, 0.6)}
    chances = {"web": (0.2, 0.5, 0.1), "app": (0.7, 0.1, 0.4)}
    lines = ["id,device,shown,of,p,click,q"]
    for number in range(count):
        device = ("web", "app")[int(rng.integers(2))]
        chosen = int(rng.choice(3, p=logging[device]))
        click = int(rng.random() < chances[device][chosen])
        lines.append(
            f"e{number},{device},{'abc'[chosen]},a|b|c,{logging[device][chosen]},{click},"
            f"{rng.random():.6f}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


COLUMNS = CsvColumns(
    reward="click", propensity="p", event_id="id", action="shown", actions="of", context=["device"]
)
BETTER = {"web": (0.1, 0.8, 0.1), "app": (0.8, 0.1, 0.1)}
TRUTH = (0.1 * 0.2 + 0.8 * 0.5 + 0.1 * 0.1 + 0.8 * 0.7 + 0.1 * 0.1 + 0.1 * 0.4) / 2


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return csv_log(tmp_path_factory.mktemp("csv") / "log.csv")


@pytest.fixture
def better(tmp_path) -> TableTarget:
    return TableTarget(table_of(tmp_path / "better.csv", BETTER, context="device"))


def cut(log: Path, shards: int, monkeypatch, **options) -> list[Piece]:
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    pieces = open_log(str(log), "csv", shards=shards, **options)
    assert len(pieces) == shards
    return pieces


def numbers(report: EvaluationReport) -> dict[tuple[str, str], tuple[float, ...]]:
    found = {
        (result.policy, name): (
            each.value,
            each.stderr,
            *each.interval,
            each.n,
            each.ess,
            each.max_weight,
        )
        for result in report.results
        for name, each in result.estimates.items()
    }
    for each in report.comparisons:
        found[each.left, each.right] = (
            each.result.difference,
            each.result.stderr,
            each.result.p_value,
        )
    charts = report.charts
    assert charts is not None
    for name, counts in charts.weights.items():
        found["weights", name] = tuple(counts)
    for action in charts.actions:
        found["action", action.action] = (action.share, *action.shares.values())
    return found


def test_every_estimator_finds_the_truth_and_says_who_is_better(log, better):
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget(), better]),
        open_log(str(log), "csv", columns=COLUMNS),
    )
    found = report.results[2]
    assert found.policy == "better"
    assert tuple(found.estimates) == ALL
    for name, each in found.estimates.items():
        assert abs(each.value - TRUTH) < 4 * max(each.stderr, 0.01), name
    assert found.estimates["dr"].verdict == "reliable"
    # the model explains some of the rewards
    assert found.estimates["dr"].stderr < found.estimates["ips"].stderr
    assert report.winner == "better"
    assert [(each.left, each.right, each.estimator) for each in report.comparisons][-1] == (
        "uniform",
        "better",
        "dr",
    )


@pytest.mark.parametrize("interval", ["normal", "bootstrap", "bernstein", "anytime"])
def test_any_number_of_shards_gives_the_same_answer(log, better, monkeypatch, interval):
    question = OpeQuestion([LoggingTarget(), better], interval=interval)
    reports = [
        evaluate(question, cut(log, shards, monkeypatch, columns=COLUMNS)) for shards in (1, 2, 7)
    ]
    first = numbers(reports[0])
    for other in map(numbers, reports[1:]):
        assert first.keys() == other.keys()
        for at, values in first.items():
            np.testing.assert_allclose(other[at], values, rtol=1e-9, atol=1e-12, err_msg=str(at))


def test_other_processes_give_the_same_answer(log, better, monkeypatch):
    question = OpeQuestion([UniformTarget(), better])
    pieces = cut(log, 3, monkeypatch, columns=COLUMNS)
    here, there = evaluate(question, pieces), evaluate(question, pieces, in_processes(2))
    assert msgspec.json.encode(here) == msgspec.json.encode(there)


def test_a_table_of_numbers_needs_no_actions(log, monkeypatch):
    """By hand: IPS and SNIPS from the columns."""
    columns = CsvColumns(reward="click", propensity="p")
    cells = [line.split(",") for line in log.read_text().split()[1:]]
    p, r, q = (np.array([float(row[at]) for row in cells]) for at in (4, 5, 6))
    for shards in (1, 4):
        pieces = cut(log, shards, monkeypatch, columns=columns, extra=["q"])
        keys = np.concatenate([batch.keys for piece in pieces for batch in piece.batches()])
        assert len(set(keys.tolist())) == len(cells)
        found = evaluate(OpeQuestion([ColumnTarget("q", "new")]), pieces).results[0].estimates
        assert tuple(found) == ("ips", "clipped_ips", "snips")
        assert found["ips"].value == pytest.approx(np.mean(q / p * r), rel=1e-12)
        assert found["snips"].value == pytest.approx(np.sum(q / p * r) / np.sum(q / p), rel=1e-12)
        if shards == 1:
            first = keys
        np.testing.assert_array_equal(keys, first)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("e0,web,a,a|b|c,0,1,0", "p is no propensity"),
        ("e0,web,a,a|b|c,1.5,1,0", "p is no propensity"),
        ("e0,web,a,a|b|c,-0.5,1,0", "p is no propensity"),
        ("e0,web,a,a|b|c,nan,1,0", "p is no number"),
        ("e0,web,a,a|b|c,0.5,nan,0", "click is no number"),
        ("e0,web,a,a|b|c,0.5,1e300,0", "click is no reward"),
        ("e0,web,a,a|b|c,0.5,,0", "click is no number"),
        ("e0,web,z,a|b|c,0.5,1,0", "'z' is not one of"),
        ("e0,web,a,a|b|a,0.5,1,0", "'a' is not one of the row's distinct"),
        ("e0,web,a,a|b|c,0.5,1", "7 columns, not 6"),
        ("", "click is no number"),
    ],
)
def test_a_bad_row_is_named_by_its_line_or_counted(tmp_path, line, named):
    lines = csv_log(tmp_path / "log.csv", 20).read_text().splitlines()
    lines.insert(12, line)
    (tmp_path / "log.csv").write_text("\n".join(lines))
    open_it = partial(open_log, str(tmp_path / "log.csv"), "csv", columns=COLUMNS)
    with pytest.raises(BadRowError, match=rf"log\.csv, line 13: .*{named}"):
        evaluate(OpeQuestion([UniformTarget()]), open_it())
    report = evaluate(OpeQuestion([UniformTarget()], estimators=["ips"]), open_it(skip_bad=True))
    assert (report.log.rows, report.log.skipped) == (20, 1)


def test_bad_rows_are_named_in_any_piece(tmp_path, monkeypatch):
    lines = csv_log(tmp_path / "log.csv", 500).read_text().splitlines()
    lines[400] = lines[400].replace(",a|b|c,", ",a|b|c,9", 1)
    (tmp_path / "log.csv").write_text("\n".join(lines))
    pieces = cut(tmp_path / "log.csv", 5, monkeypatch, columns=COLUMNS)
    with pytest.raises(BadRowError, match="line 401: p is no propensity"):
        evaluate(OpeQuestion([UniformTarget()]), pieces)


# Tables


def test_probabilities_that_sum_to_one_nearly_are_normalised_and_it_is_said(tmp_path):
    table = TableTarget(table_of(tmp_path / "t.csv", {"": (0.3334, 0.3333, 0.3330)}))
    assert table.pmf(LoggedDecision("e", {}, "cab", 0, 1.0, 0.0)).sum() == pytest.approx(
        1.0, abs=1e-15
    )
    assert "normalised" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("action,p\na,1", "header"),
        ("", "header"),
        ("action,probability\na,0.5", "sum to 0.5"),
        ("action,probability\na,0.5\na,0.5", ":3: action 'a' twice"),
        ("action,probability\na,1,2", ":2: 2 cells"),
        ("action,probability\na,x", ":2: a probability"),
        ("action,probability\na,-1\nb,2", ":2: a probability"),
    ],
)
def test_a_table_that_is_none_is_refused_by_line(tmp_path, text, named):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ReplayError, match=named):
        TableTarget(tmp_path / "t.csv")


def test_a_context_that_a_table_lacks_is_named(log, tmp_path):
    table = TableTarget(table_of(tmp_path / "t.csv", {"web": (1, 0, 0)}, context="device"))
    with pytest.raises(ReplayError, match="no row for device=app"):
        evaluate(OpeQuestion([table]), open_log(str(log), "csv", columns=COLUMNS))


def test_a_number_is_found_in_a_table_as_a_csv_would_hold_it(tmp_path):
    table = TableTarget(table_of(tmp_path / "t.csv", {"2": (1, 0, 0)}, context="position"))
    np.testing.assert_array_equal(
        table.pmf(LoggedDecision("e", {"position": 2.0}, "ab", 0, 1.0, 0.0)), [1.0, 0.0]
    )


def test_mass_on_actions_the_log_never_had_is_flagged(log, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("action,probability\na,0.3\nz,0.7")
    report = evaluate(
        OpeQuestion([UniformTarget(), TableTarget(path)]),
        open_log(str(log), "csv", columns=COLUMNS),
    )
    found = report.results[1]
    assert {each.verdict for each in found.estimates.values()} == {"unreliable"}
    assert "70.0%" in found.estimates["dr"].reason
    assert report.comparisons[0].result.significant
    assert not report.comparisons[0].result.conclusive  # nor is it set off on the page, or a winner
    assert "<b>" not in html_page(report)
    assert report.winner is None


# The project's own archive


SPEC = msgspec.structs.replace(SPECS["softmax"], join=JoinRule(window_s=2))


@pytest.fixture(scope="module")
def town() -> list[LogEntry]:
    return log_of("", 1500, seed=3, spec=SPEC)


@pytest.fixture(scope="module")
def archive(town, tmp_path_factory) -> Path:
    return archived(tmp_path_factory.mktemp("archive"), town, SPEC, 9)


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_an_archive_is_joined_as_the_learner_joined_it_however_it_is_cut(archive, town, shards):
    rule = evaluation_rule(SPEC.join)
    join = Join(lambda _: rule, rule=rule)
    expected = [
        row for entry in town for joined in join.apply(entry) for row in decision_rows(joined)
    ]
    pieces = open_log(str(archive), "archive", shards=shards)
    assert len(pieces) == shards
    found = [row for piece in pieces for batch in piece.batches() for row in batch.decisions]
    assert [(r.event_id, r.slot, r.reward, r.chosen, r.time_ms) for r in found] == [
        (r.event_id, r.slot, r.reward, r.chosen, r.time_ms) for r in expected
    ]
    assert len(found) > 1000
    assert sum(r.reward for r in found) > 100


def test_policies_are_evaluated_on_an_archive(archive):
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget(), SourceTarget("deep", "deep")]),
        open_log(str(archive), "archive"),
    )
    by_name = {result.policy: result.estimates for result in report.results}
    assert tuple(by_name["logging"]) == ALL
    assert by_name["logging"]["ips"].value == pytest.approx(report.log.mean_reward)
    assert abs(by_name["uniform"]["dr"].value - 1.6 / K) < 4 * by_name["uniform"]["dr"].stderr
    assert report.winner == "logging"  # it has learned; the others never do
    assert report.log.last_ms > report.log.first_ms > 0


@pytest.mark.parametrize("missing", ["failed", "proposed nothing"])
@pytest.mark.parametrize("every", [1, 7, 2])
def test_a_source_is_judged_by_the_rows_in_which_it_answered_and_so_is_everybody_else(
    town, tmp_path, missing, every
):
    """Wherever it failed, the answer is that of a log in which those decisions were never made."""
    log, without, lacking = [], [], 0
    # what comes after closes the windows of what came before, in both
    last = town[-1].time_ms - 5_000
    for entry in town:
        record = entry.record
        spared = every > 1 and (entry.time_ms > last or entry.time_ms // 10 % every)
        if not isinstance(record, DecisionRecord) or spared:
            log.append(entry)
            without.append(entry)
            continue
        lacking += 1
        scores = {**record.scores, "deep": np.full(len(record.action_ids), np.nan, "<f4").tobytes()}
        if missing == "failed":
            del scores["deep"]
        failed = {"deep": "source 'deep': status 500"} if missing == "failed" else None
        log.append(
            LogEntry(entry.id, msgspec.structs.replace(record, scores=scores, failed=failed))
        )
    assert lacking
    roots = archived(tmp_path / "whole", log, SPEC), archived(tmp_path / "without", without, SPEC)
    question = OpeQuestion(
        [LoggingTarget(), UniformTarget(), SourceTarget("deep", "deep")],
        estimators=["ips", "snips"],
    )
    pieces = [open_log(str(root), "archive") for root in roots]
    if every == 1:
        with pytest.raises(ReplayError, match=r"and none of 'deep'"):
            evaluate(question, pieces[0])
        return
    found, expected = (evaluate(question, each) for each in pieces)
    for mine, other in zip(found.results, expected.results, strict=True):
        assert mine.estimates == other.estimates
    assert found.log.rows == expected.log.rows
    assert found.log.left_out == {UNSCORED: lacking}
    assert not expected.log.left_out


def test_rows_of_a_slate_are_among_what_is_left():
    record = decision(
        "e", chosen=(2, 0), scores={"cf": np.array([1, 2, np.nan], np.float32).tobytes()}
    )
    first, second = decision_rows(JoinedDecision("5-0", record, (0, 1), (1.0, 0.0)))
    assert (list(first.action_ids), first.chosen, first.propensity, first.reward) == (
        ["a", "b", "c"],
        2,
        1 / 3,
        1.0,
    )
    assert (list(second.action_ids), second.chosen, second.propensity) == (["a", "b"], 0, 1 / 2)
    np.testing.assert_array_equal(second.scores["cf"], [1.0, 2.0])


def test_an_archive_with_entries_of_another_version_is_refused_or_they_are_counted(tmp_path, town):
    writer, blobs = (
        ArchiveWriter(tmp_path, "p"),
        {SPEC.digest: SPEC.encoded, Catalogue().digest: Catalogue().encoded},
    )
    entries = [(entry.id, encode(entry.record)) for entry in town[:800]]
    for at in (40, 200):
        entries[at] = (entries[at][0], b"\x02" + entries[at][1][1:])
    writer.write(Range("0-0", entries[0][0], entries[-1][0], len(entries)), entries, blobs.get)
    with pytest.raises(BadRowError, match=f"{entries[40][0]}.*version"):
        evaluate(OpeQuestion([UniformTarget()]), open_log(str(tmp_path), "archive"))
    report = evaluate(
        OpeQuestion([UniformTarget()]), open_log(str(tmp_path), "archive", skip_bad=True)
    )
    assert report.log.skipped == 2
    assert report.log.rows > 50


def test_a_damaged_archive_is_refused_by_file(archive, tmp_path, town):
    root = archived(tmp_path / "copy", town[:400], SPEC, 3)
    victim = sorted(root.rglob("*.parquet"))[1]
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match=victim.name):
        evaluate(OpeQuestion([UniformTarget()]), open_log(str(root), "archive"))


# What is asked


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("uniform", UniformTarget),
        ("{kind: logging}", LoggingTarget),
        ("{kind: source, source: cf}", SourceTarget),
        ("{kind: column, column: q, name: new}", ColumnTarget),
    ],
)
def test_a_policy_by_word_or_yaml(text, kind):
    assert isinstance(parse_policy(text), kind)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nothing", "no policy"),
        ("{kind: nothing}", "nothing"),
        ("{kind: table}", "path"),
        ("{kind: uniform, colour: red}", "colour"),
        ("{kind: [", "not YAML"),
    ],
)
def test_what_is_no_policy_is_refused(text, named):
    with pytest.raises(ReplayError, match=named):
        parse_policy(text)


def test_a_spec_that_is_none_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("name: s\ncolour: red\n")
    with pytest.raises(SpecError, match="colour"):
        parse_policy(str(tmp_path / "s.yaml"))


def test_questions_that_cannot_be_answered_are_refused(log):
    numbers_only = open_log(str(log), "csv", columns=CsvColumns(reward="click", propensity="p"))
    decisions = open_log(str(log), "csv", columns=COLUMNS)
    for ask, named in [
        (lambda: OpeQuestion([UniformTarget(), UniformTarget()]), "each once"),
        (lambda: OpeQuestion([UniformTarget()], estimators=["tea leaves"]), "tea leaves"),
        (lambda: OpeQuestion([UniformTarget()], interval="wide"), "wide"),
        (lambda: OpeQuestion([UniformTarget()], alpha=2.0), "alpha"),
        (lambda: evaluate(OpeQuestion([UniformTarget()]), numbers_only), "needs the actions"),
        (
            lambda: evaluate(OpeQuestion([ColumnTarget("nothing")]), numbers_only),
            "no column 'nothing'",
        ),
        (
            lambda: evaluate(OpeQuestion([ColumnTarget("q")], estimators=["dr"]), decisions),
            "leave them out",
        ),
        (lambda: evaluate(OpeQuestion([SourceTarget("cf", "cf")]), decisions), "none of 'cf'"),
        (lambda: open_log(str(log), "parchment"), "parchment"),
        (lambda: open_log(str(log.with_name("none.csv")), "csv"), "none.csv"),
        (
            lambda: open_log(str(log), "csv", columns=CsvColumns(reward="euros")),
            "no column 'euros'",
        ),
        (lambda: open_log(str(log.parent), "archive"), "no archive"),
    ]:
        with pytest.raises(ReplayError, match=named):
            ask()


def test_an_empty_log_is_no_answer(tmp_path):
    (tmp_path / "log.csv").write_text("reward,propensity\n")
    with pytest.raises(ReplayError, match="no rows"):
        evaluate(
            OpeQuestion([ColumnTarget("propensity")]),
            open_log(str(tmp_path / "log.csv"), "csv", extra=["propensity"]),
        )


# The page


class Tags(HTMLParser):
    """Which elements there are, what they link to, and all the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.names[tag] += 1
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data) -> None:
        self.text += data


def test_the_page_shows_everything_and_needs_nothing_else(archive):
    targets = [LoggingTarget(), UniformTarget("<script>"), SourceTarget("deep", "deep")]
    report = evaluate(OpeQuestion(targets), open_log(str(archive), "archive"))
    tags = Tags(html_page(report))
    assert tags.names["svg"] == 3  # estimates, weights, actions; all of it in one hour, so no curve
    assert not tags.links
    assert not tags.names["script"]
    for said in ("<script>", "deep", "reliable", "better than every other", "item0", "ips", "dros"):
        assert said in tags.text
    assert len(report.charts.times) == 1
    assert report.charts.times[0].rows == report.log.rows
    assert report.charts.times[0].reward == pytest.approx(report.log.mean_reward)
    assert {each.action for each in report.charts.actions} == {f"item{k}" for k in range(K)}
    assert sum(each.share for each in report.charts.actions) == pytest.approx(1.0)
    assert sum(report.charts.weights["deep"]) == report.log.rows


def test_the_page_draws_every_trial_of_a_search(archive):
    """One without a value is in the table only; one that cannot be relied on has no lower end."""
    trials = [
        Trial("home-0", 0, 100, 0.5, 0.4, "reliable", True),
        Trial("home-1", 0, 100, 0.45, NO_LOWER_END, "unreliable", True),
        Trial("<b>", 0, 100, float("nan"), NO_LOWER_END, "unreliable", False),
        Trial("home-0", 1, 300, 0.6, 0.5, "weak", True),
    ]
    report = evaluate(
        OpeQuestion([LoggingTarget()], estimators=["ips"]), open_log(str(archive), "archive")
    )
    found = msgspec.structs.replace(report, search=SearchSummary({"name": "home-0"}, trials))
    evaluation_rule, tags = Tags(html_page(report)), Tags(html_page(found))
    assert tags.names["svg"] == evaluation_rule.names["svg"] + 1
    assert tags.names["title"] - evaluation_rule.names["title"] == 3
    assert tags.names["line"] > evaluation_rule.names["line"]
    for said in (
        "rung 1",
        "300 rows",
        "home-0: 0.6, at least 0.5, weak",
        "home-1: 0.45, at least -",
        "<b>",
        "goes on",
    ):
        assert said in tags.text
    assert "nan" not in html_page(found).split("<details>")[0]


def test_a_report_without_anything_to_draw_is_a_page(log):
    pieces = open_log(
        str(log), "csv", columns=CsvColumns(reward="click", propensity="p"), extra=["q"]
    )
    assert (
        Tags(
            html_page(evaluate(OpeQuestion([ColumnTarget("q")], estimators=["ips"]), pieces))
        ).names["svg"]
        == 2
    )


# The command


def test_the_command_prints_a_table_and_writes_the_report(log, tmp_path):
    table = table_of(tmp_path / "better.csv", BETTER, context="device")
    columns = (
        "{reward: click, propensity: p, event_id: id, action: shown, actions: of,"
        " context: [device]}"
    )
    command = [
        "replay",
        "--log",
        str(log),
        "--format",
        "csv",
        "--columns",
        columns,
        "--out",
        str(tmp_path / "r.json"),
    ]
    command += [
        "--policy",
        f"{{kind: table, path: {table}}}",
        "--interval",
        "bernstein",
        "--html",
        str(tmp_path / "r.html"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "better · ope" in done.output
    assert "better" in Tags((tmp_path / "r.html").read_text()).text
    report = json.loads((tmp_path / "r.json").read_text())
    assert [each["policy"] for each in report["results"]] == ["logging", "better"]
    estimate = report["results"][1]["estimates"]["dr"]
    expected = {
        "value",
        "stderr",
        "interval",
        "n",
        "ess",
        "max_weight",
        "clipped_fraction",
        "verdict",
        "reason",
    }
    assert set(estimate) == expected
    assert report["results"][1]["method"] == "ope"
    assert report["comparisons"][0]["result"]["significant"] is True


def test_the_command_sets_what_estimators_have(log, tmp_path):
    columns = (
        "{reward: click, propensity: p, event_id: id, action: shown, actions: of,"
        " context: [device]}"
    )
    command = [
        "replay",
        "--log",
        str(log),
        "--format",
        "csv",
        "--columns",
        columns,
        "--policy",
        "uniform",
    ]
    command += ["--out", str(tmp_path / "r.json")]
    done = CliRunner().invoke(
        app, [*command, "--clip", "1.2", "--tau", "auto", "--bits", "5", "--folds", "3"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "r.json").read_text())["results"][1]["estimates"]
    assert found["clipped_ips"]["max_weight"] == 1.2
    assert "SLOPE chose tau" in found["switch_dr"]["reason"]
    question = OpeQuestion(
        [LoggingTarget(), UniformTarget()],
        parameters={"switch_dr": {"tau": "auto"}},
        bits=5,
        folds=3,
    )
    expected = evaluate(question, open_log(str(log), "csv", columns=COLUMNS)).results[1].estimates
    assert found["switch_dr"]["value"] == pytest.approx(expected["switch_dr"].value, rel=1e-9)
    assert found["dr"]["value"] == pytest.approx(expected["dr"].value, rel=1e-9)
    for wrong, said in (
        (["--clip", "much"], "--clip is a number"),
        (["--clip", "2", "--estimator", "dr"], "not asked"),
    ):
        refused = CliRunner().invoke(app, [*command, *wrong])
        assert isinstance(refused.exception, ReplayError)
        assert said in refused.exception.message
    with pytest.raises(ReplayError, match="bits"):
        OpeQuestion([UniformTarget()], bits=3)


def test_the_command_lets_a_spec_learn(log, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\nlearner: {kind: ridge, interactions: [[context, item]]}\n"
    )
    columns = (
        "{reward: click, propensity: p, event_id: id, action: shown, actions: of,"
        " context: [device]}"
    )
    for method, number in (("progressive", "ips"), ("rejection", "mean_accepted_reward")):
        command = [
            "replay",
            "--log",
            str(log),
            "--format",
            "csv",
            "--columns",
            columns,
            "--method",
            method,
        ]
        command += [
            "--policy",
            str(tmp_path / "s.yaml"),
            "--out",
            str(tmp_path / "r.json"),
            "--bound",
            "5",
        ]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
        # uniform choice earns 0.333, the log's policy less than 0.4
        assert result["learned"][number] > 0.42
        assert len(result["curve"]) > 10
        assert ("average_loss" in result) == (method == "progressive")
