"""Whatever can be trained is served without what trained it: every family at once."""

import json
import subprocess
import sys

import numpy as np
from support.small_ranking import crowds

from policies.artifacts import source_artifact
from policies.training.fits import EVERY, FITS
from policies.training.train import run_training

SERVE = """
import asyncio, json, pathlib, sys
from policies.artifacts import source_artifact
from policies.blend import make_learner
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import spec_of

artifact = source_artifact.load(pathlib.Path(sys.argv[1]))
spec = spec_of({"name": "p", "artifact": "a", "sources": [
    {"kind": "artifact", "name": name} for name in artifact.sources]})
ranker = Ranker(spec, list(load_sources(artifact, spec.sources).values()), salt=b"s")
ranker.serve("one", make_learner(spec, salt=b"s").snapshot("0-0"))
ranker.offer(Catalogue.of(artifact.catalogue))
record = asyncio.run(ranker.rank(RankRequest(
    event_id="e", context={"band": "old"}, history=list(artifact.items[3:6]))))
print(json.dumps([
    sorted(record.scores), record.failed,
    sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2].split(",")))]))
"""
HEAVY = "torch,implicit,ray,sklearn,pandas,pyarrow,lightgbm,wordllama"
"""Packages that training or evaluation may use, and a replica's decisions do without."""


def test_a_replica_that_serves_every_family_imports_nothing_that_trained_it(tmp_path):
    events = crowds(users=60)
    rng = np.random.default_rng(2)
    items = [
        {
            "id": item,
            "features": {"topic": f"t{number % 5}", "price": float(number)},
            "metadata": {"title": f"word{number % 7} of kind {number % 5}"},
            "vectors": {"picture": rng.normal(size=4).round(3).tolist()},
        }
        for number, item in enumerate(events.item_ids)
    ]
    contexts = {user: {"band": "old"} for user in events.user_ids}
    run = run_training(events, items, sources=[EVERY], contexts=contexts)
    assert set(run.artifact.sources) == set(FITS), run.left_out

    source_artifact.write(run.artifact, tmp_path / "shop")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path / "shop"), HEAVY],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scored, failed, imported = json.loads(done.stdout)
    assert (set(scored), failed, imported) == (set(FITS), None, [])
