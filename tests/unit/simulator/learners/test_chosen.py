"""The features of a batch's chosen actions, made at once, are those made of row after row."""

import msgspec
import numpy as np
import pytest
from support.records import random_rows

from bandits.errors import ReplayError
from bandits.exploration import EpsilonGreedy
from bandits.features.namespaces import NAMESPACES
from bandits.ridge.config import RidgeConfig
from bandits.types import ChosenRow, Namespace, Row
from bandits.vw.config import VwConfig
from policies.blend import make_learner
from policies.features import chosen_rows
from policies.spec import PolicySpec
from simulator.learners.chosen import SPACES, chosen_columns
from simulator.learners.features import featurise_row
from simulator.learners.trained import train_on_log
from simulator.logs.actions.row_records import records_from_rows
from simulator.logs.rows import LoggedDecision, MemoryPiece

RIDGE = PolicySpec("home", learner=RidgeConfig(interactions=[("context", "features")]))
VW = PolicySpec(
    "home", learner=VwConfig("--cb_explore_adf -b 12 -q cf -q cs"), exploration=EpsilonGreedy()
)


def taught(spec: PolicySpec, rows: list[LoggedDecision]) -> list[ChosenRow]:
    rewards = np.array([row.reward for row in rows])
    propensities = np.array([row.propensity for row in rows])
    return list(chosen_columns(spec.use, records_from_rows(rows), rewards, propensities))


def said(features: Row) -> dict[str, list[tuple[int, float]]]:
    """The features that are not 0, in their order, of the namespaces that have any."""

    def pairs(space: Namespace) -> list[tuple[int, float]]:
        cells = zip(space.cells().tolist(), space.values.tolist(), strict=True)
        return [(hashed, value) for hashed, value in cells if value]

    return {space.name: pairs(space) for space in features if pairs(space)}


@pytest.mark.parametrize(
    "use", [list(NAMESPACES), ["context"], ["item", "scores"], ["features"], ["scores", "context"]]
)
def test_a_batchs_features_are_those_of_its_records(use):
    spec, rows = msgspec.structs.replace(RIDGE, use=use), random_rows(150)
    for row, mine in zip(rows, taught(spec, rows), strict=True):
        (action_id, shared, own), *_ = chosen_rows(
            spec, row.catalogue, row.record, [row.record.chosen[row.slot]]
        )
        assert (mine.action_id, mine.available) == (action_id, len(row.action_ids))
        assert (mine.reward, mine.propensity) == (row.reward, row.propensity)
        assert said(mine.shared) == said(shared)
        assert said(mine.own) == said(own)
        assert [space.name for space in (*mine.shared, *mine.own)] == list(SPACES)


def test_rows_of_other_logs_have_no_scores_and_no_catalogue():
    rows = [
        LoggedDecision("e", {"hour": 2.0}, ["a", "b"], 1, 0.5, 1.0, scores={"cf": np.ones(2)}),
        LoggedDecision("f", {}, ["b"], 0, 1.0, 0.0, features=[{"live": True}]),
    ]
    for row, mine in zip(rows, taught(RIDGE, rows), strict=True):
        context, actions = featurise_row(RIDGE, row)
        assert said(mine.shared) == said(context.namespaces)
        assert said(mine.own) == said(actions.row(row.chosen))


@pytest.mark.parametrize("spec", [RIDGE, VW], ids=["ridge", "vw"])
@pytest.mark.parametrize("batch_rows", [3, 10_000])
def test_training_gives_the_bytes_of_learning_row_by_row(monkeypatch, spec, batch_rows):
    monkeypatch.setattr("simulator.logs.rows.BATCH_ROWS", batch_rows)
    rows, by_hand = random_rows(200, seed=1), make_learner(spec, salt=b"")
    for row in rows:
        context, actions = featurise_row(spec, row)
        chosen = row.action_ids[row.chosen]
        own = actions.row(row.chosen)
        by_hand.learn_row(
            ChosenRow(
                chosen, context.namespaces, own, row.reward, len(row.action_ids), row.propensity
            )
        )
    model = train_on_log(spec, [MemoryPiece(rows[:90]), MemoryPiece(rows[90:])])
    assert model.checkpoint == by_hand.checkpoint()


def test_a_feature_that_is_too_large_is_refused_by_the_name_of_its_row():
    rows = [
        LoggedDecision("fine", {"hour": 2.0}, ["a"], 0, 1.0, 1.0),
        LoggedDecision("large", {"hour": 1e300}, ["a"], 0, 1.0, 1.0),
    ]
    with pytest.raises(ReplayError, match="decision large has a feature beyond"):
        train_on_log(RIDGE, [MemoryPiece(rows)])
