"""A replay as tasks of a Ray cluster of this machine: the same answer, also when a worker is killed in the middle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.spec import load_spec
from simulator.learners.trained import read_trained

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import numpy as np

from serve_app.host.environment import prepare_environment

prepare_environment()
from simulator.parallel import OnRay
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import LEAST_BYTES, open_log
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.ope.targets import ColumnTarget
import msgspec, ray

path = Path(sys.argv[1]) / "log.csv"
rng = np.random.default_rng(0)
with path.open("w") as file:
    file.write("reward,propensity,new\\n")
    for p, q, r in rng.random((40_000, 3)):
        file.write(f"{int(r < 0.3)},{p * 0.9 + 0.1:.6f},{q:.6f}\\n")
question = OpeQuestion([ColumnTarget("new")], interval="bootstrap")
pieces = open_log(str(path), "csv", shards=8, extra=["new"])
assert len(pieces) > 4


class Deadly:
    skipped = 0

    def __init__(self, piece, mark):
        self.piece, self.mark = piece, mark

    def batches(self):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from self.piece.batches()


here = evaluate(question, pieces)
fan = OnRay("local")
there = evaluate(question, pieces, fan)
mark = Path(sys.argv[1]) / "killed"
deadly = [*pieces[:3], Deadly(pieces[3], mark), *pieces[4:]]
survived = evaluate(question, deadly, lambda function, given: fan(function, given))
ray.shutdown()
reports = [msgspec.json.encode(each).decode() for each in (here, there, survived)]
print(json.dumps({"killed": mark.exists(), "same": len(set(reports)) == 1, "rows": here.log.rows}))
"""


def test_tasks_give_the_same_answer_even_when_their_worker_is_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "killed": True,
        "same": True,
        "rows": 40_000,
    }


SPACE = """
spec: {name: home, learner: {kind: ridge}, exploration: {kind: lints}}
vary: {learner.interactions: {choice: [[[context, item]], []]}}
trials: 8
"""


@pytest.mark.slow
def test_a_search_finds_the_spec_that_sees_what_matters(tmp_path):
    """Of two specs, the one whose model knows that phones and browsers want different things."""
    rng = np.random.default_rng(0)
    lines = ["id,device,action,p,click"]
    for number in range(3000):
        device, chosen = ("phone", "web")[int(rng.integers(2))], int(rng.integers(2))
        click = int(rng.random() < (0.7 if (device == "phone") == (chosen == 0) else 0.2))
        lines.append(f"{number},{device},{'ab'[chosen]},0.5,{click}")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    (tmp_path / "space.yaml").write_text(SPACE)
    columns = "{reward: click, propensity: p, event_id: id, action: action, action_ids: [a, b], context: [device]}"
    command = [
        "replay",
        "--search",
        "space.yaml",
        "--log",
        "log.csv",
        "--format",
        "csv",
        "--columns",
        columns,
    ]
    command += ["--best", "best.yaml", "--model", "best.model", "--out", "report.json"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "banditloop"), *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    best = load_spec(tmp_path / "best.yaml")
    assert best.learner.interactions == [("context", "item")]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["search"]["best"]["name"] == best.name == report["winner"]
    assert next(each["kept"] for each in report["search"]["trials"] if each["spec"] == best.name)
    values = {each["policy"]: each["estimates"]["snips"]["value"] for each in report["results"]}
    assert values[best.name] > values["logging"] + 0.1
    assert report["log"]["rows"] == 600
    assert read_trained(tmp_path / "best.model").name == "best"
