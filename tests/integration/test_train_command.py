"""banditloop train on a data set: what it writes, the same bytes wherever it fits, and bad input."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace
from pydantic import SecretStr
from typer.testing import CliRunner

from bandits.errors import ArtifactError, BanditloopError, DataSetError
from policies.artifacts import source_artifact
from policies.artifacts.profile_file import open_profiles
from policies.data.data_set import DataSet
from policies.data.manifest import WeightOptions
from policies.data.writer import write_data_set
from policies.pseudonyms import pseudonym
from policies.spec import load_spec
from serve_app.admin.preflight import demand_all
from serve_app.cli.train import app
from serve_app.cli.train.specs import USUAL
from serve_app.host.environment import free_port
from serve_app.settings import Settings
from simulator.tuning.report import TuningReport
from simulator.tuning.search import SearchBudget, search_sources

USERS, ITEMS = 60, 30


def events(users: int = USERS, items: int = ITEMS, **columns: pa.Array) -> pa.Table:
    """Even users like even items, odd ones odd ones; one event an hour."""
    rng = np.random.default_rng(0)
    rows = [
        (f"customer {user}", f"i{item}", 3_600_000 * (1 + step * users + user))
        for user in range(users)
        for step, item in enumerate(rng.permutation(np.arange(user % 2, items, 2))[:8])
    ]
    user, item, time_ms = zip(*rows, strict=True)
    return pa.table({"user": user, "item": item, "time": time_ms, **columns})


def run(*arguments: object) -> str:
    """What the command prints; what it raises, it raises here."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def said_by(path: Path) -> bytes:
    """A file's bytes; of a table, which is compressed, its cells."""
    return (
        str(pq.read_table(path).to_pylist()).encode()
        if path.suffix == ".parquet"
        else path.read_bytes()
    )


