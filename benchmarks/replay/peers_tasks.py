"""The tasks of replay_peers.py: rows made up from a seed, and what this project does with them."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from vowpal_wabbit_next import run_cli_driver

from bandits.exploration import LinUcb
from bandits.ridge.config import RidgeConfig
from bandits.statistics.intervals import Bootstrap, Normal
from bandits.vw.log_reader import LogFormat
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive, vw_progressive
from simulator.logs.rows import LogBatch, LoggedDecision, batch_of
from simulator.ope.batch import ope_batch_from_pmfs
from simulator.ope.estimators import make_estimator, update_all
from simulator.ope.formulas import FORMULAS
from simulator.ope.hashed_features import features_from_columns
from simulator.ope.reward_model import RewardModel

Floats = NDArray[np.float64]
Numbers = dict[str, list[float]]
OPE_ROWS = LOGGED = 10_000
"""Rows of the estimators' tasks, and of VW's logs."""
SHORT = 500
"""Of VW's logs what MABWiser is given, which takes 6 ms a row."""
BATCH = 100
"""Rows between two models."""
PARAMETERS = {"clipped_ips": {"clip": 10.0}, "switch_dr": {"tau": 10.0}, "dros": {"lambda_": 100.0}}
"""Of the estimators that limit weights; ours by default."""
VW_ARGS = "--cb_explore_adf -q ui --epsilon 0.1"
COBA_ARGS = "--cb_explore_adf --interactions xa --epsilon 0.1 --quiet"
"""The same; coba calls the namespaces x and a."""


def write_tasks(folder: Path) -> None:
    """All of the data, as safetensors and as VW's logs."""
    rng = np.random.default_rng(0)
    for actions in (10, 100):
        save_file(pmf_rows(rng, OPE_ROWS, actions), folder / f"ope_{actions}.safetensors")
    save_file(linear_rows(rng, np.eye(10)), folder / "linear_10.safetensors")
    save_file(
        linear_rows(rng, rng.integers(0, 64, (100, 5)) / 64.0), folder / "linear_100.safetensors"
    )
    write_vw_logs(rng, folder, LOGGED)


def pmf_rows(rng: np.random.Generator, rows: int, actions: int) -> dict[str, NDArray[Any]]:
    """PMFs of a logging and a target policy and a model's predictions, float64[n, K].

    Chosen, reward and keys, [n].
    """
    logging, target = (softmax(scale * rng.normal(size=(rows, actions))) for scale in (1.0, 1.5))
    mean = 0.2 * rng.random((rows, actions))
    chosen = drawn(rng, logging)
    return {
        "logging": logging,
        "target": target,
        "predicted": 0.8 * mean + 0.02,
        "chosen": chosen,
        "reward": (rng.random(rows) < mean[np.arange(rows), chosen]).astype(np.float64),
        "keys": rng.integers(0, 2**63, rows).astype(np.uint64),
    }


def linear_rows(
    rng: np.random.Generator, items: Floats, rows: int = 2000 + BATCH, features: int = 10
) -> dict[str, Any]:
    """A log over K items, float64[K, F], chosen by PMFs that do not look at the context, float64[n, 10]."""
    context = rng.integers(0, 64, (rows, features)) / 64.0  # a float32 holds them
    score = context @ rng.normal(size=(features, items.shape[1])) @ items.T
    pmfs = 0.5 * rng.dirichlet(np.full(len(items), 3.0), rows) + 0.5 / len(items)
    chosen, at = drawn(rng, pmfs), np.arange(rows)
    return {
        "items": items,
        "context": context,
        "chosen": chosen,
        "propensity": pmfs[at, chosen],
        "reward": (rng.random(rows) < 1.0 / (1.0 + np.exp(-score[at, chosen]))).astype(np.float64),
    }


def write_vw_logs(rng: np.random.Generator, folder: Path, rows: int) -> None:
    """The same decisions as VW's text, as its JSON and, the first of them, as arrays.

    A user and an hour, 10 actions with a price. MABWiser's arms have no features.
    """
    text, lines = [], []
    contexts, chosens, rewards = [], [], []
    for number in range(rows):
        user, hour, chosen = int(rng.integers(4)), int(rng.integers(24)) / 24, int(rng.integers(10))
        cost = -float(rng.random() < (0.5 if chosen % 4 == user else 0.1))
        contexts.append([*(float(k == user) for k in range(4)), hour])
        chosens.append(chosen)
        rewards.append(-cost)
        items = [{f"a{k}": 1.0, "price": k / 10} for k in range(10)]
        text.append(f"shared |u u{user} hour:{hour:.4f}\n")
        for k, item in enumerate(items):
            label = f"0:{cost}:0.1 " if k == chosen else ""
            text.append(
                f"{label}|i {' '.join(f'{name}:{value}' for name, value in item.items())}\n"
            )
        text.append("\n")
        line = {
            "_label_cost": cost,
            "_label_probability": 0.1,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
            "EventId": f"e{number}",
            "a": [chosen + 1, *(k + 1 for k in range(10) if k != chosen)],
            "c": {
                "u": {f"u{user}": 1.0, "hour": round(hour, 4)},
                "_multi": [{"i": item} for item in items],
            },
            "p": [0.1] * 10,
        }
        lines.append(json.dumps(line) + "\n")
    short = SHORT + 1  # MABWiser wants a row to train on before it starts
    for kind, written in (("txt", text), ("json", lines)):
        records = len(written) // rows
        (folder / f"log.{kind}").write_text("".join(written))
        (folder / f"short.{kind}").write_text("".join(written[: SHORT * records]))
    table = {
        "context": np.array(contexts[:short]),
        "items": np.eye(10),
        "chosen": np.array(chosens[:short]),
    }
    save_file(table | {"reward": np.array(rewards[:short])}, folder / "short.safetensors")


