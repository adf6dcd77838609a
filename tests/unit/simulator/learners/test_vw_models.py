"""Models that VW has saved, as they are.

And what of VW's command line a replay takes, leaves out, and refuses.
"""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from typer.testing import CliRunner
from vowpal_wabbit_next import Workspace, run_cli_driver

from bandits.errors import BanditloopError, ReplayError, SnapshotError, SpecError
from bandits.vw.command_line import OTHER_PROBLEMS, read_command
from bandits.vw.learner import VwLearner
from bandits.vw.log_reader import VwLogReader
from serve_app.cli.main import app
from simulator.learners.progressive import vw_progressive
from simulator.learners.vw_target import VwTarget, with_lines
from simulator.logs.vw_text import text_pieces
from simulator.replay.parse_policy import parse_policy

FIXTURES = Path(__file__).parents[3] / "fixtures"
ARTICLES = ["politics", "sports", "music", "food", "finance", "health", "camping"]
SQUARE = "--cb_explore_adf -q UA --squarecb"
VWS_OWN = -0.546443


@pytest.fixture
def news(tmp_path):
    """VW's log, and the model that its test 314 saves."""
    rows = (FIXTURES / "vw_cb_load.txt").read_text().splitlines()
    blocks = []
    for user, time, place, like, probability in (
        re.fullmatch(r"(.)(.)(\d)(-?)(.*)", each).groups() for each in " ".join(rows[2:]).split()
    ):
        name, when = {"T": "Tom", "A": "Anna"}[user], {"m": "morning", "a": "afternoon"}[time]
        lines = [f"|Action article={article} " for article in ARTICLES]
        seventh = "0.14285714498588012" if int(place) else "0.14285713008471937"
        label = f"0:{'-1.0' if like else '0.0'}:{f'0{probability}' if probability else seventh}"
        lines[int(place)] = f"{label} {lines[int(place)]}"
        blocks.append("\n".join([f"shared |User user={name} time_of_day={when}", *lines]))
    log, model = tmp_path / "cb_load.txt", tmp_path / "sqcb_ld.model"
    log.write_text("\n\n".join(blocks) + "\n")
    driver(f"{SQUARE} -d {log} -f {model}")
    return log, model


def driver(words):
    """The average loss that VW's command line prints."""
    return float(
        re.search(r"average loss = (\S+)", run_cli_driver(words.split(), onethread=True)[0])[1]
    )


def replayed(log, policy, *options, form="vw"):
    """The report, or the error; and what the command has said."""
    out = log.with_suffix(".report")
    words = [
        "replay",
        "--log",
        str(log),
        "--format",
        form,
        "--policy",
        policy,
        "--out",
        str(out),
        *options,
    ]
    done = CliRunner().invoke(app, words)
    return (done.exception if done.exit_code else json.loads(out.read_bytes())), done.output


def test_the_held_out_loss_of_vws_own_test_comes_out_by_either_method(news):
    log, model = news
    expected = driver(f"{SQUARE} -d {log} -i {model} -t")
    assert expected == pytest.approx(VWS_OWN, abs=3e-6)  # the last digit depends on the processor
    policies = [f"{{kind: vw, model: {model}}}", f"{{kind: vw, args: '{SQUARE} -i {model} -t'}}"]
    for policy in policies:
        report, said = replayed(log, policy)
        (_, result) = report["results"]
        assert result["estimates"]["ips"]["value"] == pytest.approx(-expected, abs=2e-6), said
        assert {"ips", "snips", "dm", "dr"} <= set(result["estimates"])
        assert any("does not say what it learned from" in note for note in result["notes"])
    report, _ = replayed(log, policies[1], "--method", "progressive")
    assert report["results"][0]["average_loss"] == pytest.approx(expected, abs=2e-6)
    learning, _ = replayed(log, policies[0], "--method", "progressive")
    assert learning["results"][0]["average_loss"] != pytest.approx(VWS_OWN, abs=1e-3)


@pytest.mark.parametrize("form", ["vw", "dsjson"])
@pytest.mark.parametrize(
    "args",
    [
        "--epsilon 0.2",
        "--softmax --lambda 3",
        "--bag 3",
        "--cover 2",
        "--first 5",
        "--cb_type dr -q us",
        "--rnd 2",
        "--stage_poly",
    ],
)
def test_a_saved_model_is_evaluated_as_vw_does_it_whatever_it_is_made_of(tmp_path, form, args):
    lines = []
    for number in range(60):
        chosen, cost = number % 3, -float(number % 2)
        if form == "vw":
            label = f"0:{cost}:0.5 "
            block = [f"{label if k == chosen else ''}|s x{k} p:{k / 4}" for k in range(3)]
            lines.append("\n".join([f"shared |u d{number % 4}", *block, ""]))
        else:
            multi = [{"s": {f"x{k}": 1, "p": k / 4}} for k in range(3)]
            label = {
                "_label_cost": cost,
                "_label_probability": 0.5,
                "_labelIndex": chosen,
                "a": [chosen + 1],
            }
            lines.append(json.dumps(label | {"c": {"u": {"d": f"d{number % 4}"}, "_multi": multi}}))
    log, model = tmp_path / "log.txt", tmp_path / "model"
    log.write_text("\n".join(lines) + "\n")
    how = "--dsjson" if form == "dsjson" else ""
    driver(f"--cb_explore_adf {args} {how} -d {log} -f {model}")
    expected = driver(f"-i {model} -t {how} -d {log}")
    report, said = replayed(log, f"{{kind: vw, model: {model}}}", "--jobs", "1", form=form)
    assert report["results"][1]["estimates"]["ips"]["value"] == pytest.approx(
        -expected, abs=1e-5
    ), said
    found = vw_progressive(log, f"-i {model} --testonly", "dsjson" if form == "dsjson" else "text")
    assert found.average_loss == pytest.approx(expected, abs=1e-5)


