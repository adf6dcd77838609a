"""Handwritten digits as a bandit's log: a classifier's known value is found from the log alone.

The reduction of classification to bandits: Dudik, Langford & Li 2011 (arXiv:1103.4601), section
5.1. Actions are the ten digits, the reward is 1 for the right one. Two classifiers, each followed
most of the time, else a digit at random, are the logging and the target policy; the target's true
value is its mean probability of the right digit.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from bandits.types import Float64
from simulator.logs.rows import LogBatch, LoggedDecision, batch_of
from simulator.ope.targets import RowTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

IDS = [str(digit) for digit in range(10)]
SEEDS = 4

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


class Rows:
    """A log of rows that are there already."""

    skipped = 0

    def __init__(self, rows: list[LoggedDecision]) -> None:
        self.rows = rows

    def batches(self) -> Iterator[LogBatch]:
        yield batch_of(self.rows)


class Classifier(RowTarget):
    """A policy whose PMF of each row was made beforehand."""

    def __init__(self, pmfs: Float64) -> None:
        super().__init__("classifier")
        self._pmfs = pmfs

    def pmf(self, row: LoggedDecision) -> Float64:
        return self._pmfs[int(row.event_id)]


def followed(predictions: np.ndarray, share: float) -> Float64:
    """float64[n, 10]: the predicted digit with this probability, else any."""
    pmfs = np.full((len(predictions), 10), (1.0 - share) / 10)
    pmfs[np.arange(len(predictions)), predictions] += share
    return pmfs


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    """Relative errors by estimator, one per seed of the logging policy's draws."""
    x, y = load_digits(return_X_y=True)
    x_fit, x_log, y_fit, y_log = train_test_split(x / 16.0, y, test_size=0.7, random_state=0)
    logging = followed(LogisticRegression(max_iter=1000).fit(x_fit, y_fit).predict(x_log), 0.8)
    target = followed(
        RandomForestClassifier(n_estimators=50, random_state=0).fit(x_fit, y_fit).predict(x_log),
        0.9,
    )
    truth = float(target[np.arange(len(y_log)), y_log].mean())
    found: dict[str, list[float]] = {"ips": [], "dr": []}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        rows = []
        for number, (pixels, digit, pmf) in enumerate(zip(x_log, y_log, logging, strict=True)):
            chosen = int(rng.choice(10, p=pmf))
            context = {f"p{at}": float(value) for at, value in enumerate(pixels) if value}
            reward = float(chosen == digit)
            rows.append(
                LoggedDecision(
                    str(number), context, IDS, chosen, float(pmf[chosen]), reward, pmf=pmf
                )
            )
        report = evaluate(OpeQuestion([Classifier(target)], tuple(found), bits=9), [Rows(rows)])
        for name, estimate in report.results[0].estimates.items():
            found[name].append(abs(estimate.value - truth) / truth)
    return found


@pytest.mark.parametrize("name", ["ips", "dr"])
def test_the_target_classifiers_value_is_found_from_the_log(errors, name):
    assert len(errors[name]) == SEEDS
    assert max(errors[name]) < 0.05, errors[name]
