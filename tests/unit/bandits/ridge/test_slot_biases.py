"""Biases of slots: what stands lower earns less, and is taken for no worse; by any way in."""

import msgspec
import numpy as np
import pytest
from support.chosen import columns_of
from support.strategies import decision_features, seen_in_slots

from bandits.errors import SnapshotError, SpecError
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.merge import merge_ridge
from bandits.ridge.model import RidgeModel
from bandits.types import ActionSet, ChosenRow, Context

PLAIN = RidgeConfig(l2=2.0, bias_l2=3.0, interactions=[("context", "scores")])
CONFIG = msgspec.structs.replace(PLAIN, slot_biases=2)


def taught(config, seen):
    learner = RidgeLearner(config, salt=b"salt")
    learner.learn(seen)
    return learner


def test_the_posterior_mean_is_that_of_rewards_with_an_indicator_of_each_slot():
    seen = seen_in_slots()
    learner = taught(CONFIG, seen)
    learner.checkpoint()  # settles
    ids = sorted({each.actions.ids[each.chosen] for each in seen})
    index = learner._index
    x = np.array([index.matrix(i.context, i.actions, dense=True)[1][i.chosen] for i in seen])
    own = np.array([[i.actions.ids[i.chosen] == name for name in ids] for i in seen], float)
    assert not x[:, 1:3].any()
    for slot in (1, 2):
        x[:, slot] = [min(each.slot, 2) == slot for each in seen]
    z = np.hstack([x, own])
    prior = np.diag([CONFIG.l2] * x.shape[1] + [CONFIG.bias_l2] * len(ids))
    weights = np.linalg.solve(z.T @ z + prior, z.T @ np.array([each.reward for each in seen]))

    context, actions = decision_features(123)
    scores = RidgeModel(learner.snapshot("1-0")).scores(context, actions)
    rows = index.matrix(context, actions, dense=True)[1]
    for at, action_id in enumerate(actions.ids):
        indicator = [float(action_id == name) for name in ids]
        assert scores[at] == pytest.approx(np.concatenate([rows[at], indicator]) @ weights)


@pytest.mark.parametrize("config", [CONFIG, msgspec.structs.replace(CONFIG, half_life="1d")])
def test_rows_columns_and_corrections_are_one(config):
    seen = seen_in_slots()
    rows, columns = RidgeLearner(config), RidgeLearner(config)
    for each in seen:
        rows.learn_row(ChosenRow.of(each))
        if each.slot == 3:
            rows.checkpoint()  # wherever a batch ends
    columns.learn_rows(columns_of(seen))
    assert columns.checkpoint() == rows.checkpoint() == taught(config, seen).checkpoint()
    resumed = RidgeLearner(config, checkpoint=taught(config, seen[:20]).checkpoint())
    resumed.learn(seen[20:])
    assert resumed.checkpoint() == rows.checkpoint()
    assert rows.slotted

    # A reward that comes later adds up to the reward.
    halves = RidgeLearner(config)
    for each in seen:
        half = msgspec.structs.replace(ChosenRow.of(each), reward=each.reward / 2)
        halves.learn_row(half)
        halves.correct_row(half)
    scores = [
        RidgeModel(learner.snapshot("1-0")).scores(*decision_features(5))
        for learner in (rows, halves)
    ]
    assert scores[0] == pytest.approx(scores[1])


def test_models_of_two_logs_merge_to_that_of_one():
    seen = seen_in_slots()
    parts = [taught(CONFIG, seen[:25]).checkpoint(), taught(CONFIG, seen[25:]).checkpoint()]
    merged = RidgeLearner(CONFIG, checkpoint=merge_ridge(CONFIG, parts))
    scores = [
        RidgeModel(learner.snapshot("1-0")).scores(*decision_features(5))
        for learner in (merged, taught(CONFIG, seen))
    ]
    assert scores[0] == pytest.approx(scores[1])


def test_an_item_that_always_stands_low_is_taken_for_no_worse():
    """Two items earn .8 in the first slot, .2 in the second; one was there four times in five."""
    rng, low_high = np.random.default_rng(3), []
    for config in (PLAIN, CONFIG):
        learner = RidgeLearner(config)
        for _ in range(2000):
            low_first = rng.random() < 0.2
            for slot, low in enumerate((low_first, not low_first)):
                earned = float(rng.random() < (0.8, 0.2)[slot])
                learner.learn_row(ChosenRow("low" if low else "high", (), (), earned, slot=slot))
        model = RidgeModel(learner.snapshot("1-0"))
        low, high = model.scores(Context(), ActionSet(("low", "high")))
        low_high.append(low - high)
    assert abs(low_high[0]) > 0.2
    assert abs(low_high[1]) < 0.05


def test_a_checkpoint_of_other_slots_and_impossible_specs_are_refused():
    for other in (PLAIN, msgspec.structs.replace(PLAIN, slot_biases=1)):
        with pytest.raises(SnapshotError, match="other slot_biases"):
            RidgeLearner(CONFIG, checkpoint=taught(other, seen_in_slots()).checkpoint())
    for wrong in ({"examination": [1.0, 0.5]}, {"max_features": 3}):
        with pytest.raises(SpecError) as caught:
            RidgeConfig(slot_biases=2, **wrong)
        assert caught.value.target == "learner.slot_biases"
