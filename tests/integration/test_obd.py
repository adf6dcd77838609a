"""The Open Bandit Dataset's sample, campaign men: what others have computed comes out."""

from pathlib import Path

import numpy as np
import pytest

from simulator.data import datasets
from simulator.logs.formats import open_log
from simulator.ope.table_target import TableTarget
from simulator.ope.targets import LoggingTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

# Beta priors of the campaign's Bernoulli Thompson sampling, as Open Bandit Pipeline ships them
# (prior_bts.yaml, men).
ALPHA = "47 8 62 142 3 6 100 48 23 71 61 13 16 518 30 7 4 23 8 10 11 11 18 121 11 4 32 30 9 22 6 23 5 54"
BETA = (
    "12198 3566 15993 35522 2367 3100 24665 13210 7061 18061 17449 5644 6787 111326 8776 3334"
    " 2271 7389 2659 3665 4724"
    " 3561 5085 27407 4601 2923 8897 8654 4000 6580 3174 6766 2602 14506"
)
DRAWS = 100_000


@pytest.fixture(scope="module")
def obd() -> Path:
    return datasets.get("obd")


@pytest.fixture(scope="module")
def thompson(tmp_path_factory) -> TableTarget:
    """How often each item comes first, second and third among draws from the priors."""
    alpha, beta = (np.array(text.split(), float) for text in (ALPHA, BETA))
    drawn = np.random.default_rng(12345).beta(alpha, beta, (DRAWS, len(alpha)))
    first = np.argsort(-drawn, axis=1)[:, :3]
    path = tmp_path_factory.mktemp("table") / "bts.csv"
    lines = ["position,action,probability"]
    for place in range(3):
        shares = np.bincount(first[:, place], minlength=len(alpha)) / DRAWS
        lines += [f"{place + 1},{item},{share}" for item, share in enumerate(shares)]
    path.write_text("\n".join(lines))
    return TableTarget(path)


def within(value: float, expected: float, relative: float = 0.01) -> bool:
    """The table is a sample: its standard error moves the estimates by about a third of a percent."""
    return abs(value - expected) <= relative * expected


@pytest.mark.timeout(300)
def test_the_random_log_tells_what_thompson_sampling_earns(obd, thompson):
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget(), thompson]),
        open_log(str(obd / "random" / "men"), "obd"),
    )
    assert report.log.rows == 10_000
    assert report.log.mean_reward == pytest.approx(0.0046, abs=1e-12)
    logging, uniform, bts = (result.estimates for result in report.results)
    assert uniform["ips"].value == pytest.approx(0.0046, rel=1e-9)
    assert within(bts["ips"].value, 0.004534)
    assert within(bts["snips"].value, 0.004604)
    assert within(bts["ips"].ess, 2467)
    assert set(logging) == {"ips", "clipped_ips", "snips"}  # the data set has no PMFs
    low, high = bts["dr"].interval
    assert low < bts["snips"].value < high
    assert bts["ips"].verdict == "weak"  # fifteen clicks' worth carry it
    assert report.winner is None


@pytest.mark.timeout(300)
def test_the_log_of_thompson_sampling_tells_what_chance_earns(obd):
    pieces = open_log(str(obd / "bts" / "men"), "obd", shards=5)
    assert len(pieces) > 1
    report = evaluate(
        OpeQuestion([LoggingTarget(), UniformTarget()], estimators=["ips", "snips"]), pieces
    )
    assert report.log.mean_reward == pytest.approx(0.0069, abs=1e-12)
    chance = report.results[1].estimates
    assert chance["ips"].value == pytest.approx(0.003009, abs=5e-7)
    assert chance["snips"].value == pytest.approx(0.003189, abs=5e-7)
    assert chance["ips"].ess == pytest.approx(656, abs=0.5)
