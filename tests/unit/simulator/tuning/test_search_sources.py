"""The search for what sources are fitted with: the table, the choice, and how a search ends."""

from dataclasses import fields, is_dataclass, replace

import msgspec
import numpy as np
import pytest
from support.small_ranking import crowds

from bandits.errors import ArtifactError, DataSetError
from policies.artifacts.fitted_with import with_changes
from policies.data.manifest import WeightOptions
from policies.training.cf import AlsConfig
from policies.training.deep import DeepConfig
from policies.training.fits import FITS, TrainConfig
from simulator.domains import ChoiceDomain
from simulator.tuning.page import search_page
from simulator.tuning.report import TuningReport
from simulator.tuning.search import SearchBudget, search_sources
from simulator.tuning.spaces import SPACES, values_to_try, with_values

SMALL = TrainConfig(
    als=AlsConfig(factors=4, iterations=3), deep=DeepConfig(hidden=8, epochs=9, batch=32)
)


def here(function, tasks, shared, *, done, within_s=None, **_):
    """Make the trials of a rung in this process, as Ray Tune would elsewhere."""
    said = {}
    for number, task in enumerate(tasks):
        said[number] = function(task, *shared)
        done(number + 1)
    return said


def search(sources=("als", "deep"), trials=4, *, run=here, minutes=None, events=None, config=SMALL):
    events = crowds(users=90) if events is None else events
    items = [{"id": item, "features": {}} for item in events.item_ids]
    return search_sources(
        "crowds",
        events,
        items,
        WeightOptions(),
        SearchBudget(trials, minutes),
        sources=list(sources),
        config=config,
        run=run,
    )


def table(report: TuningReport):
    """The trials without the seconds that they took."""
    return [msgspec.structs.replace(trial, seconds=0.0) for trial in report.trials]


def test_the_same_seed_gives_the_same_table_and_the_best_is_fitted():
    (config, report), (again, second) = search(), search()
    assert config == again
    assert table(report) == table(second)
    assert report.choices == second.choices

    for choice in report.choices:
        whole = [
            trial for trial in report.trials if (trial.source, trial.share) == (choice.source, 1.0)
        ]
        assert choice.best == max(trial.ndcg for trial in whole)
        assert choice.trial in [trial.trial for trial in whole if trial.ndcg == choice.best]
        assert choice.unchanged == next(trial.ndcg for trial in whole if trial.trial == 0)
        assert choice.taken == (choice.trial != 0 and (choice.gain.value or 0.0) >= 0)
        assert choice.values == (
            values_to_try(choice.source, 4, seed=0)[choice.trial] if choice.taken else {}
        )
        assert getattr(config, choice.source) == getattr(
            with_values(SMALL, choice.source, choice.values), choice.source
        )


def test_a_network_goes_through_rungs_and_the_unchanged_values_always_go_on():
    _, report = search(["deep"], trials=9)
    rungs = {
        share: [trial for trial in report.trials if trial.share == share]
        for share in (1 / 9, 1 / 3, 1.0)
    }
    assert len(report.trials) == sum(map(len, rungs.values()))
    assert len(rungs[1 / 9]) == 9
    for first, then in ((1 / 9, 1 / 3), (1 / 3, 1.0)):
        kept = [trial for trial in rungs[first] if trial.kept]
        assert [trial.trial for trial in kept] == [trial.trial for trial in rungs[then]]
        dropped = [trial.ndcg for trial in rungs[first] if not trial.kept]
        assert min(trial.ndcg for trial in kept if trial.trial) >= max(dropped)
        assert 0 in [trial.trial for trial in kept]
    assert len(rungs[1 / 3]) in {3, 4}
    assert sum(trial.kept for trial in rungs[1.0]) == 1


