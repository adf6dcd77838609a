"""Slots that are not always looked at: the position-based model's least squares, by any way in."""

import msgspec
import numpy as np
import pytest
from support.chosen import columns_of
from support.strategies import decision_features, seen_in_slots

from bandits.errors import SpecError
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.model import RidgeModel
from bandits.types import ChosenRow

LOOKED = [1.0, 0.5, 0.25]
PLAIN = RidgeConfig(l2=2.0, bias_l2=3.0, interactions=[("context", "scores")])
CONFIG = msgspec.structs.replace(PLAIN, examination=LOOKED)


def taught(config, seen):
    learner = RidgeLearner(config, salt=b"salt")
    learner.learn(seen)
    return learner


def test_the_posterior_mean_is_that_of_rewards_that_need_a_look():
    """Least squares of r - theta w'x, over the features and one indicator per action."""
    seen = seen_in_slots()
    learner = taught(CONFIG, seen)
    learner.checkpoint()  # settles
    ids = sorted({each.actions.ids[each.chosen] for each in seen})
    index = learner._index
    x = np.array([index.matrix(i.context, i.actions, dense=True)[1][i.chosen] for i in seen])
    own = np.array([[i.actions.ids[i.chosen] == name for name in ids] for i in seen], float)
    looked = np.array([LOOKED[min(each.slot, 2)] for each in seen])
    z = np.hstack([x, own]) * looked[:, None]
    prior = np.diag([CONFIG.l2] * x.shape[1] + [CONFIG.bias_l2] * len(ids))
    weights = np.linalg.solve(z.T @ z + prior, z.T @ np.array([each.reward for each in seen]))

    context, actions = decision_features(123)
    scores = RidgeModel(learner.snapshot("1-0")).scores(context, actions)
    rows = index.matrix(context, actions, dense=True)[1]
    for at, action_id in enumerate(actions.ids):
        indicator = [float(action_id == name) for name in ids]
        assert scores[at] == pytest.approx(np.concatenate([rows[at], indicator]) @ weights)


def test_rows_columns_and_corrections_are_one():
    seen = seen_in_slots()
    rows, columns = RidgeLearner(CONFIG), RidgeLearner(CONFIG)
    for each in seen:
        rows.learn_row(ChosenRow.of(each))
    columns.learn_rows(columns_of(seen))
    assert columns.checkpoint() == rows.checkpoint() == taught(CONFIG, seen).checkpoint()
    assert rows.slotted

    # A reward that comes later adds up to the reward.
    halves = RidgeLearner(CONFIG)
    for each in seen:
        half = msgspec.structs.replace(ChosenRow.of(each), reward=each.reward / 2)
        halves.learn_row(half)
        halves.correct_row(half)
    scores = [
        RidgeModel(learner.snapshot("1-0")).scores(*decision_features(5))
        for learner in (rows, halves)
    ]
    assert scores[0] == pytest.approx(scores[1])


def test_slots_that_are_all_looked_at_are_no_slots():
    seen = seen_in_slots()
    looked = msgspec.structs.replace(PLAIN, examination=[1.0, 1.0])
    assert taught(looked, seen).checkpoint() == taught(PLAIN, seen).checkpoint()
    assert not taught(looked, seen).slotted
    with pytest.raises(SpecError, match="one slot at least"):
        RidgeConfig(examination=[])
