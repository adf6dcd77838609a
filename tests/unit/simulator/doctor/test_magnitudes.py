"""Numbers too large for Vowpal Wabbit are found in the log; what VW learns is the oracle."""

import numpy as np
import pytest
from support.fakes import fresh_ranker

from bandits.exploration import EpsilonGreedy, Greedy, LinTs, LinUcb, Softmax, SquareCB
from bandits.log.records import DecisionRecord, LogEntry
from bandits.ridge.config import RidgeConfig
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner, load_vw
from policies.candidate_pool import explicit_pool
from policies.features import featurise_record
from policies.items.catalogue import Catalogue, Item
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from simulator.doctor.checks.magnitudes import Magnitudes
from simulator.doctor.checks.references import ReferencedBlobs

PLAIN, CROSSED, CUBED = (
    "--cb_explore_adf",
    "--cb_explore_adf -q cf",
    "--cb_explore_adf --interactions ccf",
)
CASES = {
    "a timestamp in milliseconds": (PLAIN, 1.7e12, 1.0),
    "one in nanoseconds": (PLAIN, 1.7e18, 1.0),
    "the largest that is taken": (PLAIN, 1e19, 1e19),
    "milliseconds crossed with a price": (CROSSED, 1.7e12, 20.0),
    "milliseconds crossed with milliseconds": (CROSSED, 1.7e12, 1.7e12),
    "nanoseconds crossed with a price": (CROSSED, 1.7e18, 20.0),
    "nanoseconds crossed with a share": (CROSSED, 1.7e18, 0.2),
    "seconds crossed twice": (CUBED, 1.7e9, 1.0),
    "milliseconds crossed twice": (CUBED, 1.7e12, 1.0),
    "crossed by a wildcard": ("--cb_explore_adf -q ::", 1.7e12, 1.7e12),
}


def decided(args: str, now: float, price: float) -> tuple[PolicySpec, DecisionRecord]:
    spec = PolicySpec("home", learner=VwConfig(args), exploration=EpsilonGreedy())
    actions = [ActionRequest("a", {"price": price}), ActionRequest("b", {"price": price})]
    request = RankRequest(event_id="e", context={"now": now, "hour": 3.0}, actions=actions)
    return spec, fresh_ranker(spec).decide(request, explicit_pool(actions))


def is_learned(spec: PolicySpec, record: DecisionRecord) -> bool:
    """Whether VW's weights change when it learns this decision."""
    context, actions = featurise_record(spec, Catalogue(), record)
    learner = VwLearner(spec.learner.args)
    learner.learn(
        [Interaction("e", 0, context, actions, record.chosen[0], record.propensity(0), 1.0)]
    )
    model = load_vw(learner.snapshot("1-0"))
    return bool(np.abs(model.scores(context, actions)).max() > 0.0)


@pytest.mark.parametrize(("args", "now", "price"), CASES.values(), ids=CASES)
def test_what_is_warned_of_is_what_vw_does_not_learn(args, now, price):
    spec, record = decided(args, now, price)
    check = Magnitudes(ReferencedBlobs({spec.digest: spec.encoded}.get), limit=10)
    check.add(LogEntry("1-0", record))
    (finding,) = check.findings()
    assert (finding.severity == "ok") == is_learned(spec, record)
    assert finding.figures["decisions"] == 1


def test_the_table_has_both_kinds():
    assert {is_learned(*decided(*case)) for case in CASES.values()} == {True, False}


def test_features_of_the_catalogue_count_and_other_learners_do_not():
    catalogue = Catalogue([Item("a", {"then": 1.7e12}), Item("b", {"then": 1.7e12})])
    actions = [ActionRequest("a"), ActionRequest("b")]
    for learner, expected in ((VwConfig(CROSSED), ["warning"]), (RidgeConfig(), [])):
        spec = PolicySpec("home", learner=learner, exploration=EpsilonGreedy())
        ranker = fresh_ranker(spec)
        ranker.offer(catalogue)
        record = ranker.decide(RankRequest(context={"now": 1.7e12}), explicit_pool(actions))
        blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
        check = Magnitudes(ReferencedBlobs(blobs.get), limit=10)
        check.add(LogEntry("1-0", record))
        assert [finding.severity for finding in check.findings()] == expected


RIDGE = RidgeConfig(interactions=[("context", "features")])
ANY = [EpsilonGreedy(), Softmax(), SquareCB(), Greedy()]
PAIRS = [(VwConfig(CROSSED), each) for each in ANY] + [
    (RIDGE, each) for each in (*ANY, LinTs(), LinUcb())
]


@pytest.mark.parametrize(("learner", "exploration"), PAIRS)
def test_numbers_at_the_bound_are_decided_on(learner, exploration):
    """By every exploration, crossed as well: a PMF comes out, not an error."""
    spec = PolicySpec("home", learner=learner, exploration=exploration)
    actions = [
        ActionRequest(name, {"price": sign * 1e19, "x": 1.0})
        for name, sign in (("a", 1), ("b", -1), ("c", 0))
    ]
    request = RankRequest(event_id="e", context={"now": 1e19, "then": -1e19}, actions=actions)
    pmf = fresh_ranker(spec).decide(request, explicit_pool(actions)).pmfs()[0]
    assert abs(pmf.sum() - 1.0) <= 1e-12
