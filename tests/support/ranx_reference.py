"""Metrics of some lists as ranx has them, for tests/fixtures/ranking/ranx.json.

    pip install ranx==0.3.21
    python tests/support/ranx_reference.py > tests/fixtures/ranking/ranx.json

ranx compiles for a minute, so its figures are kept; the test compares with it where it is there.
"""

import json
import sys
import warnings
from importlib.metadata import version

import numpy as np

METRICS = ("ndcg", "recall", "precision", "f1", "map", "mrr", "hit_rate")
CUTS = (1, 5, 10, 20)
USERS, ITEMS, LENGTH = 40, 60, 20


def make_lists(seed: int = 7) -> tuple[list[list[int]], list[list[int]]]:
    """Return lists, some of them short or empty, and the relevant items of each user."""
    rng = np.random.default_rng(seed)
    lists = [
        rng.permutation(ITEMS)[: int(rng.choice([LENGTH, LENGTH, LENGTH, 4, 0]))].tolist()
        for _ in range(USERS)
    ]
    relevant = [
        np.sort(rng.choice(ITEMS, int(rng.integers(1, 25)), replace=False)).tolist()
        for _ in range(USERS)
    ]
    return lists, relevant


def by_ranx() -> dict[str, list[float]]:
    """Return every metric at every cut, by user."""
    from ranx import Qrels, Run, evaluate  # noqa: PLC0415 - not installed for most tests

    lists, relevant = make_lists()
    wanted = {str(user): dict.fromkeys(map(str, mine), 1) for user, mine in enumerate(relevant)}

    # ranx knows no empty list; one of an unknown item is as good.
    ranked = {
        str(user): {str(item): float(LENGTH - place) for place, item in enumerate(mine)}
        or {"none": 1.0}
        for user, mine in enumerate(lists)
    }
    found = {}
    for metric in METRICS:
        for k in CUTS:
            run = Run(ranked)
            evaluate(Qrels(wanted), run, f"{metric}@{k}")
            scores = run.scores[f"{metric}@{k}"]
            found[f"{metric}@{k}"] = [float(scores[str(user)]) for user in range(USERS)]
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump({"ranx": version("ranx"), "metrics": by_ranx()}, sys.stdout, indent=1)
    sys.stdout.write("\n")
