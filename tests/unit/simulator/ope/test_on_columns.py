"""Evaluation on columns: what a row-by-row computation says, to the last digits."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from support.row_by_row import hash_row_by_row, predict_row_by_row, target_row_by_row

from bandits.errors import ReplayError
from simulator.logs.actions.columns import ActionColumns, SourceScores
from simulator.logs.actions.from_rows import columns_from_maps, columns_from_rows, with_actions
from simulator.logs.rows import LazyDecisions, LogBatch, LoggedDecision, MemoryPiece, batch_of
from simulator.logs.scored_rows import ScoredRows
from simulator.logs.text_records import WEIGHT
from simulator.ope.feature_design import FeatureScales
from simulator.ope.hashed_features import HashedFeatures, hash_in_parts, hash_rows
from simulator.ope.reward_model import RewardModel
from simulator.ope.table_target import TableTarget
from simulator.ope.target_batch import predict_actions, target_batch
from simulator.ope.targets import (
    GreedyTarget,
    LoggingTarget,
    RowTarget,
    SourceTarget,
    UniformTarget,
)
from simulator.replay.evaluate import OpeQuestion, evaluate, make_plan, report_of

DEVICES = ("tv", "pc", "phone")


def mixed(count: int = 120, seed: int = 0, *, pmfs: str = "all") -> list[LoggedDecision]:
    """Rows of all that a log may hold: slates, lists, what some rows and some actions lack."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        k = int(rng.integers(1, 9)) if number % 5 else 70
        ids = [f"item{at}" for at in rng.permutation(90)[:k]]
        pmf = rng.dirichlet(np.ones(k))
        pmf[rng.random(k) < 0.2] = 0.0
        pmf = pmf / pmf.sum() if pmf.any() else np.full(k, 1.0 / k)
        chosen = int(rng.choice(k, p=pmf))

        context: dict = {"age": float(rng.normal()), "device": str(rng.choice(DEVICES))}
        if number % 3:
            context["tags"] = [str(tag) for tag in rng.permutation(["a", "b", "c"])[: number % 4]]
        if number % 4 == 1:
            context |= {"member": bool(rng.integers(2)), "income": float(rng.lognormal())}
        features = None
        if number % 6:
            features = [
                {"price": float(rng.uniform(1, 9)), "new": True, "kind": str(at % 3)}
                if at % 3
                else (None if at % 2 else {})
                for at in range(k)
            ]
        scores = {}
        if number % 7:
            scores["cf"] = rng.integers(0, 4, k).astype(np.float32)
            scores["cf"][rng.random(k) < 0.3] = np.nan
        if number % 2:
            scores["deep"] = rng.normal(size=k).astype(np.float32)

        known = pmfs == "all" or (pmfs == "some" and number % 4 < 2)
        out.append(
            LoggedDecision(
                f"e{number // 2}",
                context,
                ids,
                chosen,
                float(pmf[chosen]),
                float(rng.random() < 0.4) + context["age"],
                features=features,
                scores=scores,
                pmf=pmf if known else None,
                slot=number % 2,
                time_ms=3_600_000 * number,
            )
        )
    return out


def assert_same_features(found: HashedFeatures, expected: HashedFeatures) -> None:
    """The same ids, and for each context and action the same hashes with the same values."""
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.there, expected.there)
    for hashes, values in (("context", "values"), ("own", "own_values")):
        pairs = []
        for of in (found, expected):
            names, numbers = getattr(of, hashes), getattr(of, values)
            shape = (math.prod(names.shape[:-1]), names.shape[-1])
            flat = names.reshape(shape), numbers.reshape(shape)
            pairs.append(
                [
                    sorted((n, v) for n, v in zip(*row, strict=True) if not math.isnan(v))
                    for row in zip(*flat, strict=True)
                ]
            )
        assert pairs[0] == pairs[1]


@pytest.mark.parametrize("chosen", [False, True])
def test_features_are_those_of_each_row_hashed_by_itself(chosen):
    rows = mixed()
    found = hash_rows(batch_of(rows), chosen=chosen)
    assert_same_features(found, hash_row_by_row(rows, chosen=chosen))