def test_when_time_is_over_the_table_is_the_beginning_of_what_it_would_have_been():
    def half(function, tasks, shared, *, within_s, done, **_):
        """As Ray Tune does when time ends: what has not been done says nothing."""
        stopped = tasks[: len(tasks) // 2] if within_s is not None else tasks
        return here(function, stopped, shared, done=done)

    _, whole = search(["als", "item_knn"])
    _, report = search(["als", "item_knn"], run=half, minutes=5)
    assert {(trial.source, trial.trial) for trial in report.trials} == {
        (source, trial) for source in ("als", "item_knn") for trial in (0, 1)
    }
    made = {(trial.source, trial.trial): trial.ndcg for trial in whole.trials}
    assert all(trial.ndcg == made[trial.source, trial.trial] for trial in report.trials)
    assert "5 minutes were over before every trial was made" in report.notes

    config, nothing = search(["als"], minutes=1e-9)
    assert nothing.trials == []
    assert config == SMALL
    assert nothing.choices[0].reason == "no trial could be made whole"


def test_values_that_cannot_be_fitted_are_a_row_with_the_reason(monkeypatch):
    """The search goes on, and the values are not chosen."""

    def why_not(_data, config):
        return "too many" if config.als.factors > 4 else ""

    monkeypatch.setitem(FITS, "als", replace(FITS["als"], why_not=why_not))
    _, report = search(["als"])
    rows = {trial.trial: trial for trial in report.trials}
    assert rows[0].ndcg is not None
    assert [rows[trial].note for trial in (1, 2, 3)] == ["too many"] * 3
    assert [rows[trial].ndcg for trial in (1, 2, 3)] == [None] * 3
    assert report.choices[0].trial == 0


def test_the_best_is_not_taken_where_it_is_worse_on_the_part_that_no_choice_has_seen():
    """Each trial is said to be better than the one before, then worse."""

    def turned(_function, tasks, shared, **_):
        late = shared[-1].name == "late"
        users = shared[0].judges.users
        return {
            number: {
                "ndcg": [0.5 - task.trial / 10 if late else task.trial / 10] * users,
                "seconds": 0,
            }
            for number, task in enumerate(tasks)
        }

    config, report = search(["als"], run=turned)
    (choice,) = report.choices
    assert (choice.trial, choice.taken, choice.values) == (3, False, {})
    assert choice.gain.value == pytest.approx(-0.3)
    assert choice.reason.endswith("worse on the test part")
    assert config == SMALL


def test_what_cannot_be_searched_is_refused_with_the_reason():
    with pytest.raises(ArtifactError, match="no source 'alz' can be trained"):
        search(["alz"])
    with pytest.raises(
        ArtifactError, match="no source can be searched: nothing to search of popular"
    ):
        search(["popular"])
    lonely = crowds(users=90)
    with pytest.raises(DataSetError, match="nothing can be searched"):
        search(["als"], events=lonely.select(np.arange(len(lonely)) == 0).compact())


def test_scorers_that_look_at_the_context_are_searched_as_sources_are():
    _, report = search(["fm"], trials=2, config=with_changes(SMALL, {"fm": {"epochs": 2}}))
    assert [trial.note for trial in report.trials] == ["", ""]
    assert all(trial.ndcg is not None for trial in report.trials)


def test_every_source_with_hyperparameters_has_a_space():
    assert set(SPACES) == {field.name for field in fields(TrainConfig)} <= set(FITS)


def test_every_space_is_of_a_source_and_its_fields():
    for source, space in SPACES.items():
        config = getattr(TrainConfig(), source)
        assert is_dataclass(config)
        known = {field.name for field in fields(config)}
        assert set(space.vary) <= known, source
        assert space.epochs is None or space.epochs in known, source
        for values in values_to_try(source, 20, seed=3):
            assert with_values(TrainConfig(), source, values) is not None


def test_values_are_drawn_by_seed_without_repetition_the_unchanged_first(monkeypatch):
    assert values_to_try("als", 9, seed=1) == values_to_try("als", 12, seed=1)[:9]
    assert values_to_try("als", 9, seed=1) != values_to_try("als", 9, seed=2)
    assert values_to_try("als", 9, seed=1)[0] == {}
    few = replace(SPACES["als"], vary={"factors": ChoiceDomain([1, 2])})
    monkeypatch.setitem(SPACES, "als", few)
    found = values_to_try("als", 50, seed=0)
    assert sorted(str(values) for values in found) == ["{'factors': 1}", "{'factors': 2}", "{}"]


def test_the_page_shows_every_trial_and_no_markup_of_the_data():
    _, report = search(["als"])
    page = search_page(msgspec.structs.replace(report, data="<b>shop"))
    assert "<b>shop" not in page
    assert page.count("<circle") == len(report.trials)
    for trial in report.trials:
        assert f"{trial.ndcg:.4f}" in page
