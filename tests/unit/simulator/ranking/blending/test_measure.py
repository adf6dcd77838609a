"""A blend without each of its sources: what is missed, what can be spared, what it costs."""

import json
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from support.small_ranking import crowds, items_of, small_artifact, train_small

from bandits.errors import ArtifactError
from policies.artifacts import source_artifact
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.blend import make_learner
from policies.data.manifest import WeightOptions
from policies.data.writer import write_data_set
from policies.items.catalogue import Catalogue
from policies.training.fits import TrainConfig
from policies.training.scorers.network import ScorerConfig
from policies.training.train import run_training
from serve_app.cli.evaluate.tables import ranking_tables
from serve_app.cli.main import main
from serve_app.cli.terminal import print_report
from simulator.ranking.blending.decisions import BlendUsers, decide_for_all, make_rankers
from simulator.ranking.blending.measure import blend_of, measure_blend
from simulator.ranking.choose import choose_spec
from simulator.ranking.evaluate import RankingOptions, evaluate_sources, silent
from simulator.ranking.page import ranking_page
from simulator.ranking.report import blend_sentence
from simulator.ranking.splits import split_events
from simulator.ranking.task import make_task
from simulator.ranking.training import models_of


def with_twin(events):
    """The small sources, and a second of the same neighbours: either can be spared, not both."""
    made = small_artifact(events)
    return replace(made, sources={**made.sources, "twin": made.sources["item_knn"]})


def evaluated(train, **options):
    events = crowds(users=180)
    options = RankingOptions(split="user-time", blend=True, **options)
    return evaluate_sources("small", events, items_of(events), WeightOptions(), options, train)


@pytest.fixture(scope="module")
def report():
    return evaluated(train_small)


def test_what_is_missed_is_kept_and_what_is_not_can_be_spared(report):
    rows = {tuple(row.without): row for row in report.blend.rows}
    assert list(rows) == [(), ("item_knn",), ("popular",)]
    assert rows["item_knn",].verdict == "keep"
    assert rows["item_knn",].lost_ndcg.low > 0.2
    assert rows["popular",].verdict in {"spare", "harms"}
    assert rows[()].verdict == ""
    assert "missed when left out: item_knn" in blend_sentence(report.blend)


def test_two_that_say_the_same_can_be_spared_one_at_a_time_and_not_together():
    found = evaluated(lambda events, _purpose: models_of(with_twin(events))).blend
    verdicts = {row.without[0]: row.verdict for row in found.rows if row.without}
    assert verdicts["item_knn"] == verdicts["twin"] == "spare"
    assert len({"item_knn", "twin"} - set(found.spared.without)) == 1
    assert len({"item_knn", "twin"} & set(found.keeps)) == 1


def trained_with_a_scorer(events, _purpose):
    config = TrainConfig(fm=ScorerConfig(factors=4, epochs=4, learning_rate=0.02))
    run = run_training(events, items_of(events), sources=["popular", "fm"], config=config)
    return models_of(run.artifact)


def test_what_only_scores_is_worth_its_order_and_proposes_nothing():
    found = evaluated(trained_with_a_scorer).blend
    rows = {tuple(row.without): row for row in found.rows}
    assert set(rows) == {(), ("popular",), ("fm",)}
    assert rows["popular",].ndcg.value == 0.0  # nobody is left who proposes
    assert rows["popular",].verdict == "keep"
    assert rows["fm",].lost_ndcg.value > 0.0


def test_what_a_row_loses_is_the_difference_to_the_whole(report):
    whole, *others = report.blend.rows
    for row in others:
        assert row.lost_ndcg.value == pytest.approx(whole.ndcg.value - row.ndcg.value)
        assert row.lost_reward.value == pytest.approx(whole.reward.value - row.reward.value)
        assert row.lost_ndcg.low <= row.lost_ndcg.value <= row.lost_ndcg.high
        assert row.mb + row.saved_mb == pytest.approx(whole.mb)
        assert row.ms > 0


def test_the_same_seed_gives_the_same_figures(report):
    again = evaluated(train_small)
    for one, other in zip(report.blend.rows, again.blend.rows, strict=True):
        assert (one.ndcg, one.reward, one.lost_ndcg) == (other.ndcg, other.reward, other.lost_ndcg)


def test_the_report_shows_the_table_and_the_page(report, capsys):
    print_report(report, ranking_tables(report), None, as_json=False)
    said = capsys.readouterr().out
    assert "A blend of all sources, and without each" in said
    assert "missed when left out: item_knn" in said.replace("\n", " ")
    assert "What each source is worth to a blend" in ranking_page(report)


