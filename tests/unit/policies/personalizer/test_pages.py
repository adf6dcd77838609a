"""Which policies decide the slots of a page one by one, where these have features."""

import msgspec
import pytest

from bandits.exploration import EpsilonGreedy
from bandits.log.join_rule import JoinRule
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.personalizer.pages import parts_pages
from policies.rules.pages.page import Page
from policies.spec import PolicySpec
from policies.spec.policy import Holdout

USUAL = PolicySpec("home")
WHOLE = {
    "a page's rules": {"page": Page(most={"brand": 2})},
    "a filter": {"filter": "item.live"},
    "a page's reward": {"join": JoinRule(page_reward="sum")},
    "what a slot is looked at": {"learner": RidgeConfig(examination=[0.5])},
    "a bias of each slot": {"learner": RidgeConfig(slot_biases=2)},
    "an apprentice with a holdout": {"mode": "apprentice", "holdout": Holdout(0.1)},
}


@pytest.mark.parametrize("fields", WHOLE.values(), ids=WHOLE)
def test_a_policy_that_says_something_of_pages_decides_them_as_wholes(fields):
    """Others part them: of ridge, of Vowpal Wabbit, and an apprentice's."""
    assert not parts_pages(msgspec.structs.replace(USUAL, **fields))
    vw = {"learner": VwConfig("--cb_explore_adf"), "exploration": EpsilonGreedy(0.2)}
    for other in ({}, vw, {"mode": "apprentice"}):
        assert parts_pages(msgspec.structs.replace(USUAL, **other))
