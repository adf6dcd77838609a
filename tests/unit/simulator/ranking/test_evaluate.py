"""Sources are judged by what users did later; a spec is chosen by what was measured."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.small_ranking import (
    crowds,
    events_of,
    fashions,
    items_of,
    small_artifact,
    train_small,
)

from bandits.errors import DataSetError
from policies.data.manifest import WeightOptions
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.fits import TrainConfig, fit_source
from policies.training.histories import histories_of
from policies.training.scorers.network import ScorerConfig
from policies.training.training_data import Course, TrainingData
from policies.typed_yaml import parse_yaml
from serve_app.cli.evaluate.tables import ranking_tables
from serve_app.cli.terminal import print_report
from simulator.ranking.asking import TrainedModels, ask, best_of
from simulator.ranking.choose import choose_spec
from simulator.ranking.evaluate import RankingOptions, evaluate_sources
from simulator.ranking.page import ranking_page
from simulator.ranking.report import RankingReport
from simulator.ranking.splits import split_events
from simulator.ranking.task import make_task
from simulator.ranking.training import models_of

NO_WEIGHTS = WeightOptions()


def evaluate(events, *, weights=NO_WEIGHTS, train=train_small, items=None, **options):
    options = RankingOptions(**{"split": "user-time", **options})
    return evaluate_sources("small", events, items or items_of(events), weights, options, train)


@pytest.fixture(scope="module")
def crowd_report():
    return evaluate(crowds(), user_knn=True)


@pytest.fixture(scope="module")
def fashion_report():
    return evaluate(fashions())


def test_a_list_is_what_a_source_proposes_ties_in_the_order_of_items():
    scores = np.array([[1, 3, 3, -np.inf, 2], [-np.inf, -np.inf, 0, -np.inf, -np.inf]])
    assert best_of(scores, 3).tolist() == [[1, 2, 4], [2, -1, -1]]
    assert best_of(scores, 9)[0].tolist() == [1, 2, 4, 0, -1, -1, -1, -1, -1]
    rng = np.random.default_rng(1)
    many = rng.integers(0, 9, (50, 40)).astype(np.float32)
    assert np.array_equal(best_of(many, 7), np.argsort(-many, axis=1, kind="stable")[:, :7])


def test_nothing_of_the_history_is_listed():
    events = crowds(users=60)
    split = split_events(events, "user-time")
    early = events.select(split.train)
    trained = train_small(early)
    task = make_task(events, split, trained.items, rating_scale=None, most_users=99, seed=0)
    for answers in ask(trained, task.known):
        for scores in answers.open.values():
            lists = best_of(scores, 30)
            assert not task.known.sets.rows(answers.users).holds(lists).any()
            assert (lists[:, 0] >= 0).all()


def test_a_better_source_is_significantly_better(crowd_report):
    test = next(t for t in crowd_report.tests if (t.left, t.right) == ("item_knn", "popular"))
    assert test.difference > 0.1
    assert test.low > 0
    assert test.adjusted < 0.01
    ndcg = crowd_report.result("item_knn").metrics["ndcg"]
    assert ndcg.low < ndcg.value < ndcg.high


def test_sources_that_are_alike_are_not_told_apart():
    """The same source twice: no difference, and p is 1."""

    def twice(events, purpose):
        trained = train_small(events, purpose)
        return TrainedModels(
            trained.items,
            {"one": trained.models["popular"], "two": trained.models["popular"]},
            {"one": trained.scales["popular"], "two": trained.scales["popular"]},
        )

    report = evaluate(fashions(users=80), train=twice)
    test = next(t for t in report.tests if (t.left, t.right) == ("one", "two"))
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_fusions_are_rows_beside_the_sources(crowd_report):
    kinds = {row.name: row.kind for row in crowd_report.results}
    assert [name for name, kind in kinds.items() if kind == "source"] == ["item_knn", "popular"]
    assert set(kinds) > {"weighted", "borda", "rrf", "stack_ridge", "stack_logistic"}
    best = crowd_report.result("item_knn").metrics["ndcg"].value

    # What is fitted finds the source that knows.
    for name in ("weighted", "stack_ridge", "stack_logistic"):
        assert crowd_report.result(name).metrics["ndcg"].value > 0.9 * best


def test_users_without_a_history_are_a_group_that_popularity_answers():
    events = fashions(users=100)
    early = fashions(users=50, seed=3)
    both = events_of(
        np.concatenate([early.user, 1000 + events.user]),
        np.concatenate([early.item, events.item]),
        np.concatenate([early.time, 100 + events.time]),
    )
    report = evaluate(both, split="global-time", share=0.66)
    assert report.user_groups["new"] == report.split.evaluated_users == 100
    assert report.result("item_knn").answered == 0
    assert report.result("popular").user_groups["new"].value > 0.1
    assert report.result("popular").user_groups["light"].value is None


def test_what_events_are_worth_weighs_the_items_of_lists_and_pools():
    """Half of the items are bought, which is worth ten views, and one source lists these first.

    Where all events are worth the same there is no such column.
    """
    events = fashions(users=120)
    bought = (events.item % 2).astype(np.int16)
    typed = replace(events, types=("view", "purchase"), type=bought)

    def train(early, _purpose):
        whole = small_artifact(early)
        counts = whole.sources["popular"].arrays["counts"]
        odd = np.array([int(item[1:]) % 2 for item in whole.items], np.float32)
        sources = {
            name: replace(whole.sources["popular"], arrays={"counts": (1 + 9 * first) * counts})
            for name, first in (("viewed", 1 - odd), ("bought", odd))
        }
        return models_of(replace(whole, sources=sources))

    plain = evaluate(typed, train=train, fuse=False)
    assert plain.result("bought").metrics["graded_ndcg"].value is None
    weights = WeightOptions(types={"view": 1.0, "purchase": 10.0})
    weighed = evaluate(typed, train=train, weights=weights, fuse=False)
    assert weighed.result("bought").metrics["ndcg"] == plain.result("bought").metrics["ndcg"]
    graded = {row.name: row.metrics["graded_ndcg"].value for row in weighed.results}
    assert graded["bought"] > 2 * graded["viewed"] > 0
    assert weighed.pools[0].sources == ["bought"]
    assert weighed.pools[0].recall > 1.3 * plain.pools[0].recall


def test_neighbours_of_users_are_a_row_to_compare_with_and_never_chosen(crowd_report):
    """They know the crowds, and no pool, fusion or spec has them."""
    report = crowd_report
    row = report.result("user_knn")
    assert (row.kind, row.needs_history, row.answered) == ("reference", True, 1.0)
    assert row.metrics["ndcg"].value > 3 * report.result("popular").metrics["ndcg"].value
    assert any("user_knn" in (test.left, test.right) for test in report.tests)
    assert all("user_knn" not in pool.sources for pool in [*report.pools, *report.limits])
    assert "user_knn" not in choose_spec(report, name="home", artifact="shop").yaml
    assert "user_knn" in ranking_page(report)


def test_ratings_are_predicted_from_scores():
    """Popular items are the better rated here, so popularity says something of ratings."""
    events = fashions()
    rng = np.random.default_rng(2)
    stars = np.clip(5 - events.item / 20 + rng.normal(0, 0.3, len(events)), 1, 5)
    rated = events_of(events.user, events.item, events.time, value=stars)
    weights = WeightOptions(rating_scale=(1.0, 5.0))
    report = evaluate(rated, weights=weights, user_knn=True)
    assert report.result("user_knn").metrics.get("rmse") is None
    errors = report.result("popular").metrics
    test = rated.value[split_events(rated, "user-time").test]
    assert errors["rmse"].value < 0.9 * test.std()
    assert errors["rmse"].value ** 2 == pytest.approx(errors["mse"].value)
    assert "a + b * score" in report.ratings


def test_on_data_sets_with_different_best_sources_the_specs_differ(crowd_report, fashion_report):
    crowd, fashion = (
        choose_spec(report, name="home", artifact="shop")
        for report in (crowd_report, fashion_report)
    )
    assert [source.name for source in crowd.spec.sources] == ["item_knn", "popular"]
    assert [source.name for source in fashion.spec.sources] == ["popular", "item_knn"]
    assert crowd.spec.limit != fashion.spec.limit
    assert "#   item_knn: knows what each user did" in fashion.yaml


def test_content_is_chosen_where_users_turned_to_items_without_events(crowd_report):
    """The others cannot propose these, however many relevant items they hold."""
    knn = crowd_report.result("item_knn")
    results = [*crowd_report.results, msgspec.structs.replace(knn, name="content")]
    for unknown, chosen in ((0, False), (7, True)):
        split = msgspec.structs.replace(crowd_report.split, unknown_items=unknown)
        report = msgspec.structs.replace(crowd_report, results=results, split=split)
        spec = choose_spec(report, name="home", artifact="shop")
        assert ("content" in [source.name for source in spec.spec.sources]) is chosen
        assert ("7 test events name such" in spec.yaml) is chosen


def test_a_chosen_spec_names_the_rows_it_rests_on(crowd_report):
    chosen = choose_spec(crowd_report, name="home", artifact="shop").with_fields(floor=0.02)
    text = chosen.yaml
    assert chosen.spec.floor == 0.02
    assert parse_yaml(text) == chosen.fields
    assert f"#   item_knn: {crowd_report.pools[0].recall:.4f}" in text
    assert "popular: answers users without a history" in text
    for row in crowd_report.learners:
        assert f"{row.name}: {row.ndcg.value:.4f}" in text
    for row in crowd_report.limits:
        assert f"{row.limit}: recall {row.recall:.4f}" in text


def test_the_same_seed_gives_the_same_report(crowd_report):
    again = msgspec.to_builtins(evaluate(crowds(), user_knn=True))
    before = msgspec.to_builtins(crowd_report)
    for report in (again, before):
        report["seconds"] = 0
        for row in report["results"]:
            row["ask_ms"] = row["train_s"] = None
        for row in report["learners"]:
            row["seconds"] = 0
    assert again == before


def test_a_report_is_json_a_page_and_tables(crowd_report, capsys):
    data = msgspec.json.encode(crowd_report)
    assert msgspec.json.decode(data, type=RankingReport).split == crowd_report.split

    page = ranking_page(crowd_report)
    assert page.count("<svg") == 5
    assert "http" not in page.replace("http-equiv", "")

    # No figure is cut, nor where a column more says what events are worth.
    rows = [
        msgspec.structs.replace(row, metrics={**row.metrics, "graded_ndcg": row.metrics["ndcg"]})
        for row in crowd_report.results
    ]
    for report in (crowd_report, msgspec.structs.replace(crowd_report, results=rows)):
        print_report(report, ranking_tables(report), None, as_json=False)
        printed = capsys.readouterr().out
        assert "…" not in printed.replace("Lists…", "")
        assert all(row.name in printed for row in report.results)


def test_without_fusion_nothing_is_trained_twice():
    purposes = []

    def train(events, purpose):
        purposes.append(purpose)
        return train_small(events)

    report = evaluate(crowds(users=40), train=train, fuse=False)
    assert purposes == ["sources"]
    assert {row.kind for row in report.results} == {"source"}
    assert choose_spec(report, name="home", artifact="shop").spec.sources


def test_a_validation_part_that_cannot_be_is_a_note():
    """Two events by user: one tests, and one is left to train on."""
    events = crowds(users=50, each=2)
    report = evaluate(events, split="last-one")
    assert [n for n in report.notes if n.startswith("nothing is fitted")]
    assert "15 users are few" in " ".join(report.notes)
    assert {"borda", "rrf"} < {row.name for row in report.results}
    assert "weighted" not in {row.name for row in report.results}


def test_one_item_leaves_nothing_to_find():
    events = events_of([0, 0, 1, 1], [5, 5, 5, 5], [1, 2, 1, 2])
    with pytest.raises(DataSetError, match="no user of the test part can be judged"):
        evaluate(events)


def with_a_scorer(*proposing):
    """Return what trains sources, and a factorisation machine that scores what they propose."""

    def train(events, _purpose="sources"):
        artifact = small_artifact(events)
        data = TrainingData(
            histories_of(events),
            describe([], ContentConfig()),
            contexts={user: {"crowd": crowd_of(user, events)} for user in events.user_ids},
        )
        config = TrainConfig(fm=ScorerConfig(factors=4, epochs=10, batch=256, learning_rate=0.02))
        sources = {name: artifact.sources[name] for name in proposing}
        sources["fm"] = fit_source("fm", data, config, Course(1))
        return models_of(replace(artifact, items=data.histories.items, sources=sources))

    return train


def crowd_of(user, events):
    """The crowd of a user, by any of the items."""
    row = events.item[events.user == events.user_ids.index(user)][0]
    return f"c{int(events.item_ids[row][1:]) // 20}"


def test_a_scorer_is_a_row_of_the_report_and_a_part_of_fusions():
    """It brings no candidates; the learners that are tried see its scores, and so do fusions."""
    events = crowds(users=120)
    contexts = {user: {"crowd": crowd_of(user, events)} for user in events.user_ids}
    report = evaluate_sources(
        "small",
        events,
        items_of(events),
        NO_WEIGHTS,
        RankingOptions(split="user-time"),
        with_a_scorer("popular"),
        contexts=contexts,
    )
    scorer, source = report.result("fm"), report.result("popular")
    assert (scorer.kind, source.kind) == ("scorer", "source")
    assert scorer.metrics["auc"].value > source.metrics["auc"].value + 0.1
    assert scorer.metrics["log_loss"].value < source.metrics["log_loss"].value
    assert scorer.metrics["ndcg"].value > source.metrics["ndcg"].value
    assert scorer.ask_ms > 0
    assert "fm" in report.result("weighted").note

    assert [row.sources for row in report.pools] == [["popular"]]
    assert all(row.sources == ["popular"] for row in report.limits)
    best = report.result("stack_logistic").metrics
    assert best["ndcg"].value > source.metrics["ndcg"].value
    share = float(next(note for note in report.notes if "log loss" in note).split()[-1])
    assert best["log_loss"].value < share


def test_scorers_alone_are_judged_and_make_no_spec():
    report = evaluate(crowds(users=120), train=with_a_scorer())
    assert report.result("fm").kind == "scorer"
    assert report.result("fm").metrics["log_loss"].value is None
    assert report.pools == report.limits == []
    assert ranking_page(report).count("<svg") == 4
    assert ranking_tables(report)
    with pytest.raises(DataSetError, match="none of these sources proposes anything"):
        choose_spec(report, name="home", artifact="shop")
