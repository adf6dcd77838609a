"""Policies that may be better than one of Personalizer: each is one, and no two do the same."""

import pytest

from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.personalizer.candidates import CURRENT, crossed_otherwise, learning_otherwise
from policies.spec import PolicySpec

RIDGE = "--cb_explore_adf --epsilon 0.01"
BAG = "--cb_explore_adf --bag 5 --epsilon 0.1 -q cf"


@pytest.mark.parametrize(
    ("arguments", "crossed", "learning"),
    [
        (DEFAULT_ARGUMENTS, {"none", "cf-ci"}, {"usual", "0.005", "0.05", "epsilon-0.1"}),
        ("--ccb_explore_adf -q cf -q ci", {"none", "all"}, {"0.005", "0.05", "epsilon-0.025"}),
        (RIDGE, {"cf-ci", "all"}, {"0.005", "0.05"}),
        (BAG, {"none", "cf-ci", "all"}, {"0.005", "0.05", "epsilon-0.05"}),
    ],
)
def test_one_part_is_another_and_the_rest_is_as_it_was(arguments, crossed, learning):
    first, second = crossed_otherwise(arguments), learning_otherwise(arguments)
    assert first.pop(CURRENT) == arguments
    assert set(first) == {f"Inter-{name}" for name in crossed}
    assert set(second) == {f"Hyper-{name}" for name in learning}

    before = with_arguments(PolicySpec("p"), arguments)
    for name, made in {**first, **second}.items():
        spec = with_arguments(PolicySpec("p"), made)
        assert (spec.learner, spec.exploration) != (before.learner, before.exploration)
        assert ("--bag" in made) == ("--bag" in arguments)
        if "epsilon" not in name:
            assert type(spec.exploration) is type(before.exploration)


def test_what_is_explored_is_half_where_the_arguments_do_not_say_it():
    """Vowpal Wabbit's own epsilon is 0.05."""
    made = learning_otherwise("--cb_explore_adf")["Hyper-epsilon-0.025"]
    assert with_arguments(PolicySpec("p"), made).exploration.epsilon == 0.025
