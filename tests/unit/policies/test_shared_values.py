"""What all actions have in common tells none from another: it changes no PMF."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import FakeLog

from bandits.exploration import EpsilonGreedy, Greedy, LinTs, LinUcb, Softmax, SquareCB
from bandits.log.join import JoinRule
from bandits.log.records import BuildRecord, FeatureMap, RewardRecord, TickRecord
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from bandits.vw.config import VwConfig
from policies.candidate_pool import explicit_pool
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec

REWARDS = {"a": 0.1, "b": 0.8, "c": 0.3}
RULE = JoinRule(window_s=1)
CROSSED = RidgeConfig(interactions=[("context", "features"), ("features", "features")])
EXACT = {
    "lints": PolicySpec("home", exploration=LinTs(), join=RULE),
    "lints, crossed": PolicySpec("home", learner=CROSSED, exploration=LinTs(), join=RULE),
    "lints, no bias": PolicySpec(
        "home", learner=RidgeConfig(action_bias=False), exploration=LinTs(), join=RULE
    ),
    "softmax": PolicySpec("home", exploration=Softmax(0.3), join=RULE),
    "softmax, crossed": PolicySpec("home", learner=CROSSED, exploration=Softmax(0.3), join=RULE),
    "squarecb": PolicySpec("home", exploration=SquareCB(), join=RULE),
    "epsilon_greedy": PolicySpec("home", exploration=EpsilonGreedy(), join=RULE),
    "greedy": PolicySpec("home", exploration=Greedy(), join=RULE),
}
IN_DOUBLE = {
    "linucb": PolicySpec("home", exploration=LinUcb(), join=RULE),
    "vw, softmax": PolicySpec(
        "home", learner=VwConfig("--cb_explore_adf"), exploration=Softmax(0.3), join=RULE
    ),
    "vw, squarecb": PolicySpec(
        "home", learner=VwConfig("--cb_explore_adf"), exploration=SquareCB(), join=RULE
    ),
}


class Taught:
    """A policy after 60 decisions over a, b, c with the hour as its context."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.ranker = Ranker(spec, (), salt=b"salt")
        log = FakeLog()
        log.append(BuildRecord({"fold": str(FOLD)}), at=0)
        log.configure(spec, at=0)
        log.blobs[Catalogue().digest] = Catalogue().encoded
        fold = log.fold()
        for number in range(60):
            self.serve(fold.snapshot())
            record = self.decide({"hour": float(number % 24)}, dict.fromkeys("abc"), f"e{number}")
            chosen = record.action_ids[record.chosen[0]]
            for each in (record, RewardRecord(record.event_id, REWARDS[chosen])):
                fold.apply([log.append(each, at=1 + 1000 * number)])
        fold.apply([log.append(TickRecord(), at=10**6)])
        self.snapshot = fold.snapshot()
        self.serve(self.snapshot)

    def serve(self, snapshot: Snapshot) -> None:
        self.ranker.serve("s", snapshot)

    def decide(
        self, context: FeatureMap, actions: dict[str, FeatureMap | None], event_id: str = "q"
    ):
        given = [ActionRequest(name, features=own) for name, own in actions.items()]
        request = RankRequest(event_id=event_id, context=context, actions=given)
        return self.ranker.decide(request, explicit_pool(given))

    def pmf(
        self, context: FeatureMap | None = None, actions: dict[str, FeatureMap | None] | None = None
    ):
        return self.decide(context or {}, actions or dict.fromkeys("abc")).pmfs()[0]


@pytest.fixture(scope="module")
def taught():
    """Each policy is taught once."""
    known: dict[str, Taught] = {}

    def of(name: str) -> Taught:
        if name not in known:
            known[name] = Taught((EXACT | IN_DOUBLE)[name])
        return known[name]

    return of


LARGE = st.one_of(
    st.floats(-1e12, 1e12),
    st.sampled_from([1e3, 1e7, 1e9, -1e9, 1e12, 1_732_000_000.0, 1_732_000_000_000.0]).map(
        lambda v: min(v, 1e12)
    ),
)
NAMES = st.sampled_from(["hour", "price", "now", "met never"])


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=15)
@given(
    context=st.dictionaries(NAMES, LARGE, max_size=3),
    shared=st.dictionaries(NAMES, LARGE, max_size=3),
)
def test_what_all_actions_share_changes_no_bit_of_a_pmf(taught, name, context, shared):
    """In the context, or as every action's feature of one value, alone or crossed."""
    policy = taught(name)
    assert policy.pmf(context, dict.fromkeys("abc", shared)).tobytes() == policy.pmf().tobytes()


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=10)
@given(
    context=st.dictionaries(NAMES, LARGE, max_size=2),
    shared=st.dictionaries(NAMES, LARGE, max_size=2),
)
def test_beside_what_tells_actions_apart_it_changes_nothing_either(taught, name, context, shared):
    """Unless it is crossed with that, and then it has to."""
    policy = taught(name)
    if policy.spec.learner == CROSSED:
        context, shared = {}, {}
    own: dict[str, FeatureMap | None] = {"a": {"x": 1.0}, "b": {"x": 2.0, "y": True}, "c": {}}
    with_shared = {action: {**(features or {}), **shared} for action, features in own.items()}
    assert policy.pmf(context, with_shared).tobytes() == policy.pmf({}, own).tobytes()


@pytest.mark.parametrize("name", IN_DOUBLE)
@settings(max_examples=10)
@given(value=LARGE)
def test_sums_in_double_precision_keep_what_tells_actions_apart(taught, name, value):
    """As of float64: 1e12 times a weight leaves ten digits before the point, six behind it."""
    policy = taught(name)
    assert np.abs(policy.pmf({"hour": value}) - policy.pmf()).max() < 1e-5


def test_what_an_earlier_build_served_is_derived_by_its_own_rule(taught):
    """A snapshot of fold 1 gives what it gave: the doctor demands it of old decisions."""
    policy = taught("lints")
    new = policy.pmf({"hour": 1e9})
    policy.serve(replace(policy.snapshot, fold=1))
    try:
        old, plain = policy.pmf({"hour": 1e9}), policy.pmf()
    finally:
        policy.serve(policy.snapshot)
    assert plain == pytest.approx(new, abs=0.011)  # a draw may fall otherwise
    assert np.abs(old - new).max() > 0.1
    assert policy.pmf({"hour": 1e9}).tobytes() == new.tobytes()


def test_a_feature_that_not_all_have_or_not_all_alike_still_counts(taught):
    policy = taught("lints")
    alike = policy.pmf({}, {key: {"x": 5.0} for key in "abc"})
    for row in [
        ({"x": 5.0}, {"x": 5.0}, {"x": 4.0}),
        ({}, {"x": 5.0}, {"x": 5.0}),
        ({"y": 5.0}, {"x": 5.0}, {"x": 5.0}),
    ]:
        assert np.abs(policy.pmf({}, dict(zip("abc", row, strict=True))) - alike).max() > 0.05