def test_it_goes_to_another_process_and_reads_the_same_there(news):
    log, model = news
    target = VwTarget("saved", read_command("", model), "text", model.read_bytes())
    (piece,) = with_lines(text_pieces(log))
    rows = [row for batch in piece.batches() for row in batch.decisions]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = [pmf.tolist() for pmf in pool.map(target.pmf, rows[:20])]
    assert there == [target.pmf(row).tolist() for row in rows[:20]]
    assert target.pmf(rows[0]).sum() == pytest.approx(1.0, abs=1e-12)


def test_what_cannot_be_evaluated_as_it_is_is_refused_with_what_to_do(news, tmp_path):
    log, model = news
    for policy, options, said in [
        (f"{{kind: vw, args: '{SQUARE}'}}", (), "--method progressive; .* -t"),
        (f"{{kind: vw, model: {model}, args: '-i {model}'}}", (), "once"),
        (f"{{kind: vw, model: {tmp_path}/missing}}", (), "cannot be read"),
        ("{kind: vw}", (), "--cb_explore_adf|-t"),
    ]:
        found, _ = replayed(log, policy, *options)
        assert isinstance(found, BanditloopError)
        assert re.search(said, found.message), found.message
    archive, _ = replayed(log, f"{{kind: vw, model: {model}}}", form="csv")
    assert "dsjson or vw" in archive.message or "column" in archive.message


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ("--cb_adf", "ActionScores"),
        ("--ccb_explore_adf", "CCB"),
        ("--slates", "Slates"),
        ("", "Simple"),
        ("--cb_explore 3", "not a PMF|cannot load"),
    ],
)
def test_a_model_of_another_problem_says_what_it_is(args, what):
    data = Workspace([*args.split(), "--quiet"]).serialize()
    with pytest.raises((SpecError, SnapshotError), match=what):
        VwLogReader("", "text", model=data)


@pytest.mark.parametrize(
    "words",
    [
        "-p preds.txt",
        "-f model.vw",
        "--final_regressor=model.vw",
        "--extra_metrics metrics.json",
        "-P 100",
        "-P100",
        "--progress 1.5",
        "-r raw.txt --audit --quiet",
        "--invert_hash names.txt --readable_model readable.txt",
        "-k --save_resume --no_stdin --driver_output_off",
        "-d other.txt --log_level off",
    ],
)
def test_output_and_diagnostics_are_left_out_with_a_word(news, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, _ = news
    before = set(tmp_path.iterdir())
    plain, _ = replayed(log, f"{{kind: vw, args: '{SQUARE}'}}", "--method", "progressive")
    found, said = replayed(
        log, f"{{kind: vw, args: '{SQUARE} {words}'}}", "--method", "progressive"
    )
    assert found["results"][0]["average_loss"] == plain["results"][0]["average_loss"]
    assert any(f"left out: {words}" in note for note in found["results"][0]["notes"]), said
    assert set(tmp_path.iterdir()) - before == {log.with_suffix(".report")}  # VW wrote nothing


def test_options_that_change_a_prediction_are_kept():
    command = read_command("--cb_explore_adf -q UA --epsilon 0.1 -i first.model -t -b 20 -P 1")
    assert command.args == "--cb_explore_adf -q UA --epsilon 0.1 -b 20"
    assert (str(command.model), command.learns) == ("first.model", False)
    assert list(command.left_out) == ["-P", "1"]
    for args in ("-p", "--cb_explore_adf -i", "-i a -i b"):
        with pytest.raises(SpecError):
            read_command(args)


@pytest.mark.parametrize("option", OTHER_PROBLEMS)
def test_another_problem_is_refused_by_what_it_is_in_one_sentence(option, tmp_path):
    """In a replay and in a spec."""
    path = tmp_path / "log"
    path.write_text("|a x\n0:1:0.5 |a y\n")
    args = f"--cb_explore_adf --{option}"
    for refuse in (lambda: vw_progressive(path, args, "text"), lambda: VwLearner(args)):
        with pytest.raises((SpecError, ReplayError)) as caught:
            refuse()
        said = caught.value.message
        assert f"--{option} {OTHER_PROBLEMS[option]}" in said
        assert "known to be safe" not in said
        assert "\n" not in said


def test_a_saved_model_may_be_named_in_a_file(news, tmp_path):
    log, model = news
    (tmp_path / "saved.yaml").write_text(f"kind: vw\nmodel: {model}\nname: saved\n")
    report, _ = replayed(log, str(tmp_path / "saved.yaml"))
    assert report["results"][1]["policy"] == "saved"
    assert parse_policy(str(tmp_path / "saved.yaml")).command.learns
