"""How fast learners learn, beside other libraries on the same interactions, one core.

    python -m benchmarks.learning.learner

Logged decisions over 20 actions of a catalogue of 1,000 items with eight numbers each, eight
numbers of context, every third rewarded: entries are decoded, joined and learned by the fold that a
learner runs. Goals: 5,000 interactions/s, and with VW half of what its command line does with the
same interactions as text; both end with the same weights. Then updates of LinUCB and LinTS of 64
features on one stream of rows, snapshot included: 10 x MABWiser, the faster of a row at a time and
256 at a time, and 10 x river, a row at a time; posterior means are the same. The first time it
installs both in an environment of their own in the user's cache (0.4 GB). Rounds alternate between
ours and theirs; a ratio is of the medians, its range that of single rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# read when numpy is imported, here and by the peers
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from vowpal_wabbit_next import TextFormatParser, Workspace

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.features.hashing import hash_feature
from bandits.log.codec import decode, digest, encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    CatalogueRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.types import ChosenRow, Namespace, Snapshot
from bandits.values import FeatureMap
from bandits.vw.config import VwConfig
from benchmarks.replay.peers_env import LEARNER_NEEDS, LEARNER_PEERS, Peers, peers, peers_python
from benchmarks.table import Table
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec
from serve_app.host.environment import collect_rarely

Floats = NDArray[np.float64]
Timed = Callable[[], tuple[float, Floats]]
"""Seconds, and the weights that were learned."""
SALT = b"benchmark"
DECISIONS, ROWS = 20_000, 5_000
ACTIONS, ITEMS, NUMBERS, FEATURES = 20, 1000, 8, 64
MANY = 256
LEAST, SHARE, TIMES = 5_000.0, 0.5, 10.0
VW_ARGS = "--cb_explore_adf --cb_type mtr -q cf"
RULE = JoinRule(window_s=60.0)
RIDGE = RidgeConfig(interactions=[("context", "features")])
USE: Any = ["context", "features"]
VW = PolicySpec("vw", use=USE, learner=VwConfig(VW_ARGS), exploration=EpsilonGreedy(), join=RULE)
RIDGES = {
    "LinTS": PolicySpec("lints", use=USE, learner=RIDGE, exploration=LinTs(), join=RULE),
    "LinUCB": PolicySpec("linucb", use=USE, learner=RIDGE, exploration=LinUcb(), join=RULE),
}
DRIVER = """
import sys, time
from vowpal_wabbit_next import run_cli_driver
began = time.perf_counter()
run_cli_driver(sys.argv[1:], onethread=True)
print(time.perf_counter() - began)
"""
"""VW's whole command line, without the start of its process."""


@dataclass(frozen=True)
class Case:
    """``theirs``: by name, the ways in which another library does the same.

    The goal is against the fastest.

    ``least``: the goal of ours a second; ``times``: of the ratio to theirs. ``same``: the largest
    difference of what was learned, relative to its largest number.
    """

    name: str
    rows: int
    ours: Timed
    theirs: Mapping[str, Timed] = field(default_factory=dict)
    least: float | None = None
    times: float | None = None
    same: float = 0.0


@dataclass(frozen=True)
class Peer:
    """Rows a second by round, the ratio of ours to it with its range, and the largest difference of the weights."""

    name: str
    rates: list[float]
    ratio: float
    low: float
    high: float
    difference: float
    same: bool


@dataclass(frozen=True)
class Outcome:
    """Rows a second by round, and of each peer."""

    name: str
    rows: int
    ours: list[float]
    theirs: list[Peer]
    least: float | None
    times: float | None
    reached: bool

    def __str__(self) -> str:
        goals = [f"{self.least:,.0f}/s"] if self.least else []
        goals += [f"{self.times:g} x the fastest of them"] if self.times else []
        said = f"goal {' and '.join(goals)}: {'reached' if self.reached else 'MISSED'}"
        lines = [f"{self.name:58s} {_spread(self.ours)}   {said}"]
        lines += [
            f"    {each.name:54s} {_spread(each.rates)}   x {each.ratio:.2f} ({each.low:.2f} to"
            f" {each.high:.2f})"
            f"   weights within {each.difference:.1e}{'' if each.same else ': NOT THE SAME'}"
            for each in self.theirs
        ]
        return "\n".join(lines)