def everything_in(folder: Path) -> dict[str, bytes]:
    """The contents of all files, by path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): said_by(path) for path in paths}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data_set(tmp_path / "data", events())
    return tmp_path / "data"


def test_an_artifact_profiles_and_a_spec_that_names_them(data: Path, tmp_path: Path) -> None:
    """All of it can be moved, and none of it holds the id of a user; learners saw the contexts."""
    shutil.rmtree(data)
    sides = ["odd" if user % 2 else "even" for user in range(USERS)]
    users = pa.table({"id": [f"customer {user}" for user in range(USERS)], "side": sides})
    write_data_set(data, events(), users=users)
    spec_file = tmp_path / "shop" / "policy.yaml"
    spec_file.parent.mkdir()
    run("--data", data, "--out", tmp_path / "shop", "--sources", "als,popular",
        "--spec-out", spec_file)  # fmt: skip

    moved = (tmp_path / "shop").rename(tmp_path / "elsewhere")
    spec = load_spec(moved / "policy.yaml")
    artifact = source_artifact.load(Path(str(spec.artifact)))
    assert list(artifact.sources) == ["als", "popular"]
    assert {source.name for source in spec.sources} <= {"als", "popular"}
    assert spec.prior_strength == USUAL["prior"]["strength"]
    assert "crossed with the context: " in (moved / "policy.yaml").read_text()  # it was judged

    salt = Settings().secret()
    profiles, note = open_profiles(spec.profiles, artifact, salt)
    assert note == ""
    assert profiles is not None
    profile = profiles.find(pseudonym(salt, "customer 7"))
    assert profile is not None
    assert len(profile.indices) == 8
    assert all(int(artifact.items[at][1:]) % 2 == 1 for at in profile.indices)
    for path in moved.rglob("*"):
        assert path.is_dir() or b"customer" not in said_by(path), path


def test_profiles_of_no_use_are_said_and_do_not_keep_a_service_from_starting(
    data: Path, tmp_path: Path
) -> None:
    """None, or under another salt; a damaged file is no start."""
    run("--data", data, "--out", "shop", "--sources", "popular", "--spec-out", "policy.yaml")
    spec, own = load_spec(tmp_path / "policy.yaml"), Settings(port=free_port())

    def notes(settings: Settings) -> list[str]:
        return [note for note in demand_all(settings, [spec]) if "profiles:" in note]

    assert notes(own) == []
    (note,) = notes(Settings(port=free_port(), salt=SecretStr("another salt of many bytes")))
    assert "was written under another salt, so every user is a stranger" in note

    profiles = Path(str(spec.profiles))
    profiles.write_bytes(profiles.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="no file of profiles"):
        notes(own)

    profiles.unlink()
    (note,) = notes(own)
    assert f"there is no file {profiles}, so every user is a stranger" in note


def test_several_processes_write_the_same_bytes(data: Path, tmp_path: Path) -> None:
    for out, jobs in (("one", 1), ("two", 2)):
        run("--data", data, "--out", tmp_path / out, "--sources", "als,popular", "--jobs", jobs)
    one, two = ((tmp_path / name / "current").read_text() for name in ("one", "two"))
    assert one == two
    for name in ("one", "two"):
        assert source_artifact.load(tmp_path / name).version == one.strip()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_search_on_ray_makes_the_table_that_one_process_makes(data: Path, tmp_path: Path) -> None:
    """The winners are fitted, and every trial is told beside the artifact."""
    command = Path(sys.executable).with_name("banditloop")
    out = tmp_path / "shop"
    arguments = ["--data", data, "--out", out, "--sources", "deep", "--no-prior"]
    searching = ["--search", "--search-trials", "3"]
    subprocess.run([command, "train", *arguments, *searching], check=True, cwd=tmp_path)

    opened = DataSet.open(str(data))
    config, report = search_sources(
        "data",
        opened.coded(),
        opened.items(),
        opened.manifest.weights,
        SearchBudget(3),
        sources=["deep"],
        run=lambda function, tasks, shared, **_: {
            number: function(task, *shared) for number, task in enumerate(tasks)
        },
    )
    written = msgspec.json.decode((out / "search.json").read_bytes(), type=TuningReport)
    assert [replace(trial, seconds=0.0) for trial in written.trials] == [
        replace(trial, seconds=0.0) for trial in report.trials
    ]
    assert written.choices == report.choices

    artifact = source_artifact.load(out)
    assert written.artifact == artifact.version
    assert f"{report.trials[0].ndcg:.4f}" in (out / "search.html").read_text()
    assert artifact.sources["deep"].config == msgspec.to_builtins(config.deep)

    # Without a search, from the file that it left: the same artifact.
    run(*arguments[:2], "--out", tmp_path / "again", *arguments[4:], "--fit", out / "fit.yaml")
    assert (tmp_path / "again" / "current").read_text() == (out / "current").read_text()


@pytest.mark.slow
def test_a_killed_training_leaves_the_old_artifact(data: Path, tmp_path: Path) -> None:
    """It dies when all files of the new one are written, and none is where it belongs."""
    out = tmp_path / "shop"
    run("--data", data, "--out", out, "--sources", "popular")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    arguments = ["--data", str(data), "--out", str(out), "--sources", "popular", "--seed", "1"]
    code = f"""