def ours_ope(
    path: Path, *, names: Sequence[str] = tuple(FORMULAS), replicates: int = 0, bounds: bool = True
) -> Callable[[], Numbers]:
    """Each estimator's value and, with ``bounds``, its interval, which is computed in any case, as verdicts are."""
    data = load_file(path)
    predicted = data["predicted"] if len(names) == len(FORMULAS) else None

    def run() -> Numbers:
        batch = ope_batch_from_pmfs(
            data["keys"], data["reward"], data["chosen"], data["logging"], data["target"], predicted
        )
        asked = {
            name: make_estimator(name, replicates=replicates, **PARAMETERS.get(name, {}))
            for name in names
        }
        update_all(asked.values(), batch)
        found = {}
        for name, each in asked.items():
            estimate = each.estimate(Bootstrap() if replicates else Normal())
            found[name] = [estimate.value, *(estimate.interval if bounds else ())]
        return found

    return run


@dataclass
class Rows:
    """A piece of rows that are there already."""

    rows: list[LoggedDecision]
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        """All of them."""
        yield batch_of(self.rows)


def ours_progressive(path: Path, count: int, publish_every: int) -> Callable[[], float]:
    """The IPS value of LinUCB over the context, the items' features and their products, which learns from the log.

    That is what coba calls 1, x, a and xa, with the same prior. Items and their features are a
    catalogue.
    """
    data = load_file(path)
    items = data["items"]
    ids = tuple(f"item{k}" for k in range(len(items)))
    features = [{f"a{j}": float(value) for j, value in enumerate(item)} for item in items]
    catalogue = Catalogue.of(
        [{"id": name, "features": each} for name, each in zip(ids, features, strict=True)]
    )
    rows = [
        LoggedDecision(
            str(number),
            {f"x{j}": value for j, value in enumerate(data["context"][number].tolist())},
            ids,
            int(data["chosen"][number]),
            float(data["propensity"][number]),
            float(data["reward"][number]),
            catalogue=catalogue,
        )
        for number in range(count)
    ]
    spec = PolicySpec(
        "linucb",
        use=["context", "features"],
        learner=RidgeConfig(
            action_bias=False, interactions=[("context", "features")], max_features=1024
        ),
        exploration=LinUcb(1.0),
        floor=0.0,
    )
    return lambda: progressive(spec, [Rows(rows)], publish_every=publish_every).ips


def vw_loss(path: Path, log_format: LogFormat) -> float:
    """The average loss of progressive replay."""
    return vw_progressive(path, VW_ARGS, log_format).average_loss


def vw_value(path: Path, log_format: LogFormat) -> float:
    """The IPS value of the same."""
    return -vw_loss(path, log_format)


def driver_loss(path: Path, log_format: LogFormat) -> float:
    """The average loss that VW prints."""
    words = [*VW_ARGS.split(), "-d", str(path), *(["--dsjson"] if log_format == "dsjson" else [])]
    found = re.search(r"average loss = (\S+)", run_cli_driver(words, onethread=True)[0])
    return math.nan if found is None else float(found[1])


def digits_error(found: Mapping[str, Any], again: int = 10) -> dict[str, tuple[float, float]]:
    """Relative error and standard error of IPS and DR on scikit-learn's digits, where the target's value is known.

    Classification as a bandit (Dudik, Langford & Li 2011, arXiv:1103.4601, section 4.1): the
    actions are the digits, the reward is 1 for the right one. Each policy takes its classifier's
    digit, the logging one with probability 0.5 and the target one with 0.9, and otherwise any. Each
    picture is logged ``again`` times. The reward model of DR is this project's, on pixels by digit.
    """
    rng = np.random.default_rng(0)
    pixels, digit = (
        np.repeat(np.array(found[name]), again, axis=0) for name in ("pixels", "digit")
    )
    logging, target = (
        share * np.eye(10)[np.repeat(found[name], again)] + (1.0 - share) / 10
        for name, share in (("logging", 0.5), ("target", 0.9))
    )
    truth = float(target[np.arange(len(digit)), digit].mean())
    chosen = drawn(rng, logging)
    reward = (chosen == digit).astype(np.float64)
    # a picture is in one fold
    keys = np.repeat(rng.integers(0, 2**63, len(digit) // again), again).astype(np.uint64)
    columns = np.arange(10)[:, None] * pixels.shape[1] + np.arange(pixels.shape[1])
    model = RewardModel(bits=10)
    model.update(features_from_columns(columns[chosen], pixels), reward, keys)
    shown = np.broadcast_to(pixels[:, None], (len(pixels), 10, pixels.shape[1]))
    predicted = model.fit().predict(
        features_from_columns(np.broadcast_to(columns, shown.shape), shown), keys
    )
    batch = ope_batch_from_pmfs(keys, reward, chosen, logging, target, predicted)
    errors = {}
    for name in ("ips", "dr"):
        each = make_estimator(name)
        each.update(batch)
        estimate = each.estimate()
        errors[name] = abs(estimate.value - truth) / truth, estimate.stderr / truth
    return errors


def softmax(scores: Floats) -> Floats:
    """float64[n, K]: rows that sum to 1."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = weights / weights.sum(axis=1, keepdims=True)
    return shares


def drawn(rng: np.random.Generator, pmfs: Floats) -> NDArray[np.int64]:
    """int64[n]: an action from each row's PMF."""
    passed = (rng.random((len(pmfs), 1)) > pmfs.cumsum(axis=1)).sum(axis=1)
    chosen: NDArray[np.int64] = np.minimum(passed, pmfs.shape[1] - 1)
    return chosen
