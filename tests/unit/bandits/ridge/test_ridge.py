from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import decision_features, interactions

from bandits.errors import SnapshotError
from bandits.exploration import LinTs
from bandits.features.hashing import hash_feature
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.model import RidgeModel
from bandits.ridge.payloads import decode_sums
from bandits.types import ActionSet, ChosenRow, Context, Interaction, Namespace, Snapshot

CONFIG = RidgeConfig(l2=2.0, bias_l2=3.0, interactions=[("context", "scores")])


def learned(count: int = 60, **options) -> tuple[RidgeLearner, list]:
    learner, seen = RidgeLearner(CONFIG, salt=b"salt", **options), interactions(7, count)
    learner.learn(seen)
    return learner, seen


def dense(learner: RidgeLearner, seen) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """The joint ridge regression over shared features and one indicator per action."""
    learner.checkpoint()  # settles
    ids = sorted({i.actions.ids[i.chosen] for i in seen})
    rows = {name: n for n, name in enumerate(ids)}
    x = np.array(
        [learner._index.matrix(i.context, i.actions, dense=True)[1][i.chosen] for i in seen]
    )
    indicator = np.zeros((len(seen), len(ids)))
    indicator[np.arange(len(seen)), [rows[i.actions.ids[i.chosen]] for i in seen]] = 1
    z = np.hstack([x, indicator])
    prior = np.diag([CONFIG.l2] * x.shape[1] + [CONFIG.bias_l2] * len(ids))
    covariance = np.linalg.inv(z.T @ z + prior)
    return covariance @ z.T @ np.array([i.reward for i in seen]), covariance, rows


def joint_row(learner, context, actions, k, rows):
    x = learner._index.matrix(context, actions, dense=True)[1][k]
    indicator = np.zeros(len(rows))
    known = rows.get(actions.ids[k])
    if known is not None:
        indicator[known] = 1
    return np.concatenate([x, indicator]), known is not None


def test_the_posterior_mean_is_that_of_the_joint_regression():
    learner, seen = learned()
    weights, _, rows = dense(learner, seen)
    context, actions = decision_features(123)
    scores = RidgeModel(learner.snapshot("1-0")).scores(context, actions)
    for k in range(len(actions)):
        z, _ = joint_row(learner, context, actions, k, rows)
        assert scores[k] == pytest.approx(z @ weights, abs=1e-10)


def test_upper_bounds_are_those_of_the_joint_regression():
    learner, seen = learned(uncertainty=True)
    weights, covariance, rows = dense(learner, seen)
    context, actions = decision_features(123)
    bounds = RidgeModel(learner.snapshot("1-0")).upper_bounds(context, actions, 1.5)
    for k in range(len(actions)):
        z, known = joint_row(learner, context, actions, k, rows)
        variance = z @ covariance @ z + (0 if known else 1 / CONFIG.bias_l2)
        assert bounds[k] == pytest.approx(z @ weights + 1.5 * np.sqrt(variance), abs=1e-10)


def test_posterior_draws_have_the_posterior_mean_and_covariance():
    """Of the differences from one action, which is all that a choice depends on.

    1,000 draws, K = 5: every mean and covariance entry within 5 standard errors (false alarm below
    1e-4).
    """
    learner, seen = learned(sampling=LinTs(0.7, draws=1000))
    weights, covariance, rows = dense(learner, seen)
    context, actions = decision_features(123)
    draws = RidgeModel(learner.snapshot("1-0")).draws(context, actions)
    z = np.array([joint_row(learner, context, actions, k, rows)[0] for k in range(len(actions))])
    unknown = [not joint_row(learner, context, actions, k, rows)[1] for k in range(len(actions))]
    expected = 0.49 * (z @ covariance @ z.T + np.diag(np.where(unknown, 1 / CONFIG.bias_l2, 0.0)))
    apart = np.hstack([-np.ones((4, 1)), np.eye(4)])
    draws, mean, expected = apart @ draws, apart @ z @ weights, apart @ expected @ apart.T
    sd = np.sqrt(np.diag(expected))
    assert np.abs(draws.mean(axis=1) - mean).max() <= 5 * (sd / np.sqrt(1000)).max()
    error = np.sqrt((expected**2 + np.outer(sd**2, sd**2)) / 1000)
    assert (np.abs(np.cov(draws) - expected) <= 5 * error).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5))