import os, signal
from policies.artifacts import source_artifact
source_artifact._sync = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
from serve_app.admin.preflight import demand_all
from serve_app.cli.train import app
from serve_app.host.environment import free_port
app({arguments!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert {path: path.read_bytes() for path in before} == before
    assert source_artifact.load(out).seed == 0

    run(*arguments)
    assert source_artifact.load(out).seed == 1


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """The same command finds how far it had come, and leaves nothing of it behind."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    chosen = ["--data", str(data), "--sources", "popular,deep", "--no-prior"]
    code = f"""
import os
from policies.training.neural.checkpoints import FolderCheckpoints
write = FolderCheckpoints.write
FolderCheckpoints.write = lambda *told: (write(*told), os.kill(os.getpid(), {int(how)}))
from serve_app.cli.main import main
import sys
sys.argv = ["banditloop", "train", *{chosen!r}, "--out", {str(out)!r}]
main()
"""
    stopped = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=100, capture_output=True, text=True
    )
    assert stopped.returncode == (130 if how is signal.SIGINT else -how)
    assert ("the same command goes on from there" in stopped.stderr) is (how is signal.SIGINT)
    assert [path.suffix for path in (out / "checkpoints").rglob("deep*")] == [".safetensors"]
    assert not (out / "current").exists()

    assert "goes on from" in run(*chosen, "--out", out)
    assert not (out / "checkpoints").exists()
    run(*chosen, "--out", whole)
    assert everything_in(out) == everything_in(whole)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--data", "nothing"], DataSetError, "nothing is not a data set"),
        (["--data", "data", "--sources", "alz"], ArtifactError, "no source 'alz'.*als"),
        (["--events", "none.csv"], BanditloopError, "none.csv"),
        (["--data", "data", "--fit", "none.yaml"], ArtifactError, "none.yaml: No such file"),
    ],
    ids=["no data set", "unknown source", "no events", "no fit"],
)
def test_bad_input_is_one_readable_line(
    data: Path, arguments: list[str], kind: type[BanditloopError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        run(*arguments, "--out", data.parent / "out")
    assert "\n" not in str(caught.value)
    assert not (data.parent / "out" / "current").exists()


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        ("--weights", "{cart: 3}", "--weights names 'cart', but no event is of that type"),
        ("--rating-scale", "5:1", "a rating scale goes from its lowest to its highest"),
    ],
)
def test_what_events_are_worth_goes_to_the_import(
    tmp_path: Path, option: str, given: str, message: str
) -> None:
    (tmp_path / "events.csv").write_text("user,item,type,rating\na,b,view,4\n")
    with pytest.raises(DataSetError, match=message):
        run("--events", tmp_path / "events.csv", option, given, "--out", tmp_path / "out")
    done = CliRunner().invoke(app, ["--data", str(tmp_path), option, given])
    assert done.exit_code == 2
    assert "go with --events" in " ".join(done.output.split())


def test_what_a_file_says_of_a_source_that_is_not_trained_is_said_to_be_of_no_account(
    data: Path, tmp_path: Path
) -> None:
    """What the file cannot say stops it before anything is written."""
    fit = tmp_path / "fit.yaml"
    fit.write_text("sasrec: {blocks: 2}\ncontent: {size: 16}\n")
    arguments = ["--data", data, "--out", tmp_path / "out", "--fit", fit, "--no-prior"]
    said = " ".join(run(*arguments, "--sources", "popular").split())
    assert "--fit: sasrec is not trained" in said
    assert "--fit: content is not trained" in said

    for wrong, why in (
        ("sasrec: {blocks: 0}", "sasrec.blocks: Expected `int` >= 1"),
        ("als: 3", "als: Expected `object`, got `int`"),
    ):
        fit.write_text(wrong)
        with pytest.raises(ArtifactError, match=f"fit.yaml: {why}"):
            run(*arguments, "--sources", "popular")


def test_what_goes_together_is_demanded(data: Path) -> None:
    done = CliRunner().invoke(app, ["--data", str(data), "--search-trials", "3"])
    assert done.exit_code == 2
    assert "go with --search" in done.output
    done = CliRunner().invoke(app, ["--data", str(data), "--events", "x.csv"])
    assert done.exit_code == 2
    assert "not both" in done.output


def test_sources_that_the_data_cannot_support_are_said_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user, and one item: what can be trained is; of no weight at all nothing can be."""
    monkeypatch.chdir(tmp_path)
    one_item = pa.table({"user": ["a", "b"], "item": ["x", "x"]})
    write_data_set(tmp_path / "item", one_item)
    said = run("--data", "item", "--out", "out", "--spec-out", "policy.yaml")
    assert "left out: als: there is one item" in said
    assert "left out: trending: the events have no times" in said
    assert list(source_artifact.load(tmp_path / "out").sources) == ["popular"]
    assert [source.name for source in load_spec(tmp_path / "policy.yaml").sources] == ["popular"]

    write_data_set(tmp_path / "user", events(users=1))
    run("--data", "user", "--out", "out", "--sources", "popular,ease")
    assert list(source_artifact.load(tmp_path / "out").sources) == ["ease", "popular"]

    write_data_set(tmp_path / "none", events(), weights=WeightOptions(types={"event": 0.0}))
    before = (tmp_path / "out" / "current").read_bytes()
    with pytest.raises(ArtifactError, match="weight above 0"):
        run("--data", "none", "--out", "out")
    assert (tmp_path / "out" / "current").read_bytes() == before
