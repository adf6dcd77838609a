"""``banditloop report`` as it is typed."""

import json

import pytest
from support.fakes import FakeLog
from support.logs import archived, decision
from typer.testing import CliRunner

from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord, TickRecord
from policies.items.catalogue import Catalogue
from policies.spec import Holdout, PolicySpec
from serve_app.cli.main import app

SPEC = PolicySpec("p", join=JoinRule(window_s=2.0), holdout=Holdout(0.3))


@pytest.fixture
def archive(tmp_path):
    log = FakeLog(SPEC)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(600):
        record = decision(
            f"e{number}",
            spec=SPEC.digest,
            catalogue=Catalogue().digest,
            context={"device": ("phone", "tv")[number % 2]},
            user=f"u{number % 200}",
            holdout=number % 200 < 60,
        )
        log.append(record, at=10 + 50 * number)
        if number % 5 < (4, 1)[record.holdout]:
            log.append(RewardRecord(f"e{number}", 1.0), at=11 + 50 * number)
    log.append(TickRecord(), at=100_000)
    return archived(tmp_path / "archive", log.entries, SPEC, blobs=log.blobs)


def run(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_page_the_file_and_the_screen_say_the_same(archive, tmp_path):
    page, out = tmp_path / "report.html", tmp_path / "report.json"
    done = run("p", "--archive", archive, "--no-doctor", "--html", page, "--out", out)
    assert done.exit_code == 0, done.exception
    found = json.loads(out.read_bytes())
    assert found["policy"] == "p"
    assert found["verdict"]["code"] == "better"
    for said in (done.output, page.read_text()):
        assert found["verdict"]["message"] in said.replace("\n", " ")
        assert f"{found['uplift']['holdout']['mean']:.6g}" in said
    assert json.loads(run("--archive", archive, "--no-doctor", "--json").output) == found


def test_what_is_not_known_is_no_number_on_the_screen(archive):
    """Nothing is that new, so nobody has earned anything."""
    said = run("p", "--archive", archive, "--no-doctor", "--since", "2099-01-01").output
    assert "no_decisions" in said
    assert "nan" not in said


def test_groups_of_items_are_said_where_a_feature_is_named(archive):
    """The catalogue is empty here: all that was chosen is of no group, and the screen says so."""
    done = run("p", "--archive", archive, "--no-doctor", "--group", "provider")
    assert "items by provider" in done.output
    assert "(none)" in done.output
    found = json.loads(
        run("p", "--archive", archive, "--no-doctor", "--group", "provider", "--json").output
    )
    (group,) = found["exposure"]["groups"]
    assert (group["group"], group["share"], found["exposure"]["floor"]) == ("", 1.0, None)
    assert "exposure" not in run("p", "--archive", archive, "--no-doctor").output


def test_the_doctor_looks_at_it_too(archive, tmp_path):
    """It has no salt, and decisions that no snapshot made: what it finds is in the report."""
    done = run("p", "--archive", archive, "--data-dir", tmp_path / "none", "--json")
    found = json.loads(done.output)
    assert {each["severity"] for each in found["findings"]} <= {"warning", "failure"}
    assert (found["verdict"]["code"] == "log_untrusted") == any(
        each["severity"] == "failure" for each in found["findings"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "nobody"),
        (["p", "--since", "tomorrow"], "no entry id, span"),
        (["p", "--since", "2100-01-01"], "no_decisions"),
        (["p", "--by", "weather"], "weather"),
        (["p", "--alpha", "7"], "alpha"),
    ],
)
def test_what_cannot_be_answered_is_said(archive, arguments, said):
    done = run(*arguments, "--archive", archive, "--no-doctor")
    assert said in done.output + str(done.exception)
