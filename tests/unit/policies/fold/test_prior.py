"""A prior's rows as a fresh learner is taught them: features, weights, what is left out."""

import msgspec
import numpy as np
import pytest

from bandits.errors import RefusedError
from bandits.exploration import EpsilonGreedy, Greedy, Softmax, SquareCB
from bandits.ridge.config import RidgeConfig
from bandits.ridge.payloads import decode_sums
from bandits.rl.config import RlConfig
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.blend import make_learner
from policies.decisions.mixture import source_actions
from policies.features import featurise
from policies.fold import prior
from policies.fold.prior import teach_prior
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import PolicySpec, RemoteSource

SALT = b"salt"
SOURCES = [RemoteSource(name, "http://localhost:1") for name in ("deep", "knn")]
RIDGE = PolicySpec(
    "home", sources=SOURCES, learner=RidgeConfig(interactions=[("context", "scores")])
)
VW = msgspec.structs.replace(RIDGE, learner=VwConfig(), exploration=EpsilonGreedy())
VW_WHOLE = msgspec.structs.replace(
    VW, learner=VwConfig("--cb_explore_adf --cb_type dr -q cs -q cf")
)
MIXTURE = msgspec.structs.replace(RIDGE, kind="mixture", learner=RidgeConfig())
VW_MIXTURE = msgspec.structs.replace(VW, kind="mixture")
CATALOGUE = Catalogue([Item(f"i{n}", {"genre": f"g{n % 3}", "price": float(n)}) for n in range(9)])


def _rows(decisions: int = 70, items: int = 9, seed: int = 1) -> PriorRows:
    """Return decisions of 6 candidates each, of which one has no known reward."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(decisions):
        ids = [f"i{n}" for n in rng.choice(items, 6, replace=False)]
        scores = {name: rng.random(6).astype(np.float32) for name in ("deep", "knn")}
        scores["knn"][:2] = np.nan
        rewards = (rng.random(6) < 0.3).astype(np.float32)
        rewards[5] = np.nan
        made.append(PriorDecision.of({"age": float(rng.integers(90))}, ids, scores, rewards))
    return PriorRows.of(made)


def _interactions(spec: PolicySpec, rows: PriorRows) -> list[Interaction]:
    """Return each row as a decision of the log would teach it."""
    made = []
    for each in rows.decisions:
        context, actions = featurise(
            spec, CATALOGUE, each.context, each.action_ids, None, each.source_scores()
        )
        made += [
            Interaction("e", 0, context, actions, k, 1 / len(actions), float(reward))
            for k, reward in enumerate(each.known_rewards())
            if np.isfinite(reward)
        ]
    return made


@pytest.mark.parametrize("use", [["context", "item", "features", "scores"], ["scores"]])
def test_a_ridge_model_has_the_sums_of_its_rows_times_the_strength(use):
    """As many interactions as the strength says, of features as a decision's."""
    spec, rows = msgspec.structs.replace(RIDGE, use=use), _rows()
    if use == ["scores"]:
        spec = msgspec.structs.replace(spec, learner=RidgeConfig())
    taught, fresh = make_learner(spec, salt=SALT), make_learner(spec, salt=SALT)
    assert teach_prior(taught, spec, CATALOGUE, rows, 0.25) == (350, 0)

    fresh.learn(_interactions(spec, rows))
    got, wanted = decode_sums(taught.checkpoint()), decode_sums(fresh.checkpoint())
    assert (got.hashes, got.action_ids) == (wanted.hashes, wanted.action_ids)
    for weighted, plain in zip(got.arrays(), wanted.arrays(), strict=True):
        np.testing.assert_array_equal(weighted, 0.25 * plain)
    assert taught.learned == taught.snapshot("1-0").learned == 88


@pytest.mark.parametrize("spec", [RIDGE, VW, VW_WHOLE, MIXTURE, VW_MIXTURE])
def test_the_same_rows_give_the_same_bytes_however_many_are_made_at_a_time(spec, monkeypatch):
    """Also of a learner that was resumed before."""
    whole, parts = make_learner(spec, salt=SALT), make_learner(spec, salt=SALT)
    teach_prior(whole, spec, CATALOGUE, _rows(), 0.3)

    monkeypatch.setattr(prior, "AT_ONCE", 7)
    parts = make_learner(spec, salt=SALT, checkpoint=parts.checkpoint())
    teach_prior(parts, spec, CATALOGUE, _rows(), 0.3)
    assert whole.checkpoint() == parts.checkpoint()
    assert whole.learned > 0


def test_vw_learns_a_row_alike_from_the_chosen_action_alone_and_from_all():
    """Weighted by the strength; how much VW has seen before plays no part."""
    rows = _rows(200)
    by_row, whole = make_learner(VW, salt=SALT), VwLearner(VW.learner.args)
    assert by_row.by_row
    assert not whole.by_row
    for learner in (by_row, whole):
        assert teach_prior(learner, VW, CATALOGUE, rows, 0.5) == (1000, 0)
        assert learner.learned == 500

    def weights(learner: VwLearner) -> np.ndarray:
        return learner._workspace.weights()[:, 0, 0]

    np.testing.assert_allclose(weights(by_row), weights(whole), atol=1e-3)