def test_maps_come_back_from_their_columns():
    maps = [
        {"a": 1.0, "b": "x", "c": True, "d": ["p", "q"], "e": []},
        None,
        {"b": "1", "a": -0.5, "c": False},
        {"a": "1.0", "d": []},
    ]
    columns = columns_from_maps(maps)
    assert [columns.feature_map(at) for at in range(4)] == [each or {} for each in maps]
    assert [list(columns.feature_map(at)) for at in (0, 2)] == [list("abcde"), list("bac")]
    for places in ([2, 0], slice(1, 3), np.array([True, False, False, True])):
        taken = columns.take(places)
        expected = np.array(maps, object)[places]
        assert [taken.feature_map(at) for at in range(len(taken))] == [
            each or {} for each in expected
        ]


def test_some_rows_are_what_their_own_columns_would_be():
    rows = mixed()
    whole = columns_from_rows(rows)
    for places in (slice(10, 40), np.array([7, 3, 3, 99]), np.arange(120) % 3 == 0, slice(0, 0)):
        taken = whole.take(places)
        expected = columns_from_rows([rows[at] for at in np.arange(120)[places]])
        assert same_rows(taken, expected)


def same_rows(one: ActionColumns, other: ActionColumns) -> bool:
    """Whether both say the same of each row, whatever their dictionaries."""
    names = [[of.names[code] for code in of.ids] for of in (one, other)]
    assert names[0] == names[1]
    for name in ("offsets", "chosen", "pmf", "chosen_at", "lacking"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for of, others in ((one.context, other.context), (one.features, other.features)):
        if of is not None and others is not None:
            maps = [[each.feature_map(at) for at in range(len(each))] for each in (of, others)]
            assert maps[0] == maps[1]
    for source, scores in other.scores.items():
        np.testing.assert_array_equal(one.scores[source].values, scores.values)
    return len(one) == len(other)


# Targets


class Half(RowTarget):
    """Half on the first action, and nothing on any other."""

    def pmf(self, row: LoggedDecision):
        return np.where(np.arange(len(row.action_ids)) == 0, 0.5, 0.0)


def assert_same_batch(found, expected) -> None:
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert (one is None) == (other is None), field.name
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15, err_msg=field.name)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("pmfs", ["all", "some", "none"])
def test_a_target_does_what_it_would_do_row_by_row(pmfs, counted):
    rows = [row for row in mixed(pmfs=pmfs) if "deep" in row.scores]
    batch = batch_of(rows)
    if counted:
        batch = replace(batch, columns={WEIGHT: np.linspace(1.0, 3.0, len(rows))})
    model = fitted(rows)
    predictions = predict_row_by_row(model, rows, batch.keys)
    flat = np.concatenate(predictions)
    for target in (UniformTarget(), LoggingTarget(), SourceTarget("d", "deep"), Half("half")):
        found = target_batch(target, batch, flat, has_pmfs=True, counted=counted)
        assert_same_batch(found, target_row_by_row(target, batch, predictions, counted=counted))
        found = target_batch(target, batch, None, has_pmfs=True, counted=counted)
        assert_same_batch(found, target_row_by_row(target, batch, counted=counted))


def test_the_best_of_a_source_share_and_a_row_without_its_score_is_named():
    rows = [row for row in mixed() if not np.isnan(row.scores.get("cf", [np.nan])).all()]
    target = SourceTarget("cf", "cf")
    expected = np.concatenate([target.pmf(row) for row in rows])
    np.testing.assert_array_equal(target.flat_pmfs(with_actions(batch_of(rows))), expected)

    silent = replace(rows[5], event_id="quiet", scores={"cf": np.full(70, np.nan, np.float32)[:1]})
    silent = replace(silent, action_ids=["x"], chosen=0, features=None, pmf=np.ones(1))
    for bad in (silent, replace(silent, scores={}), replace(silent, scores={"deep": np.ones(1)})):
        for log in ([*rows, bad], [bad]):
            with pytest.raises(ReplayError, match=r"event quiet has scores of .* none of 'cf'"):
                target.flat_pmfs(batch_of(log))


def test_a_table_gives_each_row_its_own(tmp_path):
    path = tmp_path / "t.csv"
    lines = [
        f"{device},{member},item{at},{1 / 90:.12f}"
        for device in DEVICES
        for member in ("true", "false", "")
        for at in range(90)
    ]
    path.write_text("device,member,action,probability\n" + "\n".join(lines))
    target, rows = TableTarget(path), mixed()
    expected = np.concatenate([target.pmf(row) for row in rows])
    np.testing.assert_array_equal(target.flat_pmfs(batch_of(rows)), expected)

    path.write_text("action,probability\nitem1,0.25\nitem2,0.75\n")
    target = TableTarget(path)
    expected = np.concatenate([target.pmf(row) for row in rows])
    np.testing.assert_array_equal(target.flat_pmfs(batch_of(rows)), expected)

    path.write_text("tags,action,probability\na|b,item1,1\n")
    with pytest.raises(ReplayError, match="has no row for tags="):
        TableTarget(path).flat_pmfs(batch_of(rows))


