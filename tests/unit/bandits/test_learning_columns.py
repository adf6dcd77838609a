"""Chosen actions as columns: the same rows, one by one, in parts, and to every learner."""

import numpy as np
import pytest
from support.chosen import columns_of
from support.strategies import interactions

from bandits.errors import InvalidInputError
from bandits.ridge.config import RidgeConfig
from bandits.ridge.learner import RidgeLearner
from bandits.types import ChosenRow, Interaction, Learner
from bandits.vw.learner import VwLearner

SEEN = interactions(7, 300)


def repeated(count: int) -> list[Interaction]:
    """Interactions whose contexts and actions come again and again, as those of a service do."""
    rng = np.random.default_rng(1)
    return [SEEN[number] for number in rng.integers(0, 9, count).tolist()]


@pytest.mark.parametrize("seen", [SEEN, repeated(400)], ids=["new", "again"])
def test_columns_are_the_rows_they_were_made_of(seen):
    rows = columns_of(seen)
    found = [*rows.part(0, 100), *rows.part(100, 1000)]
    for row, expected in zip(found, map(ChosenRow.of, seen), strict=True):
        assert (row.action_id, row.reward, row.available, row.propensity) == (
            expected.action_id,
            expected.reward,
            expected.available,
            expected.propensity,
        )
        for mine, theirs in (
            *zip(row.shared, expected.shared, strict=True),
            *zip(row.own, expected.own, strict=True),
        ):
            assert mine.name == theirs.name
            np.testing.assert_array_equal(mine.hashes, theirs.cells())
            np.testing.assert_array_equal(mine.values, theirs.values)


LEARNERS = {
    "ridge": lambda: RidgeLearner(RidgeConfig(interactions=[("context", "item")])),
    "few columns": lambda: RidgeLearner(RidgeConfig(max_features=9, action_bias=False)),
    "vw": lambda: VwLearner("--cb_explore_adf -b 12 -q ci -q cf", by_row=True),
    "vw, all linear": lambda: VwLearner("--cb_explore_adf -b 12", by_row=True),
}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("seen", [SEEN, repeated(400)], ids=["new", "again"])
@pytest.mark.parametrize("size", [1, 37, 400])
def test_learners_learn_from_columns_what_they_do_from_rows(name, seen, size):
    by_row, by_columns = LEARNERS[name](), LEARNERS[name]()
    for interaction in seen:
        by_row.learn_row(ChosenRow.of(interaction))
    rows = columns_of(seen)
    for start in range(0, len(rows), size):
        by_columns.learn_rows(rows.part(start, start + size))
    assert by_columns.checkpoint() == by_row.checkpoint()
    assert by_columns.snapshot("1-0") == by_row.snapshot("1-0")


def test_a_learner_of_rows_need_not_know_of_columns():
    class Rewards(Learner):
        by_row, total = True, 0.0

        def learn_row(self, row: ChosenRow) -> None:
            self.total += row.reward

    learner = Rewards()
    learner.learn_rows(columns_of(SEEN))
    assert learner.total == pytest.approx(sum(each.reward for each in SEEN))


@pytest.mark.parametrize(("field", "value"), [("propensities", 0.0), ("rewards", np.nan)])
def test_vw_learns_nothing_of_columns_with_a_number_that_cannot_be(field, value):
    learner = LEARNERS["vw"]()
    before, rows = learner.checkpoint(), columns_of(SEEN[:5])
    getattr(rows, field)[3] = value
    with pytest.raises(InvalidInputError):
        learner.learn_rows(rows)
    assert learner.checkpoint() == before
