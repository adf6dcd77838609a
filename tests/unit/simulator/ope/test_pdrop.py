"""Logs that left decisions out by chance: each row stands for 1 / (1 - pdrop) decisions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import ReplayError
from bandits.statistics.intervals import Anytime, Bernstein, Bootstrap
from simulator.logs.formats import open_log
from simulator.ope.batch import OpeBatch
from simulator.ope.comparisons import Difference
from simulator.ope.estimators import make_estimator
from simulator.ope.formulas import FORMULAS
from simulator.ope.targets import LoggingTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

ALL = tuple(FORMULAS)


def rows(n: int = 600, seed: int = 0) -> OpeBatch:
    rng = np.random.default_rng(seed)
    propensity = rng.uniform(0.2, 0.8, n)
    return OpeBatch(
        keys=rng.integers(0, 2**63, n).astype(np.uint64),
        reward=rng.random(n),
        propensity=propensity,
        target=propensity * rng.uniform(0.5, 1.5, n),
        predicted=rng.random(n),
        expected=rng.random(n),
    )


def repeated(batch: OpeBatch, times) -> OpeBatch:
    names = ("keys", "reward", "propensity", "target", "predicted", "expected")
    return OpeBatch(**{name: np.repeat(getattr(batch, name), times) for name in names})


def estimate(name, batch, interval=None, **options):
    each = make_estimator(name, counted=batch.counts is not None, **options)
    each.update(batch)
    return each.estimate() if interval is None else each.estimate(interval)


@pytest.mark.parametrize("name", ALL)
def test_a_row_counts_as_often_as_the_decisions_it_stands_for(name):
    """The value is that of the log with each row repeated.

    The standard error is that of the rows there are.
    """
    times = np.tile([1, 2, 5], 200)
    found = estimate(name, replace(rows(), counts=times.astype(float)))
    other = estimate(name, repeated(rows(), times))
    assert found.value == pytest.approx(other.value, rel=1e-12)
    assert found.clipped_fraction == pytest.approx(other.clipped_fraction, rel=1e-9)
    assert found.n == 600
    assert found.stderr > 1.2 * other.stderr
    assert found.ess < other.ess


@pytest.mark.parametrize("name", ALL)
def test_where_every_row_counts_alike_nothing_changes(name):
    plain, counted = rows(), replace(rows(), counts=np.full(600, 4.0))
    for interval in (None, Bernstein(), Anytime(), Bootstrap()):
        options = {"replicates": 200} if isinstance(interval, Bootstrap) else {}
        one, other = (
            estimate(name, plain, interval, **options),
            estimate(name, counted, interval, **options),
        )
        assert (other.value, other.stderr, *other.interval) == pytest.approx(
            (one.value, one.stderr, *one.interval), rel=1e-9
        )
        assert (other.ess, other.verdict) == (pytest.approx(one.ess), one.verdict)


def test_differences_count_alike():
    times = np.tile([1, 2, 5], 200)
    batch = replace(rows(), counts=times.astype(float))
    other = replace(batch, target=batch.propensity)
    found = Difference(FORMULAS["snips"](), counted=True)
    found.update(batch, other)
    values = [estimate("snips", each).value for each in (batch, other)]
    assert found.compare().difference == pytest.approx(values[0] - values[1], rel=1e-12)


def test_intervals_hold_the_truth_although_good_hours_were_dropped():
    """Rewards are high where 9 of 10 decisions are dropped.

    95% of 400 logs, less 2.3 standard errors.
    """
    rng, held, unweighted = np.random.default_rng(0), 0, 0
    for _ in range(400):
        good = rng.random(1500) < 0.5
        chosen = rng.random(1500) < 0.7
        reward = (rng.random(1500) < np.where(good, 0.8, 0.2) + 0.1 * chosen).astype(float)
        pdrop = np.where(good, 0.9, 0.0)
        kept = rng.random(1500) >= pdrop
        propensity = np.where(chosen, 0.7, 0.3)[kept]
        batch = OpeBatch(
            np.arange(kept.sum(), dtype=np.uint64),
            reward[kept],
            propensity,
            np.full(kept.sum(), 0.5),
        )
        found = estimate("ips", replace(batch, counts=1.0 / (1.0 - pdrop[kept])))
        held += found.interval[0] <= 0.55 <= found.interval[1]
        low, high = estimate("ips", batch).interval
        unweighted += low <= 0.55 <= high
    assert held / 400 >= 0.925
    assert unweighted / 400 < 0.05


def test_a_log_in_dsjson_is_weighed_by_its_pdrop(tmp_path):
    rng, lines, sums = np.random.default_rng(0), [], np.zeros(2)
    for number in range(500):
        chosen, pdrop = int(rng.integers(2)), (0.0, 0.75)[number % 2]
        reward = float(rng.random() < 0.2 + 0.6 * (number % 2))
        sums += np.array([reward, 1.0]) / (1.0 - pdrop)
        line = {
            "_label_cost": -reward,
            "_label_probability": 0.5,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
        }
        line |= {
            "EventId": f"e{number}",
            "pdrop": pdrop,
            "a": [chosen + 1, 2 - chosen],
            "p": [0.5, 0.5],
        }
        lines.append(
            json.dumps(line | {"c": {"odd": number % 2, "_multi": [{"x": "a"}, {"x": "b"}]}})
        )
    (tmp_path / "log").write_text("\n".join(lines))
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget()]), open_log(str(tmp_path / "log"), "dsjson")
    )
    assert report.log.mean_reward == pytest.approx(sums[0] / sums[1])
    assert (report.log.rows, report.log.decisions) == (500, pytest.approx(1250.0))
    for result in report.results:
        assert tuple(result.estimates) == ALL
        for name, found in result.estimates.items():
            assert found.value == pytest.approx(
                sums[0] / sums[1], abs=1e-9 if "ips" in name else 0.02
            )
    assert report.charts is not None
    assert sum(each.share for each in report.charts.actions) == pytest.approx(1.0)


def test_an_estimator_of_plain_rows_does_not_merge_with_one_of_counted_rows():
    plain, counted = make_estimator("ips"), make_estimator("ips", counted=True)
    with pytest.raises(ReplayError, match="cannot merge"):
        plain.merge(counted)
