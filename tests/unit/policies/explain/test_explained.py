"""Explanations: terms that add up to the score, whatever the learner."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog

from bandits.exploration import (
    EpsilonGreedy,
    LinTs,
    LinUcb,
    Softmax,
    SquareCB,
    VwExploration,
)
from bandits.ridge.config import RidgeConfig
from bandits.ridge.model import RidgeModel
from bandits.types import Interaction, Snapshot
from bandits.vw.config import VwConfig
from bandits.vw.learner import load_vw
from policies.blend import make_learner
from policies.encoding import hash_pairs
from policies.explain.explained import Explainer
from policies.explain.live import LiveExplainer
from policies.explain.named import named_pairs
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.boosts import Boost
from policies.rules.pages.page import Diversity, Page
from policies.rules.placements import Placement
from policies.spec import Holdout, PolicySpec

RNG = np.random.default_rng(3)
COLOURS = ["red", "green", "blue"]
ITEMS = [
    Item(f"i{n}", {"size": n / 4, "colour": COLOURS[n % 3], "tags": ["a", "b"][: n % 3]})
    for n in range(8)
]
CATALOGUE = Catalogue.put(ITEMS)
FEATURES = {item.id: item.features for item in ITEMS}
CROSSED = [["context", "features"], ["features", "scores"], ["features", "features"]]
LEARNERS = {
    "ridge": (RidgeConfig(), LinTs(draws=40)),
    "ridge, crossed": (RidgeConfig(interactions=CROSSED), LinUcb()),
    "ridge, no bias": (RidgeConfig(action_bias=False, intercept=False), EpsilonGreedy(0.1)),
    "vw": (VwConfig(), Softmax(0.5)),
    "vw, crossed": (
        VwConfig("--cb_explore_adf -q :: --interactions cff --noconstant"),
        SquareCB(),
    ),
}


def spec_of(name: str, **fields) -> PolicySpec:
    learner, exploration = LEARNERS[name]
    return PolicySpec("home", learner=learner, exploration=exploration, **fields)


def ranker_of(spec: PolicySpec, snapshot: Snapshot) -> Ranker:
    ranker = Ranker(spec, (), salt=b"salt", clock=lambda: 1e9)
    timeline = ItemTimeline(CATALOGUE)
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", snapshot)
    return ranker


def request(number: int) -> RankRequest:
    scores = {"cf": float(RNG.normal())} if number % 3 else None
    actions = [ActionRequest(item.id, None, scores) for item in ITEMS]
    actions.append(ActionRequest("own", {"size": 0.3, "new": True}))
    context = {"hour": float(number % 24) / 24, "device": ["phone", "desk"][number % 2]}
    return RankRequest(actions=actions, context=context, event_id=f"e{number}", slots=2)


def decided(ranker: Ranker, asked: RankRequest):
    return asyncio.run(ranker.rank(asked))


def taught(spec: PolicySpec, rounds: int = 60) -> tuple[Ranker, Snapshot]:
    """A policy that has learned something."""
    ranker = ranker_of(spec, FakeLog(spec).fold().snapshot())
    learner = make_learner(spec, salt=b"salt")
    for number in range(rounds):
        record = decided(ranker, request(number))
        context, actions = featurise_record(spec, CATALOGUE, record)
        reward = float(RNG.normal() + (record.chosen[0] == number % 5))
        learner.learn(
            [
                Interaction(
                    record.event_id, 0, context, actions, record.chosen[0],
                    record.propensity(0), reward,
                )
            ]
        )  # fmt: skip
    snapshot = learner.snapshot("1-0")
    return ranker_of(spec, snapshot), snapshot


def model_scores(spec: PolicySpec, snapshot: Snapshot, record) -> np.ndarray:
    model = RidgeModel(snapshot) if spec.learner.kind == "ridge" else load_vw(snapshot)
    return model.scores(*featurise_record(spec, CATALOGUE, record))


@pytest.mark.parametrize("name", LEARNERS)
def test_terms_add_up_to_the_score_without_a_remainder(name):
    spec = spec_of(name)
    ranker, snapshot = taught(spec)
    explainer = Explainer(spec, snapshot)
    for number in range(100, 130):
        record = decided(ranker, request(number))
        scores = model_scores(spec, snapshot, record)
        found = explainer.explain(CATALOGUE, record, FEATURES.get)
        assert len(found.actions) == len(record.action_ids)
        for each in found.actions:
            at = record.action_ids.index(each.id)
            assert sum(term.adds for term in each.terms) == pytest.approx(scores[at], abs=1e-9)
            assert each.score == pytest.approx(scores[at], abs=1e-9)
            assert each.probability == record.pmfs()[0, at]
            assert all("#" not in label for term in each.terms for label in term.features)
        assert [each.slot for each in found.actions[:3]] == [0, 1, None]
        assert [each.id for each in found.actions[:2]] == [
            record.action_ids[at] for at in record.chosen
        ]
        told = found.actions[0].sources
        assert bool(told) == bool(number % 3 and found.actions[0].id != "own")


@pytest.mark.parametrize("name", ["ridge", "ridge, crossed", "vw, crossed"])
def test_a_feature_that_is_0_changes_the_score_by_its_terms(name):
    spec = spec_of(name)
    ranker, snapshot = taught(spec)
    explainer, asked = Explainer(spec, snapshot), request(7)
    before = decided(ranker, asked)
    without = msgspec.structs.replace(asked, context={**asked.context, "hour": 0.0})
    change = model_scores(spec, snapshot, decided(ranker, without)) - model_scores(
        spec, snapshot, before
    )
    changed = False
    for each in explainer.explain(CATALOGUE, before, FEATURES.get).actions:
        adds = sum(term.adds for term in each.terms if "context.hour" in term.features)
        assert change[before.action_ids.index(each.id)] == pytest.approx(-adds, abs=1e-9)
        changed |= abs(adds) > 1e-6
    assert changed


def test_draws_are_the_share_of_thompson_samplings_draws():
    spec = spec_of("ridge")
    ranker, snapshot = taught(spec)
    found = Explainer(spec, snapshot).explain(CATALOGUE, decided(ranker, request(9)), FEATURES.get)
    draws = [40 * each.draws for each in found.actions]
    assert sum(draws) == pytest.approx(40)
    assert draws == pytest.approx(np.round(draws), abs=1e-6)


def test_what_a_page_bars_has_no_draws_and_no_share_of_the_floor():
    spec = spec_of("ridge", page=Page(most={"colour": 1}), placements=[Placement("i0", 0)])
    ranker, snapshot = taught(spec)
    found = Explainer(spec, snapshot).explain(CATALOGUE, decided(ranker, request(9)), FEATURES.get)
    red = [each for each in found.actions if FEATURES.get(each.id, {}).get("colour") == "red"]
    assert red
    assert {each.draws for each in red} == {None}
    draws = [40 * each.draws for each in found.actions if each.draws is not None]
    assert sum(draws) == pytest.approx(40)
    assert draws == pytest.approx(np.round(draws), abs=1e-6)


def test_boosts_stand_beside_the_score():
    spec = spec_of("ridge", boost=[Boost('item.colour == "red"', 0.25)])
    ranker, snapshot = taught(spec)
    found = Explainer(spec, snapshot).explain(CATALOGUE, decided(ranker, request(9)), FEATURES.get)
    boosted = {each.id for each in found.actions if each.boost == 0.25}
    assert boosted == {"i0", "i3", "i6"}


def test_what_the_page_took_stands_beside_the_score():
    spec = spec_of("ridge", page=Page(diversity=Diversity("colour", 0.25)))
    ranker, snapshot = taught(spec)
    asked = msgspec.structs.replace(request(9), slots=6)
    found = Explainer(spec, snapshot).explain(CATALOGUE, decided(ranker, asked), FEATURES.get)
    chosen = [each for each in found.actions if each.slot is not None]
    colours = [FEATURES.get(each.id, {}).get("colour", each.id) for each in chosen]
    taken = [each.page for each in chosen]
    assert taken == [-0.25 * (each in colours[:at]) for at, each in enumerate(colours)]
    assert -0.25 in taken  # there are three colours


def test_what_no_sum_of_terms_can_say_is_said():
    own = PolicySpec(
        "home", learner=VwConfig("--cb_explore_adf --bag 3"), exploration=VwExploration()
    )
    held = spec_of("ridge", holdout=Holdout(1.0))
    for spec, says in ((own, "explores by itself"), (held, "held out: uniform chose")):
        ranker, snapshot = taught(spec, rounds=3)
        found = Explainer(spec, snapshot).explain(
            CATALOGUE, decided(ranker, request(1)), FEATURES.get
        )
        assert says in found.note
        assert {each.score for each in found.actions} == {None}
        assert sum(each.probability for each in found.actions) == pytest.approx(1)


def test_an_item_whose_features_are_not_known_any_more_is_told_by_hashes():
    spec = spec_of("ridge")
    ranker, snapshot = taught(spec)
    record = decided(ranker, request(9))
    explainer = Explainer(spec, snapshot)
    named = explainer.explain(CATALOGUE, record, FEATURES.get).actions
    hashed = explainer.explain(CATALOGUE, record, lambda _: None).actions
    assert [each.score for each in hashed] == pytest.approx([each.score for each in named])
    assert any("features.#" in label for t in hashed[0].terms for label in t.features)


def test_names_are_those_that_are_hashed():
    features = {"a": 1.5, "b": "x", "c": ["y", "z"], "d": True, "e": False}
    values = [value for _, value in named_pairs(features)]
    assert values == [value for _, value in hash_pairs(features, "features")]
    assert [name for name, _ in named_pairs(features)] == ["a", "b=x", "c=y", "c=z", "d", "e"]


def test_what_has_just_been_answered_is_explained_across_one_change_of_the_model():
    spec = spec_of("ridge")
    ranker, snapshot = taught(spec)
    live = LiveExplainer(ranker)
    explain = live.begin()
    record = decided(ranker, request(1))
    ranker.serve("second", snapshot)
    assert explain(record).actions
    assert not live.begin()(record).actions
    assert "earlier model" in live.begin()(record).note
    assert live.begin()(decided(ranker, request(2))).actions
