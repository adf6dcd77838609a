"""A ridge without an intercept: its regression, and what was written before it was a choice."""

import msgspec
import numpy as np
import pytest
from support.strategies import decision_features, interactions

from bandits.exploration import LinTs, LinUcb
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.merge import merge_ridge
from bandits.ridge.model import RidgeModel
from policies.spec import PolicySpec, decode_spec, load_spec

PLAIN = RidgeConfig(l2=2.0, bias_l2=3.0, interactions=[("context", "scores")])


def config(**changes) -> RidgeConfig:
    return RidgeConfig(
        l2=2.0, bias_l2=3.0, interactions=[("context", "scores")], intercept=False, **changes
    )


def row_of(index, context, actions, k) -> np.ndarray:
    return index.matrix(context, actions, dense=True)[1][k]


@pytest.mark.parametrize("action_bias", [True, False])
def test_the_posterior_is_that_of_the_regression_without_an_intercept(action_bias):
    """The features by the textbook, of an index that has an intercept and without its column."""
    seen, (context, actions) = interactions(7, 80), decision_features(123)
    given = config(action_bias=action_bias)
    learner = RidgeLearner(given, uncertainty=True)
    reference = RidgeLearner(msgspec.structs.replace(given, intercept=True))
    learner.learn(seen)
    reference.learn(seen)
    reference.checkpoint()
    ids = sorted({each.actions.ids[each.chosen] for each in seen}) if action_bias else []

    def features(context, actions, k) -> np.ndarray:
        own = [float(actions.ids[k] == name) for name in ids]
        return np.concatenate([row_of(reference._index, context, actions, k)[1:], own])

    x = np.array([features(each.context, each.actions, each.chosen) for each in seen])
    prior = np.diag([2.0] * (x.shape[1] - len(ids)) + [3.0] * len(ids))
    covariance = np.linalg.inv(x.T @ x + prior)
    weights = covariance @ x.T @ np.array([each.reward for each in seen])
    model = RidgeModel(learner.snapshot("1-0"))
    scores, bounds = model.scores(context, actions), model.upper_bounds(context, actions, 1.5)
    for k in range(len(actions)):
        z = features(context, actions, k)
        variance = z @ covariance @ z + (
            1 / 3.0 if action_bias and actions.ids[k] not in ids else 0.0
        )
        assert scores[k] == pytest.approx(z @ weights, abs=1e-10)
        assert bounds[k] == pytest.approx(z @ weights + 1.5 * np.sqrt(variance), abs=1e-10)


def test_posterior_draws_have_no_intercept_either():
    """Of the differences from one action, which is all that a choice depends on.

    1,000 draws, K = 5: every mean and covariance entry within 5 standard errors (false alarm below
    1e-4).
    """
    seen, (context, actions) = interactions(7, 80), decision_features(123)
    given = config(action_bias=False)
    learner = RidgeLearner(given, sampling=LinTs(scale=1.0, draws=1000), salt=b"salt")
    reference = RidgeLearner(msgspec.structs.replace(given, intercept=True))
    for each in (learner, reference):
        each.learn(seen)
        each.checkpoint()
    x = np.array(
        [row_of(reference._index, each.context, each.actions, each.chosen)[1:] for each in seen]
    )
    z = np.array([row_of(reference._index, context, actions, k)[1:] for k in range(len(actions))])
    covariance = np.linalg.inv(x.T @ x + 2.0 * np.eye(x.shape[1]))
    weights = covariance @ x.T @ np.array([each.reward for each in seen])

    draws = RidgeModel(learner.snapshot("1-0")).draws(context, actions).astype(np.float64)
    apart = np.hstack([-np.ones((len(actions) - 1, 1)), np.eye(len(actions) - 1)])
    draws, expected = apart @ draws, apart @ z @ covariance @ z.T @ apart.T
    sd = np.sqrt(np.diag(expected))
    assert (np.abs(draws.mean(axis=1) - apart @ z @ weights) <= 5 * sd / np.sqrt(1000)).all()
    error = np.sqrt((expected**2 + np.outer(sd**2, sd**2)) / 1000)
    assert (np.abs(np.cov(draws) - expected) <= 5 * error).all()


def test_it_resumes_and_merges_as_it_has_learned():
    seen = interactions(7, 80)
    whole, first, second = (RidgeLearner(config()) for _ in range(3))
    whole.learn(seen)
    first.learn(seen[:33])
    second.learn(seen[33:])
    resumed = RidgeLearner(config(), checkpoint=first.checkpoint())
    resumed.learn(seen[33:])
    assert resumed.checkpoint() == whole.checkpoint()
    merged = RidgeLearner(
        config(), checkpoint=merge_ridge(config(), [first.checkpoint(), second.checkpoint()])
    )
    context, actions = decision_features(123)
    left, right = (
        RidgeModel(each.snapshot("1-0")).scores(context, actions) for each in (merged, whole)
    )
    np.testing.assert_allclose(left, right, atol=1e-10)


def test_what_was_written_before_is_what_it_was():
    """Digests as build 1c51045 made them: a log of it names these."""
    spec = PolicySpec("p", learner=RidgeConfig(), exploration=LinUcb())
    assert (spec.digest, spec.model_digest) == (
        "4fb2e6dffb4657db1ff8ac1e12d515d3",
        "827b7e0b151de67f53ca94917c62eae8",
    )
    same = PolicySpec("p", learner=RidgeConfig(intercept=True), exploration=LinUcb())
    assert same == spec
    assert same.encoded == spec.encoded
    learner, other = RidgeLearner(PLAIN), RidgeLearner(config())
    for each in (learner, other):
        each.learn(interactions(7, 80))
    assert b"intercept" not in learner.snapshot("1-0").payload
    assert b"intercept" in other.snapshot("1-0").payload


def test_a_spec_says_it_and_the_log_keeps_it(tmp_path):
    path = tmp_path / "p.yaml"
    found = {}
    for said in ("", "intercept: true", "intercept: false"):
        path.write_text(f"name: p\nlearner: {{kind: ridge, {said}}}\n")
        found[said] = load_spec(path)
        assert decode_spec(found[said].encoded) == found[said]
    assert (
        found[""].model_digest
        == found["intercept: true"].model_digest
        != found["intercept: false"].model_digest
    )