def _spread(rates: Sequence[float]) -> str:
    return f"{np.median(rates):9,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})"


def measure(case: Case, rounds: int) -> Outcome:
    """All once untimed, and compared; then in turn."""
    learned = case.ours()[1]
    differences = {name: difference_of(learned, run()[1]) for name, run in case.theirs.items()}
    seconds = np.array(
        [[run()[0] for run in (case.ours, *case.theirs.values())] for _ in range(rounds)]
    )
    median, rates = np.median(seconds, axis=0), (case.rows / seconds).T.tolist()
    theirs = []
    for column, (name, difference) in enumerate(differences.items(), 1):
        ratios = seconds[:, column] / seconds[:, 0]
        ratio = float(median[column] / median[0])
        low, high = float(ratios.min()), float(ratios.max())
        theirs.append(
            Peer(name, rates[column], ratio, low, high, difference, difference < case.same)
        )
    reached = case.least is None or case.rows / float(median[0]) >= case.least
    reached &= case.times is None or min(each.ratio for each in theirs) >= case.times
    return Outcome(case.name, case.rows, rates[0], theirs, case.least, case.times, reached)


def difference_of(ours: Floats, theirs: Floats) -> float:
    """The largest difference, relative to the largest of theirs."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def numbers(
    rng: np.random.Generator, letter: str, parser: TextFormatParser
) -> tuple[str, FeatureMap]:
    """Features as VW's text, and as VW reads it: its parser is off by up to two of a float32's last digits.

    A last digit more is enough for weights that differ by 1e-4.
    """
    text = " ".join(
        f"{letter}{j}:{value}" for j, value in enumerate(rng.random(NUMBERS, np.float32))
    )
    read = parser.parse_line(f"|n {text}")[ord("n")].values
    return text, {
        f"{letter}{j}": float(value) for j, value in enumerate(np.array(read, np.float32))
    }


def make_decisions(
    rng: np.random.Generator,
    spec: PolicySpec,
    catalogue: Catalogue,
    contexts: Sequence[FeatureMap],
    propensity: float,
) -> list[DecisionRecord]:
    """Of one policy; the other actions share the rest of the probability."""
    decisions = []
    for i, context in enumerate(contexts):
        ids = [f"item{k}" for k in rng.choice(ITEMS, ACTIONS, replace=False)]
        chosen = [int(rng.integers(ACTIONS))]
        pmf = np.full((1, ACTIONS), (1 - propensity) / (ACTIONS - 1))
        pmf[0, chosen] = propensity
        decisions.append(
            DecisionRecord(
                f"{i:032x}",
                spec.name,
                spec.digest,
                "s",
                catalogue.digest,
                context,
                ids,
                None,
                {},
                pmf.tobytes(),
                chosen,
            )
        )
    return decisions


def reward_of(number: int) -> float:
    """Every third decision is rewarded."""
    return float(number % 3 == 0)


def make_log(
    spec: PolicySpec, catalogue: Catalogue, decisions: Sequence[DecisionRecord]
) -> list[tuple[str, bytes]]:
    """200 decisions a second and their rewards, encoded; the last entry closes all windows."""
    records: list[tuple[int, LogRecord]] = [
        (1, SpecRecord(spec.digest, digest(SALT))),
        (1, CatalogueRecord(catalogue.digest)),
    ]
    for i, decision in enumerate(decisions):
        at = 1000 + 5 * i
        records.append((at, decision))
        if reward := reward_of(i):
            records.append((at, RewardRecord(decision.event_id, reward, "r")))
    records.append((1000 + 5 * len(decisions) + 120_000, TickRecord()))
    return [(f"{at}-{number}", encode(record)) for number, (at, record) in enumerate(records)]


def write_text(
    path: Path,
    items: Mapping[str, str],
    contexts: Sequence[str],
    decisions: Sequence[DecisionRecord],
) -> None:
    """The same interactions as VW's text."""
    with path.open("w") as file:
        for i, (context, decision) in enumerate(zip(contexts, decisions, strict=True)):
            file.write(f"shared |context {context}\n")
            for k, name in enumerate(decision.action_ids):
                label = f"0:{-reward_of(i)}:{1 / ACTIONS} " if k == decision.chosen[0] else ""
                file.write(f"{label}|features {items[name]}\n")
            file.write("\n")