# The reward model


def fitted(rows: Sequence[LoggedDecision], **options):
    batch = batch_of(rows)
    model = RewardModel(**options)
    model.update(hash_rows(batch, chosen=True), batch.reward, batch.keys)
    return model.fit()


@pytest.mark.parametrize("kind", ["ridge", "logistic", "gbm"])
def test_every_action_is_predicted_as_by_its_matrix(kind):
    rows = mixed(400)
    model = fitted(rows[:200], kinds=[kind], bits=5)
    rows = rows[: 40 if kind == "gbm" else 120]
    batch = batch_of(rows)
    expected = np.concatenate(predict_row_by_row(model, rows, batch.keys))
    np.testing.assert_allclose(predict_actions(model, batch), expected, rtol=1e-12, atol=1e-13)
    assert len(set(expected.tolist())) > 10


def test_units_enter_as_standard_says():
    """Also of a hash that the scales do not know, of one that some rows lack, and of no scales."""
    rows = mixed()
    scales = FeatureScales.of(hash_rows(batch_of(rows), chosen=True))
    hashes = np.concatenate([scales.hashes, np.array([1, 2], np.uint32)])
    values = np.linspace(-2.0, 2.0, len(hashes))
    expected, partial = scales.standard(hashes, values)
    largest, mean, deviation, state = scales.units(hashes).T
    known = state > 0.0
    varying = (values / np.where(known, largest, 1.0) - mean) / np.where(deviation, deviation, 1.0)
    np.testing.assert_array_equal(np.where(deviation > 0.0, varying, 1.0)[known], expected[known])
    np.testing.assert_array_equal(state == 2.0, partial)
    assert partial.any()
    assert not expected[~known].any()
    assert not FeatureScales.of(hash_rows(batch_of([]))).units(hashes).any()


def test_parts_that_fit_the_memory_are_all_rows_in_their_order(monkeypatch):
    rows = mixed()
    monkeypatch.setattr("simulator.ope.hashed_features.CELLS", 500)
    parts = list(hash_in_parts(batch_of(rows)))
    assert len(parts) > 10
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]
    for part, features in parts:
        assert_same_features(features, hash_row_by_row(rows[part]))


# The whole


def row_by_row(question: OpeQuestion, rows: Sequence[LoggedDecision]):
    """The report of a question, each row by itself and one model for all."""
    batch = batch_of(rows)
    plan = make_plan(question, [MemoryPiece(rows)])
    model = question.reward_model()
    model.update(hash_row_by_row(rows, chosen=True), batch.reward, batch.keys)
    predictions = predict_row_by_row(model.fit(), rows, batch.keys)

    total = plan.empty()
    total.count(batch)
    seen = {
        target.name: target_row_by_row(
            target, batch, predictions, has_pmfs=target.name in plan.modelled
        )
        for target in question.targets
    }
    total.chart_sums.update(with_actions(batch), seen)
    for (policy, _), estimator in total.estimates.items():
        estimator.update(seen[policy])
    for (left, right, _), difference in total.differences.items():
        difference.update(seen[left], seen[right])
    return report_of(plan, total)


@pytest.mark.parametrize("pmfs", ["all", "some"])
@pytest.mark.parametrize("interval", ["normal", "bootstrap"])
def test_a_report_says_what_it_would_say_row_by_row(pmfs, interval):
    rows = [row for row in mixed(pmfs=pmfs) if "deep" in row.scores]
    targets = [UniformTarget(), LoggingTarget(), SourceTarget("deep", "deep"), Half("half")]
    question = OpeQuestion(targets, interval=interval)
    found, expected = evaluate(question, [MemoryPiece(rows)]), row_by_row(question, rows)
    for one, other in zip(found.results, expected.results, strict=True):
        assert one.estimates.keys() == other.estimates.keys()
        assert len(one.estimates) == 8
        for name, estimate in other.estimates.items():
            assert_close(one.estimates[name], estimate)
    for one, other in zip(found.comparisons, expected.comparisons, strict=True):
        assert_close(one.result, other.result)
    assert found.charts.weights == expected.charts.weights
    for one, other in zip(found.charts.actions, expected.charts.actions, strict=True):
        assert (one.action, one.share) == (other.action, other.share)


