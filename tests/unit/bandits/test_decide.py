import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import decision_features, pmfs, salts

from bandits.decide import decide, uniform, uniform_of_each
from bandits.errors import EmptyActionsError, InvalidFieldError, InvalidPmfError
from bandits.kernels.actions import draw
from bandits.types import ActionSet, Context


class Fixed:
    """A policy that always has the same PMF, cut to the actions that are left."""

    def __init__(self, pmf):
        self._pmf = {f"item{i}": p for i, p in enumerate(pmf)}

    def pmf(self, context, actions):
        weights = np.array([self._pmf[name] for name in actions.ids])
        return weights / weights.sum()


def actions(count: int) -> ActionSet:
    return ActionSet(tuple(f"item{i}" for i in range(count)))


@given(pmfs(), st.floats(0, 1, exclude_max=True))
def test_a_draw_never_has_probability_zero(pmf, u):
    assert pmf[draw(pmf, u)] > 0


@given(pmfs(), st.integers(0, 29))
def test_a_draw_is_the_inverse_of_the_cumulative_mass(pmf, index):
    """Any u strictly inside an action's stretch of the CDF draws that action."""
    index %= pmf.size
    cdf = np.cumsum(pmf)
    low = cdf[index - 1] if index else 0.0
    if pmf[index] > 1e-9:
        assert draw(pmf, (low + cdf[index]) / 2 / cdf[-1]) == index


@given(salts, st.text(max_size=20), st.text(max_size=20), st.integers(0, 50), st.text(max_size=10))
def test_a_uniform_is_in_range_and_reproducible(salt, policy, event_id, slot, purpose):
    u = uniform(salt, policy, event_id, slot, purpose)
    assert 0.0 <= u < 1.0
    assert u == uniform(salt, policy, event_id, slot, purpose)


def test_no_two_draws_share_a_uniform():
    """Field boundaries count: moving a character from one field to the next changes the draw."""
    salt = b"s"
    seen = {
        uniform(salt, "p", "e", 0, "action"),
        uniform(salt, "pe", "", 0, "action"),
        uniform(salt, "", "pe", 0, "action"),
        uniform(salt, "p", "e", 1, "action"),
        uniform(salt, "p", "e", 0, "source"),
        uniform(b"t", "p", "e", 0, "action"),
    }
    assert len(seen) == 6


@given(pmfs(8), st.integers(0, 10_000))
def test_a_slate_has_distinct_actions_and_conditional_propensities(pmf, seed):
    support = int((pmf > 0).sum())
    slots = 1 + seed % support
    decision = decide(
        Fixed(pmf), Context(), actions(pmf.size), event_id=str(seed), salt=b"s", slots=slots
    )
    assert len(set(decision.chosen)) == slots
    for slot in range(slots):
        earlier = list(decision.chosen[:slot])
        assert (decision.pmfs[slot, earlier] == 0).all()
        left = np.delete(pmf, earlier).sum()
        assert decision.propensities[slot] == pytest.approx(pmf[decision.chosen[slot]] / left)


def test_what_is_not_a_pmf_is_refused_and_never_repaired():
    for bad in ([0.5, 0.4], [1.5, -0.5], [np.nan, 1.0], [np.inf, 0.0]):

        class Bad:
            values = np.array(bad)

            def pmf(self, context, actions):
                return self.values

        with pytest.raises(InvalidPmfError):
            decide(Bad(), Context(), actions(2), event_id="e", salt=b"s")


def test_no_actions_or_too_many_slots_is_an_error_that_names_the_field():
    with pytest.raises(EmptyActionsError) as empty:
        decide(Fixed([]), Context(), actions(0), event_id="e", salt=b"s")
    assert empty.value.target == "actions"
    with pytest.raises(InvalidFieldError) as slots:
        decide(Fixed([1.0]), Context(), actions(1), event_id="e", salt=b"s", slots=2)
    assert slots.value.target == "slots"


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_decision_is_re_derived_bit_for_bit(seed):
    context, action_set = decision_features(seed)
    policy = Fixed(np.full(40, 1 / 40))
    first, second = (
        decide(policy, context, action_set, event_id="e", salt=b"s", slots=3) for _ in range(2)
    )
    assert first.chosen == second.chosen
    assert first.pmfs.tobytes() == second.pmfs.tobytes()


@given(salts, st.text(max_size=20), st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_what_is_drawn_for_many_is_what_is_drawn_for_each(salt, policy, event_ids):
    drawn = uniform_of_each(salt, policy, event_ids, 3, "action")
    assert drawn.tolist() == [uniform(salt, policy, each, 3, "action") for each in event_ids]
