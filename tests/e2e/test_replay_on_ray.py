"""A replay as tasks of a Ray cluster of this machine: the same answer, also when a worker is killed in the middle."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import numpy as np

from serve_app.environment import prepare_environment

prepare_environment()
from simulator.fan import on_ray
from simulator.logs.csv_log import CsvColumns
from simulator.logs.formats import LEAST_BYTES, open_log
from simulator.replay import Question, evaluate
from simulator.targets import Column
import msgspec, ray

path = Path(sys.argv[1]) / "log.csv"
rng = np.random.default_rng(0)
with path.open("w") as file:
    file.write("reward,propensity,new\\n")
    for p, q, r in rng.random((40_000, 3)):
        file.write(f"{int(r < 0.3)},{p * 0.9 + 0.1:.6f},{q:.6f}\\n")
question = Question([Column("new")], interval="bootstrap")
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
fan = on_ray("local")
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
    assert json.loads(done.stdout.splitlines()[-1]) == {"killed": True, "same": True, "rows": 40_000}
