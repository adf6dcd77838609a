"""The logged propensity is the sampling probability: 20,000 decisions of a learning loop per kind of policy.

All seeds are fixed. An audit's false-alarm rate is at most 1e-4, whatever the number of decisions and the floor.
"""

import msgspec
import numpy as np
import pytest

from bandits.decide import PURPOSE_ACTION, draw, uniform
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, Softmax, SquareCB, VwExploration
from bandits.join import JoinRule
from bandits.records import DecisionRecord
from bandits.ridge import RidgeConfig
from policies.ranker import Pool, RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource, VwConfig
from simulator.audit import audit
from simulator.loop import SALT, Timing, run_loop

ROUNDS = 20_000
K = 6
BASE = PolicySpec(
    "p", learner=RidgeConfig(interactions=[("context", "features")]), floor=0.1, join=JoinRule(window_s=20)
)
VW = VwConfig("--cb_explore_adf --cb_type mtr -b 12 -q cf")
SOURCES = [RemoteSource("cf", "http://x"), RemoteSource("deep", "http://x")]
SPECS = {
    "lints": msgspec.structs.replace(BASE, exploration=LinTs(draws=30)),
    "linucb": msgspec.structs.replace(BASE, exploration=LinUcb()),
    "softmax": msgspec.structs.replace(BASE, exploration=Softmax(temperature=0.1)),
    "vw squarecb": msgspec.structs.replace(BASE, learner=VW, exploration=SquareCB()),
    "vw bag": msgspec.structs.replace(
        BASE, learner=VwConfig("--cb_explore_adf -b 12 --bag 3 -q cf"), exploration=VwExploration()
    ),
    "mixture": msgspec.structs.replace(BASE, kind="mixture", sources=SOURCES, exploration=EpsilonGreedy(0.2)),
    "holdout": msgspec.structs.replace(BASE, exploration=EpsilonGreedy(), holdout=Holdout(0.3)),
}


class Towns:
    """Two kinds of user, six items, two sources that know a little; rewards are 0 or 1."""

    chances = np.array([[0.6, 0.4, 0.2, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2, 0.4, 0.6]])

    def request(self, rng: np.random.Generator) -> RankRequest:
        kind = str(rng.integers(2))
        return RankRequest(user_id=kind, context={"kind": kind})

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        chance = self.chances[int(str(request.context["kind"])), int(action_id.removeprefix("item"))]
        return float(rng.random() < chance)


ITEMS = [f"item{k}" for k in range(K)]
NAN = float("nan")
POOL = Pool(
    tuple(ITEMS),
    [{"size": k / K} for k in range(K)],
    {
        "cf": np.array([0, -1, -2, -3, -4, NAN], np.float32),
        "deep": np.array([NAN, 1, 2, 3, 4, 5], np.float32),
    },
)


def decisions(spec: PolicySpec) -> list[DecisionRecord]:
    pools = {"0": POOL, "1": POOL}
    run = run_loop(Towns(), spec, rounds=ROUNDS, seed=5, pools=pools, timing=Timing(delay_ms=200), publish_every=500)
    return [entry.record for entry in run.log if isinstance(entry.record, DecisionRecord)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_log_of_a_learning_policy_is_sound(spec):
    result = audit(decisions(spec), salt=SALT)
    assert result.decisions == result.rederived == ROUNDS
    assert result.stderr > 0
    assert result.sound, result


@pytest.fixture(scope="module")
def honest() -> list[DecisionRecord]:
    return decisions(SPECS["softmax"])


def test_a_propensity_that_is_not_the_sampling_probability_is_caught(honest):
    """Logs the PMF of another temperature than was drawn from, as a service that computes it twice might."""

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
    """A business rule that swaps the best item in behind the policy's back, once in a hundred decisions."""
    tampered = [
        msgspec.structs.replace(r, chosen=[int(r.pmfs()[0].argmax())]) if i % 100 == 0 else r
        for i, r in enumerate(honest)
    ]
    assert not audit(tampered, salt=SALT).sound


def test_a_short_log_with_small_propensities_is_no_false_alarm():
    """A hundred decisions at floor 2% over 100 actions: the sample's own standard error would cry wolf."""
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
                    event_id, spec.name, "", "", "", {}, [f"i{k}" for k in range(100)], None, {}, pmf.tobytes(), [index]
                )
            )
        assert audit(records, salt=SALT).sound


def test_the_policy_learns_while_it_is_audited(honest):
    """Its share of best choices over the last quarter exceeds one half; by chance it would be 1/6."""
    last = honest[-ROUNDS // 4 :]
    best = [r.action_ids[r.chosen[0]] == ("item0" if r.context["kind"] == "0" else "item5") for r in last]
    assert np.mean(best) > 0.5


def test_no_rewards_is_no_error():
    assert audit([], salt=SALT).sound