def assert_close(one, other) -> None:
    for name in one.__struct_fields__:
        found, expected = getattr(one, name), getattr(other, name)
        if isinstance(expected, (float, tuple)):
            assert found == pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True), name
        else:
            assert found == expected, name


def columns_only(rows: Sequence[LoggedDecision], asked: list[str]) -> LogBatch:
    """A batch as an archive gives it: columns, and rows that are made when they are looked at."""
    of = columns_from_rows(rows)

    def made(name, value):
        asked.append(name)
        return value

    def decisions(numbers):
        asked.append("rows")
        return [rows[at] for at in numbers]

    actions = replace(
        of,
        make_scores=lambda: made("scores", of.scores),
        make_context=lambda: made("context", of.context),
        make_features=lambda: made("features", of.features),
    )
    lazy = LazyDecisions(decisions, np.arange(len(rows)))
    return replace(batch_of(rows), actions=actions, decisions=lazy)


class Columns:
    """A piece of one batch of columns."""

    skipped = 0

    def __init__(self, rows: Sequence[LoggedDecision]) -> None:
        self.rows, self.asked = rows, list[str]()

    def batches(self):
        yield columns_only(self.rows, self.asked)


def test_weights_need_no_features_and_no_rows():
    rows = mixed()
    piece = Columns(rows)
    targets = [UniformTarget(), LoggingTarget()]
    names = ("ips", "clipped_ips", "snips")
    found = evaluate(OpeQuestion(targets, names), [piece])
    assert piece.asked == []
    assert found == evaluate(OpeQuestion(targets, names), [MemoryPiece(rows)])


def test_a_log_of_columns_gives_the_report_of_its_rows():
    rows = mixed()
    for targets in (
        [UniformTarget(), GreedyTarget(), SourceTarget("deep", "deep")],
        [Half("half")],
    ):
        question, piece = OpeQuestion(targets), Columns(rows)
        assert evaluate(question, [piece]) == evaluate(question, [MemoryPiece(rows)])
        assert ("rows" in piece.asked) == isinstance(targets[0], Half)


def test_rows_that_a_source_did_not_score_are_left_out_of_columns_too():
    rows = mixed()
    pieces = [ScoredRows(piece, ["cf", "deep"]) for piece in (Columns(rows), MemoryPiece(rows))]
    batches = [list(piece.batches()) for piece in pieces]
    expected = [
        row.event_id
        for row in rows
        if "deep" in row.scores and not np.isnan(row.scores.get("cf", [np.nan])).all()
    ]
    for piece, (batch,) in zip(pieces, batches, strict=True):
        assert [row.event_id for row in batch.decisions] == expected
        assert (piece.unscored, piece.known) == (len(rows) - len(expected), {"cf", "deep"})
        assert same_rows(batch.actions, columns_from_rows(list(batch.decisions)))


def test_rows_are_made_when_they_are_looked_at_and_some_at_a_time():
    asked: list[int] = []

    def make(numbers):
        asked.append(len(numbers))
        return [f"row {at}" for at in numbers]

    rows = LazyDecisions(make, np.arange(2500))
    assert (len(rows), asked) == (2500, [])
    assert rows[-1] == "row 2499"
    assert list(rows[1:2500:1000]) == ["row 1", "row 1001", "row 2001"]
    assert list(rows.take(np.array([5, 3]))) == ["row 5", "row 3"]
    assert list(rows) == [f"row {at}" for at in range(2500)]
    assert asked == [1, 3, 2, 1000, 1000, 500]


def test_a_source_that_answered_nothing_differs_from_one_that_was_not_asked():
    """The first says of every action that it has no score; the second says nothing."""
    nobody = SourceScores(np.full(2, np.nan, np.float32), np.array([False]))
    asked = SourceScores(np.full(2, np.nan, np.float32))
    row = LoggedDecision("e", {}, ["a", "b"], 0, 0.5, 1.0)
    for scores, width in ((nobody, 0), (asked, 1)):
        actions = replace(columns_from_rows([row]), make_scores=lambda of=scores: {"cf": of})
        found = hash_rows(replace(batch_of([row]), actions=actions))
        assert (~np.isnan(found.own_values)).sum() == 2 * width
