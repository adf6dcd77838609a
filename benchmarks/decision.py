"""What one decision costs in process, against Vowpal Wabbit's Python paths on the same model.

    python benchmarks/decision.py [--out decision.json]

100 actions of a catalogue of 1,000 items with 8 numeric features each, 8 numeric features of the context, all crossed
(`-q cf`), epsilon-greedy. Request after request, in turn: ours from the request to the PMF; VW predicting from text
lines that are written already; VW predicting from examples that are reused and filled from arrays. All three have to
give the same PMF (VW calls scores within 1e-4 of each other tied; then the best has to be the same). Then ours with
draw and the encoded record, also for the ridge policies; and that with more actions.

Goals: 40 times faster than the text, 10 times faster than the examples; 0.15 ms with draw and record; 1 us for each
action more, from 100 to 10,000.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np
from table import Table
from vowpal_wabbit_next import TextFormatParser, Workspace

from bandits.codec import encode
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.ridge import RidgeConfig
from bandits.types import Interaction
from bandits.vw import VwLearner, VwModel
from policies.blend import load_policy, make_learner
from policies.catalogue import Catalogue, Item
from policies.features import featurise
from policies.ranker import ActionRequest, Pool, Ranker, RankRequest, explicit_pool
from policies.spec import PolicySpec, VwConfig

SALT = b"benchmark"
ITEMS, ACTIONS, FEATURES = 1000, 100, 8
MANY = (100, 1_000, 10_000)
USE = ["context", "features"]
RIDGE = RidgeConfig(interactions=[("context", "features")])
ARGS = "--cb_explore_adf --cb_type mtr -q cf --epsilon 0.1"
SPECS = {
    "VW, epsilon-greedy": PolicySpec(
        "bench", learner=VwConfig(ARGS), exploration=EpsilonGreedy(0.1), floor=0.0, use=USE
    ),
    "ridge, epsilon-greedy": PolicySpec("bench", learner=RIDGE, exploration=EpsilonGreedy(0.1), floor=0.0, use=USE),
    "LinUCB": PolicySpec("bench", learner=RIDGE, exploration=LinUcb(), use=USE),
    "LinTS, 100 draws": PolicySpec("bench", learner=RIDGE, exploration=LinTs(), use=USE),
}
GOALS = {"text": 40.0, "examples": 10.0}
GOAL_US, GOAL_ACTION_US = 150.0, 1.0


def numbers(rng: np.random.Generator, prefix: str) -> dict[str, float]:
    """Numeric features that a float32 holds."""
    return {f"{prefix}{j}": float(np.float32(rng.normal())) for j in range(FEATURES)}


def make_catalogue(rng: np.random.Generator, count: int) -> Catalogue:
    """Items with numeric features."""
    return Catalogue([Item(f"item{k}", numbers(rng, "f")) for k in range(count)])


def make_requests(rng: np.random.Generator, count: int) -> list[RankRequest]:
    """Each with 100 actions by catalogue id."""
    return [
        RankRequest(
            context=numbers(rng, "c"),
            actions=[ActionRequest(f"item{k}") for k in rng.choice(ITEMS, ACTIONS, replace=False)],
        )
        for _ in range(count)
    ]


def taught(spec: PolicySpec, catalogue: Catalogue, requests: Sequence[RankRequest], rng: np.random.Generator):  # noqa: ANN201
    """A learner that has seen a reward for each of the requests."""
    learner = make_learner(spec, salt=SALT)
    for request in requests:
        pool = explicit_pool(request.actions or [])
        context, actions = featurise(spec, catalogue, request.context, pool.ids, None, {})
        chosen = int(rng.integers(ACTIONS))
        learner.learn([Interaction("e", 0, context, actions, chosen, 1 / ACTIONS, float(rng.random()))])
    return learner


def median_us(run: Callable[[RankRequest], object], requests: Sequence[RankRequest]) -> tuple[float, float]:
    """Median and 99th percentile, microseconds."""
    taken = []
    for request in requests:
        began = time.perf_counter()
        run(request)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken)) * 1e6, float(np.quantile(taken, 0.99)) * 1e6


def lines(request: RankRequest, features: Sequence[dict[str, float]]) -> list[str]:
    """The decision as VW's text, numbers written in full."""

    def written(values: dict[str, float]) -> str:
        return " ".join(f"{name}:{value!r}" for name, value in values.items())

    return [f"shared |context {written(request.context)}", *(f"|features {written(own)}" for own in features)]