def test_any_split_of_the_interactions_gives_the_same_bytes(cuts):
    whole, seen = learned(sampling=LinTs(1.0, draws=10))
    parts = RidgeLearner(CONFIG, salt=b"salt", sampling=LinTs(1.0, draws=10))
    edges = [0, *sorted(cuts), len(seen)]
    for low, high in pairwise(edges):
        parts.learn(seen[low:high])
        parts.snapshot("9-9")
    assert parts.checkpoint() == whole.checkpoint()
    assert parts.snapshot("1-0") == whole.snapshot("1-0")


def test_a_learner_resumes_from_its_checkpoint_byte_for_byte():
    whole, seen = learned(sampling=LinTs(1.0, draws=10))
    first = RidgeLearner(CONFIG, salt=b"salt", sampling=LinTs(1.0, draws=10))
    first.learn(seen[:33])
    resumed = RidgeLearner(
        CONFIG, salt=b"salt", sampling=LinTs(1.0, draws=10), checkpoint=first.checkpoint()
    )
    resumed.learn(seen[33:])
    assert resumed.checkpoint() == whole.checkpoint()
    assert resumed.snapshot("1-0") == whole.snapshot("1-0")


def test_draws_are_seeded_by_salt_and_position():
    learner, _ = learned(sampling=LinTs(1.0, draws=10))
    other, _ = learned(sampling=LinTs(1.0, draws=10))
    other._salt = b"another"
    assert learner.snapshot("1-0").payload == learner.snapshot("1-0").payload
    assert learner.snapshot("1-0").payload != learner.snapshot("2-0").payload
    assert learner.snapshot("1-0").payload != other.snapshot("1-0").payload


def test_the_scale_of_draws_follows_what_is_learned_on_straight_lines():
    rising = LinTs([(20, 0.2), (60, 0.8), (100, 0.4)], draws=10)
    scales = [rising.scale_at(learned) for learned in (0, 20, 30, 60, 80, 10**9)]
    assert scales == pytest.approx([0.2, 0.2, 0.35, 0.8, 0.6, 0.4])
    assert LinTs(0.3).scale_at(12345) == 0.3

    # A snapshot on the way holds the draws of that scale, of what was met and of what was not.
    learner, seen = learned(sampling=rising, count=30)
    (context, actions) = decision_features(1)
    found = RidgeModel(learner.snapshot("1-0")).draws(context, with_news(actions, [1.0] * 5))
    level, _ = learned(sampling=LinTs(rising.scale_at(len(seen)), draws=10), count=30)
    expected = RidgeModel(level.snapshot("1-0")).draws(context, with_news(actions, [1.0] * 5))
    assert len(seen) == 30
    np.testing.assert_array_equal(found, expected)


def test_features_beyond_the_limit_are_ignored():
    learner = RidgeLearner(msgspec.structs.replace(CONFIG, max_features=5))
    learner.learn(interactions(1, 20))
    context, actions = decision_features(1)
    assert RidgeModel(learner.snapshot("1-0")).scores(context, actions).shape == (5,)
    assert len(learner._index.hashes) == 5


@given(st.binary(max_size=200))
def test_a_corrupt_snapshot_is_refused(data):
    with pytest.raises(SnapshotError):
        RidgeModel(Snapshot("ridge", "1-0", 0, data))


def test_a_snapshot_without_what_the_exploration_needs_is_refused():
    learner, _ = learned()
    model, (context, actions) = RidgeModel(learner.snapshot("1-0")), decision_features(1)
    with pytest.raises(SnapshotError):
        model.draws(context, actions)
    with pytest.raises(SnapshotError):
        model.upper_bounds(context, actions, 1.0)