def test_a_source_that_a_blend_misses_is_chosen_though_others_hold_as_much(report):
    lost = report.blend.rows[1].lost_ndcg
    rows = [
        msgspec.structs.replace(report.blend.rows[1], without=[name], lost_ndcg=lost)
        for name in ("fm", "popular", "item_knn")
    ]
    whole, spared = report.blend.rows[0], rows[1]
    blend = msgspec.structs.replace(report.blend, rows=[whole, *rows], spared=spared)
    assert set(blend.keeps) == {"fm", "item_knn"}

    scorer = msgspec.structs.replace(report.results[0], name="fm", kind="scorer")
    report = msgspec.structs.replace(report, results=[*report.results, scorer])
    judged = msgspec.structs.replace(report, blend=blend)
    chosen = choose_spec(judged, name="home", artifact="shop")
    before = choose_spec(msgspec.structs.replace(report, blend=None), name="home", artifact="shop")
    names = [[source.name for source in each.spec.sources] for each in (before, chosen)]
    assert names[1] == [*names[0], "fm"]
    assert "fm: taken, a blend without it loses nDCG" in chosen.yaml
    assert "fm: left out" in before.yaml
    assert "fm: left out" not in chosen.yaml


def users_of(events, artifact):
    split = split_events(events, "user-time")
    task = make_task(events, split, artifact.items, rating_scale=None, most_users=40, seed=0)
    ids = [events.user_ids[code] for code in task.user_codes.tolist()]
    return BlendUsers(artifact, ids, task.known, task.relevant, [{}] * len(ids))


def early_artifact(events):
    return small_artifact(events.select(split_events(events, "user-time").train).compact())


def test_a_source_is_asked_once_for_a_user_and_proposes_nothing_of_the_history():
    events = crowds(users=60)
    users = users_of(events, early_artifact(events))
    specs = {(): blend_of(["item_knn", "popular"]), ("popular",): blend_of(["item_knn"])}
    rankers, kept = make_rankers(users, specs, Catalogue.of(items_of(events)))
    for blend, spec in specs.items():
        rankers[blend].serve("fresh", make_learner(spec, salt=b"").snapshot("0-0"))

    asked = []
    for source in kept:
        inner = source._source
        source._source = Counted(inner, asked)
    for decided in decide_for_all(users, rankers, kept):
        record, without = decided.records[()], decided.records["popular",]
        had = users.known.sets.rows(slice(decided.user, decided.user + 1)).indices
        assert not {users.artifact.items[place] for place in had} & set(record.action_ids)
        assert set(record.scores) == {"item_knn", "popular"}
        assert set(without.scores) == {"item_knn"}
        assert set(without.action_ids) < set(record.action_ids)
    assert len(asked) == 2 * len(users.user_ids)


class Counted:
    """A source that counts how often it is asked."""

    def __init__(self, source, asked):
        self.name, self._source, self._asked = source.name, source, asked

    async def candidates(self, request, limit):
        self._asked.append(self.name)
        return await self._source.candidates(request, limit)


def test_one_source_is_no_blend():
    events = crowds(users=60)
    made = early_artifact(events)
    users = users_of(events, replace(made, sources={"popular": made.sources["popular"]}))
    with pytest.raises(ArtifactError, match="one source is no blend"):
        measure_blend(users, users, items_of(events), k=5, seed=0, progress=silent)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["banditloop", "evaluate", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_an_artifact_s_prior_teaches_the_blend_of_its_sources(tmp_path, monkeypatch, capsys):
    events = crowds(users=150)
    table = pa.table(
        {
            "user": [events.user_ids[code] for code in events.user],
            "item": [events.item_ids[code] for code in events.item],
            "time": pa.array(events.time, pa.int64()),
        }
    )
    data = write_data_set(tmp_path / "data", table, name="crowds").coded()
    early = data.select(split_events(data, "global-time").train).compact()
    options = ("--data", tmp_path / "data", "--artifact", tmp_path / "shop", "--blend", "--json")

    made = small_artifact(early)
    source_artifact.write(made, tmp_path / "shop")
    assert run(monkeypatch, *options) in {0, None}
    report = json.loads(capsys.readouterr().out)
    assert report["blend"] is None
    assert any("an artifact with a prior" in note for note in report["notes"])

    ids = list(made.items[:20])
    scores = {"item_knn": np.arange(20, dtype="<f4"), "popular": np.zeros(20, "<f4")}
    rewards = np.repeat(np.float32([0, 1]), 10)
    prior = PriorRows.of([PriorDecision.of({}, ids, scores, rewards)] * 5)
    source_artifact.write(replace(made, prior=prior.encoded), tmp_path / "shop")
    assert run(monkeypatch, *options) in {0, None}
    rows = json.loads(capsys.readouterr().out)["blend"]["rows"]
    assert [row["without"] for row in rows] == [[], ["item_knn"], ["popular"]]
    assert rows[1]["verdict"] == "keep"


def test_the_blend_needs_fusions_or_an_artifact(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--data", tmp_path, "--blend", "--no-fusion") == 2
    assert "--no-fusion" in capsys.readouterr().err
