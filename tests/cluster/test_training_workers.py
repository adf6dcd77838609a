"""Networks fitted by several workers of a Ray cluster of this machine, also when one is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import json, os, signal, sys, time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from serve_app.host.environment import prepare_environment

prepare_environment()
import ray
from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.deep import DeepConfig
from policies.training.fits import TrainConfig
from policies.training.train import SourceTask
from policies.training.training_data import Course, TrainingData
from simulator.training.place import training_place

folder, users, items, each = Path(sys.argv[1]), 300, 80, 6
rng = np.random.default_rng(0)
taken = np.concatenate([rng.permutation(items)[:each] for _ in range(users)])
histories = Histories(
    items=tuple(map(str, range(items))), users=tuple(map(str, range(users))),
    starts=np.arange(0, users * each + 1, each), indices=taken.astype(np.int32),
    weights=np.ones(users * each, np.float32), times=None,
)


@dataclass(frozen=True, slots=True, eq=False)
class Deadly(SourceTask):
    mark: Path

    def __call__(self, name):
        course, told = self.course, []
        rank = None if course.team is None else course.team.rank

        def step(done, total):
            told.append(done)
            if rank == 0 and len(told) == 1 and self.mark.exists():
                self.mark.write_text(str(done))
            if rank == 1 and done == 100 and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            course.step(done, total)

        task = SourceTask(self.data, self.config, replace(course, step=step))
        return task(name)


data = TrainingData(histories, describe([], ContentConfig()))
config = TrainConfig(deep=DeepConfig(hidden=16, batch=64, epochs=40))
told, made = [], {}
with training_place(workers=2) as place:
    for name in ("whole", "killed"):
        task = SourceTask(data, config, Course(5, checkpoints=place.checkpoints(name)))
        if name == "killed":
            task = Deadly(task.data, task.config, task.course, folder / "mark")
        sources = place.map_tasks(task, ("popular", "deep"), lambda *step: told.append(step))
        made[name] = {each.kind: each for each in sources}
    try:
        with training_place(workers=999) as place:
            refused = ""
    except ArtifactError as error:
        refused = error.message
ray.shutdown()

whole, killed = made["whole"]["deep"].arrays, made["killed"]["deep"].arrays
print(json.dumps({
    "kinds": sorted(made["killed"]),
    "same": all(np.array_equal(whole[name], killed[name]) for name in whole),
    "went on at": int((folder / "mark").read_text()),
    "told of": sorted({source for source, _, _ in told}),
    "refused": refused,
}))
"""


def test_a_fit_goes_on_to_the_same_bytes_when_one_of_its_workers_is_killed(tmp_path):
    """It goes on at a checkpoint; the rest are tasks; more workers than cores are refused."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    refused = said.pop("refused")
    assert "999 workers need as many cores" in refused
    assert "--workers" in refused
    assert said.pop("went on at") > 5, "it began anew"
    assert said.pop("told of") in (["deep"], [])
    assert said == {"kinds": ["deep", "popular"], "same": True}
