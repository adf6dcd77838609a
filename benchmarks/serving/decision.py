"""What one decision costs in process, against Vowpal Wabbit's Python paths on the same model.

    python -m benchmarks.serving.decision [--out decision.json]

100 actions of a catalogue of 1,000 items with 8 numeric features each, 8 numeric features of the
context, all crossed (`-q cf`), epsilon-greedy. In turn: ours from the request to the PMF; VW
predicting from text lines that are written already; VW predicting from examples that are reused and
filled from arrays; `decide()`, PMF and draw, from the same arrays. All have to give the same PMF
(VW calls scores within 1e-4 of each other tied; then the best has to be it too). They take turns
every 50 requests, as a process that serves does one thing only; and once more at every request,
when each finds the caches full of another's. Then ours from the request to the encoded record, also
for the ridge policies; and that with more actions.

Goals: `decide()` 40 times faster than the text, 10 times faster than the examples; 0.15 ms with
draw and record; 1 us for each action more, from 100 to 10,000.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np
from vowpal_wabbit_next import TextFormatParser, Workspace

from bandits.decide import decide
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.log.codec import encode
from bandits.ridge.config import RidgeConfig
from bandits.types import ActionSet, Context, Interaction, Pmf
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner, VwModel
from benchmarks.table import Table
from policies.blend import load_policy, make_learner
from policies.candidate_pool import Pool, explicit_pool
from policies.features import featurise
from policies.items.catalogue import Catalogue, Item
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec

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
    "ridge, epsilon-greedy": PolicySpec(
        "bench", learner=RIDGE, exploration=EpsilonGreedy(0.1), floor=0.0, use=USE
    ),
    "LinUCB": PolicySpec("bench", learner=RIDGE, exploration=LinUcb(), use=USE),
    "LinTS, 100 draws": PolicySpec("bench", learner=RIDGE, exploration=LinTs(), use=USE),
}
GOALS = {"text": 40.0, "examples": 10.0}
TURN = 50
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


def taught(  # noqa: ANN201
    spec: PolicySpec,
    catalogue: Catalogue,
    requests: Sequence[RankRequest],
    rng: np.random.Generator,
):
    """A learner that has seen a reward for each of the requests."""
    learner = make_learner(spec, salt=SALT)
    for request in requests:
        pool = explicit_pool(request.actions or [])
        context, actions = featurise(spec, catalogue, request.context, pool.ids, None, {})
        chosen = int(rng.integers(ACTIONS))
        learner.learn(
            [Interaction("e", 0, context, actions, chosen, 1 / ACTIONS, float(rng.random()))]
        )
    return learner


def median_us(
    run: Callable[[RankRequest], object], requests: Sequence[RankRequest]
) -> tuple[float, float]:
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

    return [
        f"shared |context {written(request.context)}",
        *(f"|features {written(own)}" for own in features),
    ]


@dataclass(frozen=True)
class Question:
    """A request as each of the four is given it."""

    request: RankRequest
    text: list[str]
    context: Context
    actions: ActionSet


class Contest:
    """One model, asked for the same PMF in four ways."""

    def __init__(
        self, catalogue: Catalogue, items: Sequence[Item], rng: np.random.Generator
    ) -> None:
        self._spec = SPECS["VW, epsilon-greedy"]
        self._catalogue = catalogue
        self._features = {item.id: dict(item.features) for item in items}
        # shown all actions, so that VW's own prediction can be asked of it, too
        plain = VwLearner(ARGS)
        for each in (self.question(request) for request in make_requests(rng, 300)):
            chosen = int(rng.integers(ACTIONS))
            plain.learn(
                [Interaction("e", 0, each.context, each.actions, chosen, 0.01, float(rng.random()))]
            )
        self._policy = load_policy(self._spec, plain.snapshot("1-0"))
        model = plain._workspace.serialize()  # noqa: SLF001 - the peer has to be the same model
        self._workspace = Workspace([*ARGS.split(), "--quiet"], model_data=model)
        self._parser, self._examples = (
            TextFormatParser(self._workspace),
            VwModel(ARGS, model, plain.learned),
        )
        self.ways = {
            "request": self._request,
            "text": self._text,
            "examples": self._filled,
            "decide": self._decide,
        }

    def question(self, request: RankRequest) -> Question:
        """Written and featurised beforehand."""
        text = lines(request, [self._features[each.id] for each in request.actions or []])
        return Question(request, text, *self._arrays(request))

    def _arrays(self, request: RankRequest) -> tuple[Context, ActionSet]:
        pool = explicit_pool(request.actions or [])
        return featurise(self._spec, self._catalogue, request.context, pool.ids, None, {})

    def _request(self, asked: Question) -> Pmf:
        return self._policy.pmf(*self._arrays(asked.request))

    def _text(self, asked: Question) -> Sequence[tuple[int, float]]:
        found: list[tuple[int, float]] = self._workspace.predict_one(
            [self._parser.parse_line(each) for each in asked.text]
        )
        return found

    def _filled(self, asked: Question) -> Pmf:
        return self._examples.pmf(asked.context, asked.actions)

    def _decide(self, asked: Question) -> Pmf:
        decision = decide(
            self._policy, asked.context, asked.actions, event_id="e", salt=SALT, name="bench"
        )
        return decision.pmfs[0]

    def check(self, asked: Question) -> None:
        """Refuse to compare what is not the same."""
        ours, filled = self._request(asked), self._filled(asked)
        from_text = np.zeros(ACTIONS)
        for index, probability in self._text(asked):
            from_text[index] = probability
        best = int(ours.argmax())
        # VW: scores within 1e-4 of each other
        tied = np.flatnonzero(from_text > from_text.max() - 1e-6).size > 1
        same = tied or np.abs(ours - from_text).max() < 1e-5
        same &= bool((self._decide(asked) == ours).all())
        if (
            not same
            or from_text[best] < from_text.max() - 1e-6
            or np.abs(filled - from_text).max() > 1e-5
        ):
            raise SystemExit("they do not give the same PMF")


def medians_us(contest: Contest, questions: Sequence[Question], at_once: int) -> dict[str, float]:
    """Median microseconds of each way, which take turns every so many questions."""
    taken: dict[str, list[float]] = {name: [] for name in contest.ways}
    for start in range(0, len(questions), at_once):
        for name, ask in contest.ways.items():
            for asked in questions[start : start + at_once]:
                began = time.perf_counter()
                ask(asked)
                taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(each)) * 1e6 for name, each in taken.items()}


def per_action_us(rng: np.random.Generator, rounds: int) -> dict[int, float]:
    """Median microseconds of a decision with its record, by number of actions."""
    catalogue = make_catalogue(rng, MANY[-1])
    spec = SPECS["VW, epsilon-greedy"]
    learner = taught(spec, catalogue, make_requests(rng, 300), rng)
    ranker = Ranker(spec, [], salt=SALT)
    ranker.serve("s", learner.snapshot("1-0"))
    ranker.offer(catalogue)
    found = {}
    for count in MANY:
        pools = [
            Pool(tuple(f"item{k}" for k in rng.permutation(MANY[-1])[:count]), None, {})
            for _ in range(10)
        ]
        requests = [RankRequest(context=numbers(rng, "c")) for _ in range(rounds)]
        turn = iter(range(10**9))
        found[count] = median_us(
            lambda r, p=pools, t=turn: encode(ranker.decide(r, p[next(t) % 10])), requests
        )[0]
    return found


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    items = [Item(f"item{k}", numbers(rng, "f")) for k in range(ITEMS)]
    catalogue = Catalogue(items)
    table = Table()
    contest = Contest(catalogue, items, rng)
    questions = [contest.question(each) for each in make_requests(rng, arguments.rounds)]
    for asked in questions:
        contest.check(asked)
    for at_once, how in ((TURN, ""), (1, ", caches cold")):
        us = medians_us(contest, questions, at_once)
        for peer, goal in GOALS.items():
            for ours, what in (
                ("decide", "decide() of arrays"),
                ("request", "from the request to the PMF"),
            ):
                ratio = us[peer] / us[ours]
                measured = f"{us[peer]:,.0f} / {us[ours]:,.0f} us = {ratio:.1f} x"
                held = goal if at_once == TURN and ours == "decide" else None
                table.add(f"{what} / VW from {peer}{how}", measured, ratio, at_least=held)
    for name, spec in SPECS.items():
        learner = taught(spec, catalogue, make_requests(rng, 300), rng)
        ranker = Ranker(spec, [], salt=SALT)
        ranker.serve("s", learner.snapshot("1-0"))
        ranker.offer(catalogue)
        median, high = median_us(
            lambda r, ranker=ranker: encode(ranker.decide(r, explicit_pool(r.actions or []))),
            make_requests(rng, arguments.rounds),
        )
        goal = GOAL_US if name == "VW, epsilon-greedy" else None
        table.add(
            f"with draw and record: {name}",
            f"{median:,.0f} us, p99 {high:,.0f}",
            median,
            at_most=goal,
        )
    many = per_action_us(rng, max(50, arguments.rounds // 4))
    each = (many[MANY[-1]] - many[MANY[0]]) / (MANY[-1] - MANY[0])
    written = ", ".join(f"{count:,}: {us:,.0f}" for count, us in many.items())
    table.add("each action more, us", f"{each:.2f} ({written})", each, at_most=GOAL_ACTION_US)
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