@pytest.mark.parametrize("estimator", ["mtr", "ips"])
def test_vw_takes_a_strength_of_three_for_each_row_three_times(estimator):
    """A weight is an importance, not another reward."""
    spec = msgspec.structs.replace(VW, use=["item", "scores"])
    tripled, repeated = (
        VwLearner(f"--cb_explore_adf --cb_type {estimator} --sgd -l 0.001 --power_t 0")
        for _ in range(2)
    )
    lessons = _interactions(spec, _rows(40))
    tripled.learn_prior(lessons, 3.0)
    repeated.learn_prior([each for each in lessons for _ in range(3)], 1.0)

    first, second = (each._workspace.weights()[:, 0, 0] for each in (tripled, repeated))
    assert np.abs(second).max() > 1e-3
    np.testing.assert_allclose(first, second, atol=0.1 * np.abs(second).max())
    assert tripled.learned == repeated.learned


@pytest.mark.parametrize("spec", [RIDGE, VW, VW_WHOLE])
def test_a_model_that_was_taught_prefers_what_earned_more(spec):
    """Rows that say one source is right: the model scores what that source scores high."""
    rng = np.random.default_rng(3)
    decisions = []
    for _ in range(200):
        knn, deep = rng.random((2, 6)).astype(np.float32)
        ids = [f"i{n}" for n in rng.choice(9, 6, replace=False)]
        decisions.append(PriorDecision.of({}, ids, {"knn": knn, "deep": deep}, knn > 0.7))
    learner = make_learner(spec, salt=SALT)
    teach_prior(learner, spec, CATALOGUE, PriorRows.of(decisions), 0.5)

    scores = {"knn": np.array([0.9, 0.1], np.float32), "deep": np.array([0.1, 0.9], np.float32)}
    context, actions = featurise(spec, CATALOGUE, {}, ["i0", "i3"], None, scores)
    policy = spec.learner.load(learner.snapshot("1-0"), Greedy())
    first, second = policy(context, actions)
    assert first > second
    # What explores less the more it knows counts the prior.
    bold = spec.learner.load(learner.snapshot("1-0"), SquareCB())
    assert bold(context, actions)[0] > 0.6


def test_a_mixture_is_taught_what_each_source_would_have_earned():
    """One row per decision and source, as its candidates would have been drawn."""
    decision = PriorDecision.of(
        {},
        ["i0", "i1", "i2"],
        {
            "knn": np.array([1.0, 0.0, np.nan], np.float32),
            "deep": np.array([np.nan, 2.0, 1.0], np.float32),
        },
        np.array([1.0, np.nan, 0.0], np.float32),
    )
    spec = msgspec.structs.replace(MIXTURE, within=Softmax(0.5))
    learner, by_hand = make_learner(spec, salt=SALT), make_learner(spec, salt=SALT)
    assert teach_prior(learner, spec, CATALOGUE, PriorRows.of([decision]), 1.0) == (2, 0)

    context, items = featurise(
        spec, CATALOGUE, {}, decision.action_ids, None, decision.source_scores()
    )
    sources = source_actions(items)
    by_hand.learn(
        [
            Interaction("e", 0, context, sources, sources.ids.index("deep"), 0.5, 0.0),
            Interaction("e", 0, context, sources, sources.ids.index("knn"), 0.5, 1.0),
        ]
    )
    assert learner.checkpoint() == by_hand.checkpoint()


def test_what_the_policy_could_not_have_been_offered_is_left_out():
    """Items that the catalogue lacks, items of other sources; other sources' scores."""
    rows, few = _rows(30, items=12), Catalogue([Item(f"i{n}") for n in range(6)])
    learner = make_learner(RIDGE, salt=SALT)
    taught, skipped = teach_prior(learner, RIDGE, few, rows, 1.0)
    known = [
        action_id
        for each in rows.decisions
        for action_id, reward in zip(each.action_ids, each.known_rewards(), strict=True)
        if np.isfinite(reward)
    ]
    assert taught == sum(each in few for each in known)
    assert taught + skipped == len(rows) == len(known)
    assert set(decode_sums(learner.checkpoint()).action_ids) <= set(few.ids)

    # Where no catalogue was ever put, sources propose anything.
    fresh = make_learner(RIDGE, salt=SALT)
    assert teach_prior(fresh, RIDGE, Catalogue(), rows, 1.0) == (len(rows), 0)

    # What only an unknown source proposed was never to be had; a source without scores is fine.
    knn_alone = msgspec.structs.replace(
        RIDGE, sources=[SOURCES[1], RemoteSource("new", "http://localhost:1")]
    )
    with_knn, without_deep = (make_learner(knn_alone, salt=SALT) for _ in range(2))
    assert teach_prior(with_knn, knn_alone, CATALOGUE, _rows(), 1.0) == (210, 140)
    bare = PriorRows(
        [
            msgspec.structs.replace(each, scores={"knn": each.scores["knn"]})
            for each in _rows().decisions
        ]
    )
    teach_prior(without_deep, knn_alone, CATALOGUE, bare, 1.0)
    assert with_knn.checkpoint() == without_deep.checkpoint()


def test_a_policy_that_can_use_none_of_the_rows_says_so_and_is_as_it_was():
    """No item in common, or a learner that learns from nothing."""
    learner = make_learner(RIDGE, salt=SALT)
    fresh = learner.checkpoint()
    with pytest.raises(RefusedError, match="none of its items"):
        teach_prior(learner, RIDGE, Catalogue([Item("other")]), _rows(), 1.0)
    assert learner.checkpoint() == fresh

    rl = PolicySpec(
        "home", kind="rl", learner=RlConfig("0" * 16), exploration=Greedy(), use=["features"]
    )
    with pytest.raises(RefusedError, match="kind rl learns from no rows"):
        teach_prior(make_learner(rl, salt=SALT), rl, CATALOGUE, _rows(), 1.0)
