"""``drift``, ``attackers``, ``positions`` and ``segments``: each is what it is named for."""

import numpy as np
import pytest

from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.oracle import appeal_to_all, value_of_policy
from simulator.worlds.frozen.segments import NEW, USUAL
from simulator.worlds.frozen.tables import logged_lists

SEEDS = (0, 1, 2, 3)


def correlation_of_ends(seed, **changes):
    """Of the expected rewards of all items at one user's taste, first and last day."""
    world = frozen_world("drift", seed, visits=4000, taste=2.0, appeal=0.0, **changes)
    items = np.arange(20)[None, :]
    before = world.means(np.arange(500)[:, None], items)
    user = world.people.users[:500]
    world.people.users[-500:] = user  # the same users at the end
    after = world.means(np.arange(3500, 4000)[:, None], items)
    return np.corrcoef(before.ravel(), after.ravel())[0, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stronger_the_drift_the_less_the_end_is_like_the_beginning(seed):
    found = [correlation_of_ends(seed, strength=strength) for strength in (0.0, 0.3, 0.6, 1.0)]
    assert found[0] == pytest.approx(1.0)
    assert found == sorted(found, reverse=True)
    assert abs(found[-1]) < 0.5


def test_drift_is_steady_or_in_jumps():
    steady = frozen_world("drift", visits=4000, strength=1.0)
    jumps = frozen_world("drift", visits=4000, strength=1.0, jumps=2)
    assert len(np.unique(steady.angles)) > 3900
    assert np.unique(jumps.angles).tolist() == pytest.approx([0.0, np.pi / 4, np.pi / 2])
    assert steady.angles[-1] == pytest.approx(np.pi / 2, abs=0.01)
    assert (np.diff(jumps.angles) >= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_best_at_first_loses_by_drift_and_not_without(seed):
    lost = []
    for strength in (0.0, 1.0):
        world = frozen_world("drift", seed, visits=6000, strength=strength)
        first_truth = frozen_world("drift", seed, visits=6000, strength=0.0)
        numbers = np.arange(5500, 6000)

        def old(visit, items, truth=first_truth):
            return np.eye(len(items))[truth.expected(visit.number, items).argmax()]

        def best(visit, items, truth=world):
            return np.eye(len(items))[truth.expected(visit.number, items).argmax()]

        lost.append(
            value_of_policy(world, best, numbers).value - value_of_policy(world, old, numbers).value
        )
    assert lost[0] == 0.0
    assert lost[1] > 0.1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_attackers_are_a_share_of_the_visits_and_click_on_their_targets(share):
    """Their share within 4 standard errors."""
    world = frozen_world("attackers", 3, share=share)
    assert abs(world.attack.mean() - share) <= 4 * np.sqrt(share * (1 - share) / world.visits)
    visits = np.flatnonzero(world.attack)
    assert np.isin(world.people.views[visits], world.targets).all()
    assert (world.people.users[visits] >= world.parameters.users).all()
    targets = world.stages(visits[:, None], world.targets[None, :])
    others = np.setdiff1d(np.arange(50), world.targets)
    assert (targets == world.parameters.persistence).all()
    assert not world.stages(visits[:, None], others[None, :]).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_attackers_lift_their_targets_in_the_log_and_not_in_the_truth(seed):
    """By clicks per showing the worst items look like good ones at a share of a fifth."""
    world = frozen_world("attackers", seed, share=0.2)
    lists = logged_lists(world, np.arange(20_000))
    visits = np.repeat(lists.visits, world.slots)
    slots, items = np.tile(np.arange(world.slots), 20_000), lists.items.ravel()
    clicked = world.draws(visits, slots, items).happened[0]
    shown = np.bincount(items, minlength=50)
    rates = np.bincount(items[clicked], minlength=50) / np.maximum(shown, 1)
    truth = appeal_to_all(world, np.arange(2000))
    target = world.targets[0]
    assert (rates < rates[target]).mean() > 0.7
    assert (truth < truth[target]).mean() < 0.3


def test_accounts_of_attackers_cannot_be_told_by_their_ids():
    world = frozen_world("attackers", 1)
    ids = sorted(world.people.user_ids)
    places = np.array([ids.index(user) for user in world.people.user_ids[1000:]])
    assert abs(places.mean() / len(ids) - 0.5) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_clicks_by_slot_are_those_of_the_examination(seed, decay):
    """Uniformly shown: each slot's click rate is the first's times its examination, 4 errors."""
    world = frozen_world("positions", seed, examination=decay, log_uniform=1.0)
    assert world.examination.tolist() == [(slot + 1) ** -decay for slot in range(10)]
    lists = logged_lists(world, np.arange(20_000))
    visits = np.repeat(lists.visits, 10)
    slots, items = np.tile(np.arange(10), 20_000), lists.items.ravel()
    clicked = world.draws(visits, slots, items).happened[0].reshape(-1, 10)
    looked = world.means(visits, items).mean()
    expected = world.examination * looked
    stderr = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(clicked.mean(axis=0) - expected) < 4 * stderr).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_clicks_per_showing_mislead_and_divided_by_the_examination_they_do_not(seed):
    """Correlations with the truth over items, from 60,000 lists of the logging policy."""
    world = frozen_world("positions", seed)
    lists = logged_lists(world, np.arange(world.visits))
    visits = np.repeat(lists.visits, 10)
    slots, items = np.tile(np.arange(10), world.visits), lists.items.ravel()
    clicked = world.draws(visits, slots, items).happened[0]
    truth = appeal_to_all(world, np.arange(2000))
    clicks = np.bincount(items, weights=clicked, minlength=30)
    shown = np.bincount(items, minlength=30)
    looked = np.bincount(items, weights=world.examination[slots], minlength=30)
    naive, corrected = (np.corrcoef(clicks / by, truth)[0, 1] for by in (shown, looked))
    assert naive < 0.95
    assert corrected > 0.97


@pytest.mark.parametrize("seed", SEEDS)
def test_the_uplift_of_every_segment_is_what_its_users_get(seed):
    """Simulated under both arms with luck of their own: within 4 standard errors over users."""
    world = frozen_world("segments", seed)
    visits = np.arange(world.visits)
    slots = np.zeros(world.visits, np.int64)
    revenue = [
        world.rewards(world.draws(visits, slots, np.full(world.visits, arm)))
        for arm in (USUAL, NEW)
    ]
    users = world.people.users
    names = [uplift.segment for uplift in world.uplifts()]
    for at, truth in enumerate(world.uplifts()):
        mine = (
            np.ones(world.visits, bool) if truth.segment == "all" else world.segments[users] == at
        )
        errors = (revenue[NEW] - revenue[USUAL] - truth.uplift) * mine
        by_user = np.bincount(users, weights=errors)
        assert abs(by_user.sum()) < 4 * np.sqrt((by_user**2).sum()) + 1e-9
        assert truth.visits == mine.sum()
        wanted = (*world.parameters.uplifts, None)[at]
        if wanted is not None:
            assert truth.relative == pytest.approx(wanted, abs=0.03)
    assert len(set(names)) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_revenue_is_skewed_and_visits_of_a_user_are_alike(seed):
    world = frozen_world("segments", seed)
    visits = np.arange(world.visits)
    means = world.means(visits, np.zeros(world.visits, np.int64))
    revenue = world.rewards(world.draws(visits, visits * 0, visits * 0))
    skewness = ((revenue - revenue.mean()) ** 3).mean() / revenue.std() ** 3
    assert skewness > 8
    by_user = [means[world.people.users == user] for user in range(50)]
    assert all(np.ptp(each) == 0 for each in by_user if len(each))
    # The variance of the sum of a user's visits is more than that of as many users' visits.
    users, errors = world.people.users, revenue - revenue.mean()
    clustered = (np.bincount(users, weights=errors) ** 2).sum()
    assert clustered > 1.15 * (errors**2).sum()


def test_nobody_sees_both_arms_and_the_holdout_is_as_large_as_it_says():
    world = frozen_world("segments", 5)
    lists = logged_lists(world, np.arange(world.visits))
    arms = lists.items[:, 0]
    for arm in (USUAL, NEW):
        assert set(world.people.users[arms == arm]).isdisjoint(world.people.users[arms != arm])
    held = len(np.unique(world.people.users[arms == USUAL]))
    came = len(np.unique(world.people.users))
    assert abs(held / came - 0.2) < 4 * np.sqrt(0.2 * 0.8 / came)
    assert np.allclose(lists.propensities[:, 0], np.where(arms == USUAL, 0.2, 0.8))