def folded(
    spec: PolicySpec, catalogue: Catalogue, log: Sequence[tuple[str, bytes]]
) -> tuple[float, Floats]:
    """Decode the log and learn from it, with a snapshot at the end."""
    blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
    began = time.perf_counter()
    fold = Fold(blobs.__getitem__, salt=SALT)
    fold.apply(LogEntry(position, decode(data)) for position, data in log)
    snapshot = fold.snapshot()
    seconds = time.perf_counter() - began
    assert fold.learned == DECISIONS  # noqa: S101
    return seconds, vw_weights(snapshot) if spec is VW else ridge_weights(snapshot)


def vw_weights(snapshot: Snapshot) -> Floats:
    """By index; of a snapshot that holds those that are not 0."""
    payload = msgspec.msgpack.decode(snapshot.payload)
    weights = np.zeros(1 << 18)
    weights[np.frombuffer(payload["indices"], "<u4")] = np.frombuffer(payload["values"], "<f4")
    return weights


def ridge_weights(snapshot: Snapshot) -> Floats:
    """In the order in which the features were met."""
    return np.frombuffer(msgspec.msgpack.decode(snapshot.payload)["weights"])


def driven(text: Path, model: Path) -> tuple[float, Floats]:
    """VW's command line reads the text, in a process of its own, and saves a model."""
    command = [
        sys.executable,
        "-c",
        DRIVER,
        *VW_ARGS.split(),
        "--quiet",
        "-d",
        str(text),
        "-f",
        str(model),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    workspace: Workspace[bool] = Workspace(
        [*VW_ARGS.split(), "--quiet"], model_data=model.read_bytes()
    )
    return float(done.stdout), workspace.weights()[:, 0, 0].astype(np.float64)


def learner_cases(folder: Path) -> Iterator[Case]:
    """Whole interactions, from a log."""
    rng, parser = (
        np.random.default_rng(0),
        TextFormatParser(Workspace([*VW_ARGS.split(), "--quiet"])),
    )
    propensity = parser.parse_line(f"0:0:{1 / ACTIONS} |n x").get_label().label[2]
    items = {f"item{k}": numbers(rng, "f", parser) for k in range(ITEMS)}
    catalogue = Catalogue([Item(name, features) for name, (_, features) in items.items()])
    texts, contexts = zip(*(numbers(rng, "c", parser) for _ in range(DECISIONS)), strict=True)
    decisions = make_decisions(rng, VW, catalogue, contexts, propensity)
    write_text(
        folder / "log.txt", {name: text for name, (text, _) in items.items()}, texts, decisions
    )
    yield Case(
        f"learner: VW, interactions, {ACTIONS} actions",
        DECISIONS,
        partial(folded, VW, catalogue, make_log(VW, catalogue, decisions)),
        {"VW's command line, from a file": partial(driven, folder / "log.txt", folder / "model")},
        LEAST,
        SHARE,
        1e-4,
    )
    for name, spec in RIDGES.items():
        log = make_log(spec, catalogue, make_decisions(rng, spec, catalogue, contexts, propensity))
        task = f"learner: {name}, interactions, {ACTIONS} actions"
        yield Case(task, DECISIONS, partial(folded, spec, catalogue, log), least=LEAST)


def updated(name: str, rows: Sequence[Namespace], rewards: Sequence[float]) -> tuple[float, Floats]:
    """Updates of one model, and one snapshot."""
    learner = RidgeLearner(
        RidgeConfig(action_bias=False),
        draws=LinTs().draws if name == "LinTS" else 0,
        uncertainty=name == "LinUCB",
    )
    began = time.perf_counter()
    for row, reward in zip(rows, rewards, strict=True):
        learner.learn_row(ChosenRow("one", (), (row,), reward))
    snapshot = learner.snapshot("1-0")
    return time.perf_counter() - began, ridge_weights(snapshot)


def asked_for(asked: Peers, name: str, **arguments: Any) -> tuple[float, Floats]:
    """What a peer learned, as an array."""
    seconds, found = asked.run(name, **arguments)
    return seconds, np.array(found)


def update_cases(folder: Path, asked: Peers) -> Iterator[Case]:
    """Rows of 64 numbers, of which the first is the intercept, with one prior.

    Ours have their features hashed.
    """
    rng = np.random.default_rng(1)
    features = rng.normal(size=(ROWS, FEATURES)).astype(np.float32).astype(np.float64)
    features[:, 0] = 1.0
    rewards = features @ rng.normal(size=FEATURES) / FEATURES + rng.normal(size=ROWS)
    save_file({"features": features, "reward": rewards}, folder / "rows.safetensors")
    hashes = np.array([hash_feature("features", f"x{j}") for j in range(1, FEATURES)], np.uint32)
    rows = [Namespace("features", hashes, row) for row in features[:, 1:].astype(np.float32)]
    for policy, library in (("LinUCB", "MABWiser"), ("LinTS", "MABWiser"), ("LinUCB", "river")):
        theirs = {
            "river, a row at a time": partial(
                asked_for, asked, "river_updates", rows="rows.safetensors"
            )
        }
        if library == "MABWiser":
            run = partial(
                asked_for, asked, "mabwiser_updates", rows="rows.safetensors", policy=policy
            )
            theirs = {
                "MABWiser, a row at a time": partial(run, batch=1),
                f"MABWiser, {MANY}": partial(run, batch=MANY),
            }
        ours = partial(updated, policy, rows, rewards.tolist())
        yield Case(
            f"{policy}: updates, d = {FEATURES}, beside {library}",
            ROWS,
            ours,
            theirs,
            None,
            TIMES,
            1e-6,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run all; exit 1 if a goal is missed or weights differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    given = parser.parse_args(argv)
    collect_rarely()  # as the learner's process does
    python = peers_python(LEARNER_PEERS, LEARNER_NEEDS)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with peers(python, folder) as asked:
            versions = asked.run("versions", names=["mabwiser", "river", "scikit-learn"])[1]
            for case in (*learner_cases(folder), *update_cases(folder, asked)):
                if given.only in case.name:
                    outcomes.append(measure(case, given.rounds))
                    print(outcomes[-1], flush=True)
    versions |= {each: version(each) for each in ("numba", "numpy", "vowpal-wabbit-next")}
    print(
        f"load {os.getloadavg()[0]:.2f};"
        f" {', '.join(f'{each} {number}' for each, number in versions.items())}\n"
    )
    table = Table()
    for each in outcomes:
        rate = statistics.median(each.ours)
        if each.least is not None:
            table.add(f"{each.name}, per s", f"{rate:,.0f}", rate, at_least=each.least)
        if each.times is not None:
            ratio = min(peer.ratio for peer in each.theirs)
            table.add(f"{each.name}, ratio", f"{ratio:.2f}", ratio, at_least=each.times)
        if not all(peer.same for peer in each.theirs):
            raise SystemExit(f"{each.name}: what was learned is not the same")
    command = " ".join(["python", *sys.argv])
    return table.finish(
        given.out,
        command=command,
        versions=versions,
        outcomes=[asdict(outcome) for outcome in outcomes],
    )


if __name__ == "__main__":
    sys.exit(main())
