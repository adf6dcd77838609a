"""What a decision of a policy of kind rl costs in process, against blends over the same actions.

    python -m benchmarks.serving.rl_decision [--out rl_decision.json]

100 actions of a catalogue of 1,000 items with 8 numeric features each, 8 numeric features of the
context, as in decision.py. From the request to the encoded record, request after request in turn.
The network has 32 hidden units; the blends are ridge with all features crossed, explored by
epsilon-greedy and by Thompson sampling.

Goal: at most 1.5 times the faster of the two.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from bandits.exploration import EpsilonGreedy, LinTs, Softmax
from bandits.log.codec import encode
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, encode_network, shapes
from benchmarks.serving.decision import (
    FEATURES,
    RIDGE,
    SALT,
    USE,
    make_catalogue,
    make_requests,
    taught,
)
from benchmarks.table import Table
from policies.blend import make_learner
from policies.candidate_pool import explicit_pool
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.spec import PolicySpec

WIDTH, GOAL = 32, 1.5
SCHEMA = FeatureSchema.of(
    context=[f"c{j}" for j in range(FEATURES)], features=[f"f{j}" for j in range(FEATURES)]
)
BLENDS = {
    "blend, epsilon-greedy": PolicySpec(
        "bench", learner=RIDGE, exploration=EpsilonGreedy(0.1), use=USE
    ),
    "blend, LinTS": PolicySpec("bench", learner=RIDGE, exploration=LinTs(), use=USE),
}
RL = PolicySpec("bench", kind="rl", learner=RlConfig(SCHEMA.digest), exploration=Softmax(), use=USE)


def rankers(catalogue: Catalogue, rng: np.random.Generator) -> dict[str, Ranker]:
    """The network first, then the blends, each taught 300 rewards."""
    arrays = {
        name: rng.normal(size=shape) / 4.0 for name, shape in shapes(len(SCHEMA), WIDTH).items()
    }
    network = encode_network(Network.of(SCHEMA.names, arrays), 1)
    learners = {"rl": (RL, make_learner(RL, salt=SALT, checkpoint=network))}
    seen = make_requests(rng, 300)
    learners |= {name: (spec, taught(spec, catalogue, seen, rng)) for name, spec in BLENDS.items()}
    out = {}
    for name, (spec, learner) in learners.items():
        out[name] = Ranker(spec, [], salt=SALT)
        out[name].serve("s", learner.snapshot("1-0"))
        out[name].offer(catalogue)
    return out


def main() -> int:
    """Measure, print, exit 1 if the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    catalogue = make_catalogue(rng, 1000)
    each = rankers(catalogue, rng)
    taken: dict[str, list[float]] = {name: [] for name in each}
    for request in make_requests(rng, given.rounds):
        for name, ranker in each.items():
            began = time.perf_counter()
            encode(ranker.decide(request, explicit_pool(request.actions or [])))
            taken[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(values)) * 1e6 for name, values in taken.items()}
    table = Table()
    for name, median in medians.items():
        high = float(np.quantile(taken[name], 0.99)) * 1e6
        table.add(f"with draw and record: {name}", f"{median:,.0f} us, p99 {high:,.0f}", median)
    ratio = medians["rl"] / min(median for name, median in medians.items() if name != "rl")
    table.add("a decision of kind rl / of the faster blend", f"{ratio:.2f} x", ratio, at_most=GOAL)
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
