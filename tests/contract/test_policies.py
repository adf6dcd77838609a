"""What every policy promises, whatever it is made of."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT
from support.strategies import decision_features, interactions

from bandits.exploration import (
    EpsilonGreedy,
    Greedy,
    LinTs,
    LinUcb,
    Softmax,
    SquareCB,
    VwExploration,
)
from bandits.ridge.config import RidgeConfig
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, encode_network, shapes
from bandits.types import Policy, Snapshot, check_pmf
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.decisions.holdout import FixedPolicy
from policies.decisions.mixture import Mixture, source_actions
from policies.spec import PolicySpec, RemoteSource

FLOOR = 0.05
RIDGE = RidgeConfig(interactions=[("context", "scores")])
NAMES = [
    *(("context", f"c{j}") for j in range(3)),
    *(("features", f"f{j}") for j in range(12)),
    ("scores", "c0"),
]
RL = RlConfig(FeatureSchema(NAMES).digest)
VW = VwConfig("--cb_explore_adf --cb_type mtr -b 12 -q cs -q cf")
SCORED = [EpsilonGreedy(), Softmax(), SquareCB(), Greedy()]
OWN = [
    "--bag 3",
    "--cover 3",
    "--epsilon 0.2",
    "--softmax --lambda 2",
    "--rnd 2 --epsilon 0.1",
    "--cb_type dr --bag 2",
]


def specs() -> dict[str, PolicySpec]:
    found = {}
    for exploration in [LinTs(draws=20), LinUcb(), *SCORED]:
        found[f"ridge {exploration.__struct_config__.tag}"] = PolicySpec(
            "p", learner=RIDGE, exploration=exploration, floor=FLOOR
        )
    for exploration in SCORED:
        found[f"vw {exploration.__struct_config__.tag}"] = PolicySpec(
            "p", learner=VW, exploration=exploration, floor=FLOOR
        )
    for exploration in (EpsilonGreedy(), Softmax(), Greedy()):
        found[f"rl {exploration.__struct_config__.tag}"] = PolicySpec(
            "p", kind="rl", learner=RL, exploration=exploration, floor=FLOOR
        )
    for args in OWN:
        learner = VwConfig(f"--cb_explore_adf -b 12 -q cs {args}")
        found[f"vw own {args}"] = PolicySpec(
            "p", learner=learner, exploration=VwExploration(), floor=FLOOR
        )
    for name in ("ridge lints", "vw softmax"):
        base = found[name]
        found[f"mixture {name}"] = PolicySpec(
            "p",
            kind="mixture",
            sources=[RemoteSource("cf", "http://x"), RemoteSource("deep", "http://x")],
            learner=base.learner,
            exploration=base.exploration,
            floor=FLOOR,
        )
    return found


SPECS = specs()
FIXED = ["uniform", "cf", "unknown"]


def taught(spec: PolicySpec) -> Snapshot:
    """A snapshot that has seen 60 interactions, of sources if it is a mixture's; or a network."""
    if spec.kind == "rl":
        rng = np.random.default_rng(0)
        arrays = {name: rng.normal(size=shape) for name, shape in shapes(1 + len(NAMES), 8).items()}
        return make_learner(
            spec, salt=SALT, checkpoint=encode_network(Network.of(NAMES, arrays), 60)
        ).snapshot("60-0")
    learner = make_learner(spec, salt=SALT)
    seen = interactions(3, 60)
    if spec.kind == "mixture":
        over = [(i, source_actions(i.actions)) for i in seen]
        seen = [type(i)(i.event_id, 0, i.context, actions, 0, 0.5, i.reward) for i, actions in over]
    learner.learn(seen)
    return learner.snapshot("60-0")


SNAPSHOTS: dict[str, Snapshot] = {}


def load(name: str) -> Policy:
    """A newly loaded policy; its snapshot is learned once."""
    if name in FIXED:
        return FixedPolicy(name)
    spec = SPECS[name]
    if name not in SNAPSHOTS:
        SNAPSHOTS[name] = taught(spec)
    policy = load_policy(spec, SNAPSHOTS[name])
    return Mixture(policy, spec.within, spec.floor) if spec.kind == "mixture" else policy


@pytest.fixture(params=[*SPECS, *FIXED], scope="module")
def named(request) -> tuple[str, Policy]:
    return request.param, load(request.param)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_it_returns_a_pmf_with_the_floor_under_every_action(named, seed, count):
    """Finite, non-negative, sum 1 within 1e-12, at least floor/K each."""
    name, policy = named
    pmf = check_pmf(policy.pmf(*decision_features(seed, count)))
    assert pmf.shape == (count,)
    if name not in FIXED:
        assert pmf.min() >= FLOOR / count * (1 - 1e-9)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.permutations(range(7)))
def test_it_does_not_depend_on_the_order_of_the_actions(named, seed, order):
    _, policy = named
    context, actions = decision_features(seed, 7)
    moved = policy.pmf(context, actions.take(order))
    assert moved == pytest.approx(policy.pmf(context, actions)[list(order)], abs=1e-9)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_it_is_pure(named, seed, other):
    """The same bytes again, also after another decision, and its arguments are as they were."""
    _, policy = named
    context, actions = decision_features(seed)
    first = policy.pmf(context, actions).tobytes()
    policy.pmf(*decision_features(other))
    assert policy.pmf(context, actions).tobytes() == first
    for before, after in zip(
        decision_features(seed)[1].namespaces, actions.namespaces, strict=True
    ):
        assert before.values.tobytes() == after.values.tobytes()


def test_another_replica_of_the_same_snapshot_gives_the_same_bytes(named):
    name, policy = named
    other = load(name)
    for seed in range(20):
        features = decision_features(seed)
        assert policy.pmf(*features).tobytes() == other.pmf(*features).tobytes()


def test_one_action_is_certain(named):
    _, policy = named
    context, actions = decision_features(5, 1)
    assert policy.pmf(context, actions).tolist() == [1.0]


@pytest.mark.parametrize(
    "name",
    [n for n in SPECS if not any(random in n for random in ("lints", "rnd", "linucb", "mix"))],
)
def test_an_untaught_policy_of_scores_knows_no_difference(name):
    """Not so with random priors, bounds (wider for larger features), and what sources say."""
    policy = load_policy(SPECS[name], make_learner(SPECS[name], salt=SALT).snapshot("0-0"))
    assert policy.pmf(*decision_features(9, 6)) == pytest.approx(np.full(6, 1 / 6), abs=1e-6)


def test_it_can_be_asked_from_a_thread_that_did_not_load_it(named):
    """Replicas build a policy off the request path and serve it on the event loop."""
    name, policy = named
    built: list[Policy] = []
    thread = threading.Thread(target=lambda: built.append(load(name)))
    thread.start()
    thread.join()
    features = decision_features(1)
    assert built[0].pmf(*features).tobytes() == policy.pmf(*features).tobytes()
