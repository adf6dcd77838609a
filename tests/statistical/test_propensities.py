"""The logged propensity is the sampling probability, in 10,000 decisions per kind of policy.

All seeds are fixed; the runs are made two at a time, and shared. An audit's false-alarm rate is at
most 1e-4, whatever the number of decisions and the floor.
"""

from collections.abc import Iterator
from concurrent.futures import Future

import msgspec
import numpy as np
import pytest
from support.strategies import THOROUGH
from support.towns import SPECS, K, logs_of

from bandits.decide import PURPOSE_ACTION, uniform
from bandits.kernels.actions import draw
from bandits.log.records import DecisionRecord, LogEntry
from policies.spec import PolicySpec
from simulator.doctor.audit import audit
from simulator.worlds.loop import SALT

ROUNDS = 10_000
KINDS = [name for name in SPECS if THOROUGH or name not in {"linucb", "vw bag"}]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[list[LogEntry]]]]:
    with logs_of(KINDS, ROUNDS, seed=5) as logs:
        yield logs


def decisions(log: list[LogEntry]) -> list[DecisionRecord]:
    return [entry.record for entry in log if isinstance(entry.record, DecisionRecord)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_the_log_of_a_learning_policy_is_sound(runs, kind):
    result = audit(decisions(runs[kind].result()), salt=SALT)
    assert result.decisions == result.rederived == ROUNDS
    assert result.stderr > 0
    assert result.sound, result


@pytest.fixture(scope="module")
def honest(runs) -> list[DecisionRecord]:
    return decisions(runs["softmax"].result())


def test_a_propensity_that_is_not_the_sampling_probability_is_caught(honest):
    """Logs the PMF of another temperature than was drawn from, as a second computation might."""

    def claims(record: DecisionRecord) -> DecisionRecord:
        sharper = record.pmfs() ** 1.3
        return msgspec.structs.replace(record, pmf=(sharper / sharper.sum()).tobytes())

    result = audit(map(claims, honest), salt=SALT)
    assert not result.sound
    assert abs(result.z) > 4  # by the weights alone
    assert result.rederived < result.decisions  # and by the draws


def test_an_error_of_two_percent_is_caught(honest):
    """Uniform mass of 2% that was drawn but not logged."""

    def claims(record: DecisionRecord) -> DecisionRecord:
        pmf = record.pmfs()[0]
        logged = (pmf - 0.02 / K) / 0.98 if pmf.min() > 0.02 / K else pmf
        return msgspec.structs.replace(record, pmf=logged[None].tobytes())

    assert not audit(map(claims, honest), salt=SALT).sound


def test_a_draw_by_another_salt_is_caught(honest):
    result = audit(honest, salt=b"not the one")
    assert not result.sound
    assert result.rederived < result.decisions


def test_a_choice_changed_after_the_draw_is_caught(honest):
    """Swaps the best item in behind the policy's back, once in a hundred decisions."""
    tampered = [
        msgspec.structs.replace(r, chosen=[int(r.pmfs()[0].argmax())]) if i % 100 == 0 else r
        for i, r in enumerate(honest)
    ]
    assert not audit(tampered, salt=SALT).sound


def test_a_short_log_with_small_propensities_is_no_false_alarm():
    """100 decisions at floor 2% over 100 actions: the sample's standard error would cry wolf."""
    spec = PolicySpec("short")
    pmf = np.full(100, 0.02 / 100)
    pmf[0] += 0.98
    for seed in range(200):
        records = []
        for number in range(100):
            event_id = f"{seed}-{number}"
            index = draw(pmf, uniform(SALT, spec.name, event_id, 0, PURPOSE_ACTION))
            records.append(
                DecisionRecord(
                    event_id,
                    spec.name,
                    "",
                    "",
                    "",
                    {},
                    [f"i{k}" for k in range(100)],
                    None,
                    {},
                    pmf.tobytes(),
                    [index],
                )
            )
        assert audit(records, salt=SALT).sound


def test_the_policy_learns_while_it_is_audited(honest):
    """Its share of best choices over the last quarter exceeds one half.

    By chance it would be 1/6.
    """
    last = honest[-ROUNDS // 4 :]
    best = [
        r.action_ids[r.chosen[0]] == ("item0" if r.context["kind"] == "0" else "item5")
        for r in last
    ]
    assert np.mean(best) > 0.5


def test_no_rewards_is_no_error():
    assert not audit([], salt=SALT).sound  # nothing was shown