def test_a_timestamp_as_a_feature_does_no_harm():
    """A huge, almost constant feature is the intercept but for rounding.

    The posterior must still exist.
    """
    learner = RidgeLearner(RidgeConfig(), sampling=LinTs(1.0, draws=20), salt=b"salt")
    column = np.array([hash_feature("context", "time")], np.uint32)
    rewards = np.random.default_rng(0).random(200) < 0.3
    for i, reward in enumerate(rewards):
        context = Context((Namespace("context", column, np.array([1.7e9 + i], np.float32)),))
        actions = ActionSet(("a", "b"))
        learner.learn([Interaction(f"e{i}", 0, context, actions, i % 2, 0.5, float(reward))])
    model = RidgeModel(learner.snapshot("1-0"))
    assert model.scores(context, actions) == pytest.approx([rewards.mean()] * 2, abs=0.1)
    assert np.isfinite(model.draws(context, actions)).all()


def with_news(actions: ActionSet, values: list[float]) -> ActionSet:
    """The same, and a feature that no interaction has shown."""
    column = np.array(values, np.float32)[:, None]
    news = Namespace("news", np.array([hash_feature("news", "n")], np.uint32), column)
    return ActionSet(actions.ids, (*actions.namespaces, news), actions.scores)


def test_a_feature_never_met_has_its_prior_variance_in_upper_bounds():
    learner, _ = learned(uncertainty=True)
    model = RidgeModel(learner.snapshot("1-0"))
    context, actions = decision_features(123)
    news = [0.0, 0.5, -2.0, 1.0, 0.0]
    mean = model.scores(context, actions)
    assert model.scores(context, with_news(actions, news)) == pytest.approx(mean, abs=1e-12)
    before = (model.upper_bounds(context, actions, 1.0) - mean) ** 2
    after = (model.upper_bounds(context, with_news(actions, news), 1.0) - mean) ** 2
    assert after - before == pytest.approx(np.square(news) / CONFIG.l2, abs=1e-10)


def test_a_feature_never_met_is_drawn_from_its_prior():
    """1,000 draws: each variance within 5 standard errors (false alarm below 1e-5)."""
    learner, _ = learned(sampling=LinTs(0.7, draws=1000))
    model = RidgeModel(learner.snapshot("1-0"))
    context, actions = decision_features(123)
    extra = model.draws(context, with_news(actions, [0.0, 0.5, -2.0, 1.0, 0.0])) - model.draws(
        context, actions
    )
    met = np.array([action_id in learner._rows for action_id in actions.ids])
    assert np.abs(extra[[0, 4]]).max() < 1e-5
    expected = 0.49 * np.array([0.25, 4.0, 1.0]) / CONFIG.l2
    assert np.abs(extra[1:4].var(axis=1) / expected - 1)[met[1:4]].max() <= 5 * np.sqrt(2 / 1000)
    total = model.draws(context, with_news(actions, [0.0, 0.5, -2.0, 1.0, 0.0])).var(axis=1)
    assert (total[1:4] > model.draws(context, actions).var(axis=1)[1:4]).all()


def test_a_feature_that_can_no_longer_get_a_column_is_none_that_could_be_learned():
    config = RidgeConfig(max_features=5)
    learner = RidgeLearner(config, uncertainty=True)
    learner.learn(interactions(3, 20))
    model = RidgeModel(learner.snapshot("1-0"))
    context, actions = decision_features(123)
    bounds = model.upper_bounds(context, actions, 1.0)
    assert model.upper_bounds(context, with_news(actions, [1.0] * 5), 1.0) == pytest.approx(
        bounds, abs=1e-12
    )


