"""The command trains the sources of a data set on its earlier part, and judges all of them."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from support.small_ranking import crowds
from typer.testing import CliRunner

from policies.data.data_set import DataSet
from policies.data.writer import write_data_set
from serve_app.cli.evaluate.command import app, trainer


@pytest.fixture
def data(tmp_path):
    pytest.importorskip("implicit")
    events = crowds(users=150)
    table = pa.table(
        {
            "user": [events.user_ids[code] for code in events.user],
            "item": [events.item_ids[code] for code in events.item],
            "time": pa.array(events.time, pa.int64()),
        }
    )
    write_data_set(tmp_path / "data", table)
    return tmp_path / "data"


def test_sources_are_trained_judged_and_fused(data, tmp_path):
    out, page = tmp_path / "report.json", tmp_path / "page.html"
    done = subprocess.run(
        [
            *[sys.executable, "-c", "from serve_app.cli.main import main; main()", "evaluate"],
            *["--data", str(data), "--sources", "als,item_knn,popular"],
            *["--out", str(out), "--html", str(page)],
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "best by nDCG" in done.stdout

    report = json.loads(out.read_text())
    names = [row["name"] for row in report["results"]]
    assert names[:3] == ["als", "item_knn", "popular"]
    assert {"weighted", "stack_ridge", "stack_logistic"} < set(names)
    assert len(report["learners"]) >= 3
    assert page.read_text().count("<svg") == 5


def test_sources_are_fitted_with_what_a_file_says(data, tmp_path):
    """And an artifact is as it is."""
    (tmp_path / "fit.yaml").write_text("item_knn: {neighbours: 3}")
    opened = DataSet.open(str(data))
    train = trainer(opened, None, ["item_knn"], 0, tmp_path / "fit.yaml", lambda *_: None)
    artifact = train(opened.coded(), "sources").artifact
    assert artifact.sources["item_knn"].config["neighbours"] == 3

    asked = ["--data", str(data), "--artifact", "x", "--fit", str(tmp_path / "fit.yaml")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2
    assert "an artifact is evaluated as it is" in " ".join(done.output.split())
