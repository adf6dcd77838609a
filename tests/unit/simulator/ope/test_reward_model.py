"""The reward model: the same sample however a log is cut, and units do not matter."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bandits.errors import ReplayError
from simulator.logs.rows import LoggedDecision, MemoryPiece, batch_of
from simulator.ope.batch import OpeBatch
from simulator.ope.estimators import make_estimator
from simulator.ope.hashed_features import (
    HashedFeatures,
    concatenate_features,
    features_from_columns,
    hash_rows,
)
from simulator.ope.regressions import cross_fit_logistic, cross_fit_ridge, sigmoid
from simulator.ope.reward_model import RewardModel, fold_of
from simulator.ope.targets import LoggingTarget, RowTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions

RIDGE = ("ridge",)


def test_rows_of_one_decision_share_its_fold():
    keys = np.arange(1000, dtype=np.uint64)
    assert np.array_equal(fold_of(np.repeat(keys, 3), 5), np.repeat(fold_of(keys, 5), 3))
    assert np.bincount(fold_of(keys, 5)) == pytest.approx(np.full(5, 200), abs=5 * math.sqrt(160))


def sparse(n: int, seed: int = 0) -> tuple[HashedFeatures, np.ndarray, np.ndarray]:
    """Six features that every row has, rewards that two of them say something of, and keys."""
    rng = np.random.default_rng(seed)
    columns = np.broadcast_to(rng.integers(0, 2**32, 6), (n, 6))
    values = rng.normal(size=(n, 6))
    reward = values[:, 0] - 0.5 * values[:, 3] + rng.normal(size=n)
    return features_from_columns(columns, values), reward, rng.integers(0, 2**64, n, np.uint64)


def fitted(features: HashedFeatures, reward, keys, **options):
    model = RewardModel(**options)
    model.update(features, reward, keys)
    return model.fit()


def test_a_prediction_is_that_of_a_ridge_without_the_fold():
    """On standardised columns, with a free intercept, within the range of rewards."""
    features, reward, keys = sparse(300)
    found = fitted(features, reward, keys, bits=11, folds=3, kinds=RIDGE, penalties=[5.0]).predict(
        features, keys
    )
    x = features.own_values[:, 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    folds = fold_of(keys, 3)
    assert set(folds) == {0, 1, 2}
    for fold in range(3):
        rest, mine = folds != fold, folds == fold
        middle, mean = x[rest].mean(axis=0), reward[rest].mean()
        centred = x[rest] - middle
        weights = np.linalg.solve(
            centred.T @ centred + 5.0 * np.eye(6), centred.T @ (reward[rest] - mean)
        )
        expected = np.clip(mean + (x[mine] - middle) @ weights, reward.min(), reward.max())
        assert found[mine, 0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_no_prediction_has_seen_its_own_reward():
    """A reward within the range of the others changes what is predicted in other folds only."""
    features, reward, keys = sparse(100)
    changed = reward.copy()
    at = int(np.argsort(reward)[50])
    changed[at] = reward.max() * 0.99
    old, new = (
        fitted(features, each, keys, kinds=RIDGE, penalties=[1.0]) for each in (reward, changed)
    )
    moved = old.predict(features, keys) != new.predict(features, keys)
    same = fold_of(keys, 5) == fold_of(keys, 5)[at]
    assert not moved[same].any()
    assert moved[~same].any()


@pytest.mark.parametrize("sample", [120, 1000])
def test_however_a_log_is_cut_the_same_is_fitted_to_the_last_bit(sample):
    """Also where the sample is smaller than the log, rows share keys, or pieces differ in width."""
    features, reward, keys = sparse(600)
    keys = np.repeat(keys[::3], 3)
    narrow = features_from_columns(
        features.own[:, 0, :4].astype(np.int64), features.own_values[:, 0, :4]
    )
    parts = [
        features.take(slice(0, 250)),
        narrow.take(slice(250, 251)),
        narrow.take(slice(251, 600)),
    ]
    whole = RewardModel(sample=sample)
    whole.update(concatenate_features(parts), reward, keys)
    cuts = [(0, 250), (250, 251), (251, 600)]
    merged = RewardModel(sample=sample)
    for (start, stop), part in zip(cuts, parts, strict=True):
        piece = RewardModel(sample=sample)
        for at in range(start, stop, 97):
            rows = slice(at, min(at + 97, stop))
            wanted = piece.wanted(keys[rows])
            taken = part.take(slice(at - start, rows.stop - start)).take(wanted)
            piece.update(taken, reward[rows][wanted], keys[rows][wanted], rows=rows.stop - at)
        merged.merge(piece)
    one, other = whole.fit(), merged.fit()
    assert one.summary == other.summary
    assert (one.summary.rows, one.summary.of) == (min(sample, 600), 600)
    np.testing.assert_array_equal(one.predict(features, keys), other.predict(features, keys))
    with pytest.raises(ReplayError, match="merge"):
        RewardModel(bits=3).merge(RewardModel(bits=4))


def test_of_nothing_nothing_is_predicted_and_of_a_constant_the_constant():
    features, _, keys = sparse(50)
    assert not RewardModel().fit().predict(features, keys).any()
    for kinds in (RIDGE, ("logistic",)):
        found = fitted(features, np.full(50, 7.0), keys, kinds=kinds).predict(features, keys)
        assert found == pytest.approx(np.full((50, 1), 7.0), rel=1e-12)


@pytest.mark.parametrize("kind", ["ridge", "logistic", "gbm"])
def test_a_part_of_the_rows_is_predicted_as_with_all_of_them(kind):
    """Also a part in which no row is of some folds, or none at all."""
    features, reward, keys = sparse(60)
    model = fitted(features, reward, keys, kinds=[kind])
    whole = model.predict(features, keys)
    for rows in (slice(0, 0), slice(7, 8), slice(10, 13)):
        assert model.predict(features.take(rows), keys[rows]) == pytest.approx(
            whole[rows], rel=1e-12
        )


def test_what_is_not_finite_is_refused_by_name():
    features, reward, keys = sparse(10)
    reward[3] = np.nan
    with pytest.raises(ReplayError, match="infinite or NaN"):
        RewardModel().update(features, reward, keys)
    for value in (math.nan, math.inf, -math.inf, 1e305):
        row = LoggedDecision("e7", {"price": value}, ["a", "b"], 0, 0.5, 1.0)
        for bad in (row, replace(row, context={}, features=[{"price": value}, None])):
            with pytest.raises(ReplayError, match=r"e7.*'price'"):
                hash_rows(batch_of([bad]))


def test_the_logistic_model_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    y = (rng.random(500) < sigmoid(x @ [1.0, -2.0, 0.0, 0.5] - 2.0)).astype(float)
    fold = rng.integers(0, 2, 500)
    _, found = cross_fit_logistic(x, y, fold, 2, [3.0])
    for each in range(2):
        peer = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=1000).fit(
            x[fold != each], y[fold != each]
        )
        np.testing.assert_allclose(
            found[each], [*peer.coef_[0], *peer.intercept_], rtol=1e-5, atol=1e-5
        )


def test_each_kind_is_chosen_where_it_predicts_best():
    """A line: ridge. A steep curve: the logistic model. Neither: trees.

    Nothing to predict: no worse than the mean.
    """
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.0, 1.0, (1500, 2))
    keys = rng.integers(0, 2**64, 1500, np.uint64)
    features = features_from_columns(np.broadcast_to([5, 9], (1500, 2)), x)
    rewards = {
        "ridge": x[:, 0] + 0.1 * rng.normal(size=1500),
        "logistic": (rng.random(1500) < sigmoid(12.0 * x[:, 0] - 4.0)).astype(float),
        "gbm": np.sign(x[:, 0] * x[:, 1]) + 0.1 * rng.normal(size=1500),
    }
    for kind, reward in rewards.items():
        summary = fitted(features, reward, keys, kinds=("ridge", "logistic", "gbm")).summary
        assert summary.kind == kind, summary
        assert min(summary.losses.values()) == summary.losses[kind] < 0.6 * summary.constant
        assert summary.kind in summary.sentence
        assert "improves" not in summary.sentence
    noise = fitted(features, rng.normal(size=1500), keys).summary
    assert 0.98 * noise.constant <= min(noise.losses.values()) <= 1.01 * noise.constant
    alone = fitted(
        features_from_columns(np.zeros((50, 1), int), np.zeros((50, 1))),
        np.arange(50) % 2.0,
        keys[:50],
    ).summary
    assert "which no model improves on" in alone.sentence
    with pytest.raises(ReplayError, match="ridge, logistic, gbm"):
        OpeQuestion([UniformTarget()], models=["forest"])


# Units


class Leaning(RowTarget):
    """Half on the first action, the rest on the others."""

    def pmf(self, row: LoggedDecision):
        rest = len(row.action_ids) - 1
        return np.array([0.5, *[0.5 / rest] * rest])


def town(count: int = 160, seed: int = 0) -> list[LoggedDecision]:
    """Rewards of which numbers of the context, of actions and of a source say something.

    Some are not always there.
    """
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        context = {
            "age": float(rng.normal()),
            "hour": float(rng.integers(24)),
            "device": str(rng.choice(["tv", "pc"])),
        }
        if number % 3:
            context["income"] = float(rng.lognormal())
        features = [
            {"price": float(rng.uniform(1, 9)), "kind": "k"},
            None,
            {"price": float(rng.uniform(1, 9))},
        ]
        scores = {
            "cf": rng.normal(size=3).astype(np.float32),
            "new": np.array([0.1, np.nan, 0.4], np.float32),
        }
        chosen = int(rng.integers(3))
        price = (features[chosen] or {"price": 3.0})["price"]
        chance = sigmoid(np.array(context["age"] - 0.3 * price + 0.5 * scores["cf"][chosen]))
        row = LoggedDecision(
            f"e{number}", context, list("abc"), chosen, 1 / 3, float(rng.random() < chance)
        )
        out.append(
            replace(
                row,
                features=features,
                scores=scores,
                pmf=np.full(3, 1 / 3),
                time_ms=1000 * number + 1,
            )
        )
    return out


def changed(
    rows: Sequence[LoggedDecision], change: Callable[[str, float], float]
) -> list[LoggedDecision]:
    """Every number of the context and of the actions, by its name."""

    def of(given):
        if given is None:
            return None
        return {
            name: change(name, value) if isinstance(value, float) else value
            for name, value in given.items()
        }

    return [
        replace(row, context=of(row.context), features=[of(each) for each in row.features])
        for row in rows
    ]


def estimates(
    rows: Sequence[LoggedDecision], models: Sequence[str] = ("ridge", "logistic")
) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(
            OpeQuestion([LoggingTarget(), UniformTarget(), Leaning("leaning")], models=models),
            [MemoryPiece(rows)],
        )
    found = [
        (each.value, each.stderr) for result in report.results for each in result.estimates.values()
    ]
    return np.array(found)


def of_sessions(rows: Sequence[LoggedDecision]) -> np.ndarray:
    """Of sessions of four decisions."""
    named = [
        replace(row, context={**row.context, "s": str(at // 4)}) for at, row in enumerate(rows)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        question = SessionQuestion([LoggingTarget(), Leaning("leaning")], horizon=4, session="s")
        report = evaluate_sessions(question, [MemoryPiece(named)])
    return np.array(
        [
            (each.value, each.stderr)
            for result in report.results
            for each in result.estimates.values()
        ]
    )


NAMES = ("age", "hour", "income", "price")
POWERS = (-12, -6, 7, 12)
UNITS = [
    *({name: (10.0**power, 0.0)} for name, power in zip(NAMES, (-12, 12, 9, -9), strict=True)),
    *(dict.fromkeys(NAMES, (10.0**power, 0.0)) for power in POWERS),
    *({name: (1.0, 1e9)} for name in NAMES),
    {"age": (1e12, 0.0), "hour": (1e-12, 0.0), "income": (1.0, 5.0), "price": (1.0, 1e9)},
]


@pytest.fixture(scope="module")
def plain() -> tuple[np.ndarray, np.ndarray]:
    return estimates(town()), of_sessions(town())


@pytest.mark.parametrize("units", UNITS, ids=str)
def test_an_estimate_does_not_depend_on_the_unit_or_the_zero_of_a_feature(plain, units):
    def change(name: str, value: float) -> float:
        factor, offset = units.get(name, (1.0, 0.0))
        return factor * value + offset

    rows = changed(town(), change)
    assert estimates(rows) == pytest.approx(plain[0], rel=1e-6, abs=1e-9)
    assert of_sessions(rows) == pytest.approx(plain[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    "extra", ["constant", "duplicate", "collinear", "missing", "huge", "tiny", "one row", "mixed"]
)
def test_columns_that_say_nothing_new_are_no_trouble(plain, extra):
    def with_extra(number: int, context):
        age, hour = context["age"], context["hour"]
        more = {
            "constant": {"x": 1e12, "y": 0.0},
            "duplicate": {"x": age, "y": age},
            "collinear": {"x": 2.0 * age + 1e6 * hour, "y": age - hour},
            "missing": {},
            "huge": {"x": 1e299 * age},
            "tiny": {"x": 1e-300 * age},
            "one row": {"x": 1e12} if number == 17 else {},
            "mixed": {"x": 5.0 if number % 2 else "five"},
        }[extra]
        return {**context, **more}

    rows = [
        replace(row, context=with_extra(number, row.context)) for number, row in enumerate(town())
    ]
    for found, before in ((estimates(rows), plain[0]), (of_sessions(rows), plain[1])):
        assert np.isfinite(found).all()
        assert np.abs(found[:, 0] - before[:, 0]).max() < 3.0 * before[:, 1].max()
    if extra in {"constant", "missing"}:
        assert estimates(rows) == pytest.approx(plain[0], rel=0.05, abs=1e-3)


@pytest.mark.parametrize("value", [1e-12, 1.732e9, 1e100])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_few_rows_with_a_large_feature_are_no_traceback(value, count):
    rows = [
        LoggedDecision(f"{n}", {"now": value + 60.0 * n}, ["a", "b"], n % 2, 0.5, float(1 - n % 2))
        for n in range(count)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(OpeQuestion([UniformTarget()]), [MemoryPiece(rows)])
    assert report.results[0].estimates["ips"].value == pytest.approx(
        np.mean([row.reward for row in rows])
    )
    assert np.isfinite(report.results[0].estimates["dr"].value)


def test_every_kind_does_without_units():
    before = estimates(town(60), ["gbm"])
    after = estimates(changed(town(60), lambda _, value: 1e6 * value), ["gbm"])
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)


def test_more_shrinkage_is_chosen_where_there_is_less_to_learn():
    """Of 40 columns of noise and few rows the mean is left.

    Of a clear line, hardly anything is taken away.
    """
    rng = np.random.default_rng(3)
    x, fold = rng.normal(size=(200, 40)), np.arange(200) % 5
    noise, line = rng.random(200), 0.5 + 0.05 * x[:, 0]
    assert cross_fit_ridge(x, noise, fold, 5)[0] <= 1.03 * noise.var()
    assert cross_fit_ridge(x, line, fold, 5)[0] < 1e-6
    assert np.abs(cross_fit_logistic(x, (noise < 0.1) * 1.0, fold, 5)[1][:, :-1]).max() < 0.5


def test_a_reward_model_that_misleads_is_named():
    """Weights of up to 100 multiply its errors: DR varies more than an estimate without a model."""
    rng = np.random.default_rng(5)
    weight = np.where(rng.random(4000) < 0.01, 50.0, 0.5 / 0.99)
    reward = (rng.random(4000) < 0.1) * 1.0
    for spread, misled in ((0.0, False), (0.05, False), (0.3, False), (1.5, True)):
        predicted = np.clip(0.1 + spread * rng.normal(size=4000), 0.0, None)
        rows = OpeBatch(
            rng.integers(0, 2**64, 4000, np.uint64),
            reward,
            np.ones(4000),
            weight,
            predicted,
            predicted,
        )
        for name in ("dr", "sndr", "dros", "snips", "dm"):
            each = make_estimator(name)
            each.update(rows)
            found = each.estimate()
            assert ("squared error of a constant" in found.reason) == (
                misled and name in {"dr", "sndr", "dros"}
            ), name
            assert not misled or found.verdict != "reliable" or name == "snips"