def against_vw(catalogue: Catalogue, items: Sequence[Item], rng: np.random.Generator, rounds: int) -> dict[str, float]:
    """Median microseconds from request to PMF: ours, VW's from text, VW's from examples."""
    spec = SPECS["VW, epsilon-greedy"]
    plain = VwLearner(ARGS)  # shown all actions, so that VW's own prediction can be asked of it, too
    seen = make_requests(rng, 300)
    for request in seen:
        pool = explicit_pool(request.actions or [])
        context, actions = featurise(spec, catalogue, request.context, pool.ids, None, {})
        plain.learn([Interaction("e", 0, context, actions, int(rng.integers(ACTIONS)), 0.01, float(rng.random()))])
    policy = load_policy(spec, plain.snapshot("1-0"))
    model = plain._workspace.serialize()  # noqa: SLF001 - the peer has to be the same model
    workspace = Workspace([*ARGS.split(), "--quiet"], model_data=model)
    parser, examples = TextFormatParser(workspace), VwModel(ARGS, model, plain.learned)
    features = {item.id: dict(item.features) for item in items}
    requests = make_requests(rng, rounds)
    texts = [lines(each, [features[a.id] for a in each.actions or []]) for each in requests]
    taken: dict[str, list[float]] = {"ours": [], "text": [], "examples": []}
    for request, text in zip(requests, texts, strict=True):
        began = time.perf_counter()
        pool = explicit_pool(request.actions or [])
        context, actions = featurise(spec, catalogue, request.context, pool.ids, None, {})
        ours = policy.pmf(context, actions)
        taken["ours"].append(time.perf_counter() - began)
        began = time.perf_counter()
        predicted = workspace.predict_one([parser.parse_line(line) for line in text])
        taken["text"].append(time.perf_counter() - began)
        began = time.perf_counter()
        filled = examples.pmf(context, actions)
        taken["examples"].append(time.perf_counter() - began)
        from_text = np.zeros(ACTIONS)
        from_text[[index for index, _ in predicted]] = [probability for _, probability in predicted]
        best = int(ours.argmax())
        tied = np.flatnonzero(from_text > from_text.max() - 1e-6).size > 1  # VW: scores within 1e-4 of each other
        same = tied or np.abs(ours - from_text).max() < 1e-5
        if not same or from_text[best] < from_text.max() - 1e-6 or np.abs(filled - from_text).max() > 1e-5:
            raise SystemExit("the three do not give the same PMF")
    return {name: float(np.median(each)) * 1e6 for name, each in taken.items()}


def per_action_us(rng: np.random.Generator, rounds: int) -> dict[int, float]:
    """Median microseconds of a decision with its record, by number of actions."""
    catalogue = make_catalogue(rng, MANY[-1])
    spec = SPECS["VW, epsilon-greedy"]
    learner = taught(spec, catalogue, make_requests(rng, 300), rng)
    ranker = Ranker(spec, [], salt=SALT)
    ranker.serve("s", learner.snapshot("1-0"), catalogue)
    found = {}
    for count in MANY:
        pools = [Pool(tuple(f"item{k}" for k in rng.permutation(MANY[-1])[:count]), None, {}) for _ in range(10)]
        requests = [RankRequest(context=numbers(rng, "c")) for _ in range(rounds)]
        turn = iter(range(10**9))
        found[count] = median_us(lambda r, p=pools, t=turn: encode(ranker.decide(r, p[next(t) % 10])), requests)[0]
    return found


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    items = [Item(f"item{k}", numbers(rng, "f")) for k in range(ITEMS)]
    catalogue = Catalogue(items)
    table = Table()
    vw = against_vw(catalogue, items, rng, arguments.rounds)
    for peer, goal in GOALS.items():
        measured = f"{vw[peer]:,.0f} / {vw['ours']:,.0f} us = {vw[peer] / vw['ours']:.1f} x"
        table.add(f"from the request to the PMF / VW from {peer}", measured, vw[peer] / vw["ours"], at_least=goal)
    for name, spec in SPECS.items():
        learner = taught(spec, catalogue, make_requests(rng, 300), rng)
        ranker = Ranker(spec, [], salt=SALT)
        ranker.serve("s", learner.snapshot("1-0"), catalogue)
        median, high = median_us(
            lambda r, ranker=ranker: encode(ranker.decide(r, explicit_pool(r.actions or []))),
            make_requests(rng, arguments.rounds),
        )
        goal = GOAL_US if name == "VW, epsilon-greedy" else None
        table.add(f"with draw and record: {name}", f"{median:,.0f} us, p99 {high:,.0f}", median, at_most=goal)
    many = per_action_us(rng, max(50, arguments.rounds // 4))
    each = (many[MANY[-1]] - many[MANY[0]]) / (MANY[-1] - MANY[0])
    written = ", ".join(f"{count:,}: {us:,.0f}" for count, us in many.items())
    table.add("each action more, us", f"{each:.2f} ({written})", each, at_most=GOAL_ACTION_US)
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