@pytest.mark.parametrize("elements", [1, 64, 1 << 21])
def test_rows_of_any_width_and_corrections_give_the_same_bytes_in_any_batch(monkeypatch, elements):
    """Wide rows make smaller batches; the sums do not see it."""

    def checkpoint() -> bytes:
        learner = RidgeLearner(RidgeConfig(interactions=[("a", "b")], max_features=40))
        for number in range(120):
            rng_row = np.random.default_rng(number)
            row = [
                features(rng_row, name, int(rng_row.choice([0, 1, 3, 9])))
                for name in ("c", "a", "b")
            ]
            learner.learn_row(ChosenRow(f"item{number % 7}", (), row, float(rng_row.normal())))
            if number % 3 == 0:
                learner.correct_row(ChosenRow(f"item{number % 7}", (), row, 0.25))
        return learner.checkpoint()

    expected = checkpoint()
    monkeypatch.setattr("bandits.ridge.learner.ELEMENTS", elements)
    assert checkpoint() == expected


def features(rng: np.random.Generator, name: str, count: int) -> Namespace:
    """Some of them 0, or none at all."""
    hashes = np.array([hash_feature(name, f"{n}") for n in range(count)], np.uint32)
    return Namespace(
        name, hashes, (rng.normal(size=count) * (rng.random(count) < 0.8)).astype(np.float32)
    )


@pytest.mark.parametrize(("names", "per_row"), [(6, 6), (9, 6), (400, 6)])
def test_rows_with_many_or_few_columns_in_common_give_the_same_bits_in_any_batch(names, per_row):
    """Rows with the same features, with some or hardly any in common, and corrections."""

    def state(cut: int) -> bytes:
        learner, rng = RidgeLearner(RidgeConfig(max_features=300)), np.random.default_rng(3)
        for i in range(600):
            chosen = np.sort(rng.choice(names, per_row, replace=False)).tolist()
            row = [
                Namespace(
                    "f", np.array(chosen, np.uint32) + 7, rng.normal(size=6).astype(np.float32)
                )
            ]
            learner.learn_row(ChosenRow(f"a{i % 5}", (), row, float(rng.normal())))
            if i % 7 == 0:
                learner.correct_row(ChosenRow(f"a{i % 5}", (), row, 0.3))
            if i % cut == 0:
                learner.checkpoint()
        return learner.checkpoint()

    expected = state(1000)
    assert state(13) == state(1) == expected


@pytest.mark.parametrize(("names", "per_row"), [(6, 6), (24, 5), (200, 5)])
def test_the_sums_are_those_of_adding_row_after_row(names, per_row):
    """Bit for bit: rows that fill their columns, and few of many, one after the other."""
    learner, rng = RidgeLearner(RidgeConfig(action_bias=False)), np.random.default_rng(5)
    a, b, column = np.zeros((names + 1, names + 1)), np.zeros(names + 1), {}
    for i in range(500):
        several = per_row if i % 3 else names
        chosen = rng.choice(names, several, replace=False)
        values, reward = rng.normal(size=several).astype(np.float32), float(rng.normal())
        learner.learn_row(
            ChosenRow("a", (), [Namespace("f", (chosen + 7).astype(np.uint32), values)], reward)
        )
        x = np.zeros(names + 1)
        x[[0, *(column.setdefault(name, len(column) + 1) for name in chosen.tolist())]] = [
            1.0,
            *values,
        ]
        a += np.outer(x, x)
        b += reward * x
    found_a, found_b, *_ = decode_sums(learner.checkpoint()).arrays()
    assert found_a.tobytes() == a.tobytes()
    assert found_b.tobytes() == b.tobytes()


def test_a_feature_twice_in_a_row_is_learned_alike_in_any_batch():
    def state(cut: int) -> bytes:
        learner, rng = RidgeLearner(RidgeConfig()), np.random.default_rng(4)
        for i in range(300):
            second = 1 if i % 50 == 49 else 2
            row = [
                Namespace(
                    "f", np.array([1, second, 3], np.uint32), rng.normal(size=3).astype(np.float32)
                )
            ]
            learner.learn_row(ChosenRow("a", (), row, float(rng.normal())))
            if i % cut == 0:
                learner.checkpoint()
        return learner.checkpoint()

    assert state(1) == state(7) == state(1000)
