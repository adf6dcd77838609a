"""In every frozen world the oracle is the mean of what is simulated, and what is asked is a function."""

import itertools

import numpy as np
import pytest

from bandits.errors import InvalidFieldError
from simulator.worlds.frozen.make import FROZEN_WORLDS, frozen_world
from simulator.worlds.frozen.oracle import (
    best_list,
    value_of_list,
    value_of_lists,
    value_of_policy,
)
from simulator.worlds.frozen.tables import logged_lists

SMALL = {
    "shop": {"users": 300, "items": 200, "visits": 20_000, "events": 5000},
    "drift": {"strength": 1.0, "slots": 3, "examination": 0.7, "visits": 20_000},
    "attackers": {"share": 0.2, "visits": 20_000},
    "positions": {"visits": 20_000},
    "segments": {"visits": 40_000},
}
SEEDS = (0, 7)
CASES = list(itertools.product(SMALL, SEEDS))


def small(name, seed=0):
    return frozen_world(name, seed, **SMALL[name])


def test_there_is_a_small_one_of_every_world():
    assert list(SMALL) == list(FROZEN_WORLDS)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_expected_reward_is_the_mean_of_what_is_simulated(name, seed):
    """Of all slots together, and of each: within 4 standard errors, false alarm 6e-5 each."""
    world = small(name, seed)
    lists = logged_lists(world, np.arange(world.visits))
    visits = np.repeat(lists.visits, world.slots)
    slots = np.tile(np.arange(world.slots), world.visits)
    items = lists.items.ravel()
    rewards = world.rewards(world.draws(visits, slots, items))
    expected = world.looked_at(visits, slots) * world.means(visits, items)
    left = (rewards - expected).reshape(world.visits, world.slots)
    assert rewards.sum() > 0
    for errors in (left.sum(axis=1), *left.T):
        assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(world.visits)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_every_signal_comes_as_often_as_its_probability_says(name, seed):
    world = small(name, seed)
    visits = np.arange(world.visits)
    slots, items = np.zeros(world.visits, np.int64), world.pools(visits)[:, 0]
    came = world.draws(visits, slots, items).happened
    reached = world.reached(visits, items) * world.looked_at(visits, slots)
    for happened, probability in zip(came, reached, strict=True):
        stderr = np.sqrt((probability * (1 - probability)).sum())
        assert abs(happened.sum() - probability.sum()) < 4 * stderr + 1e-9


@pytest.mark.parametrize("name", SMALL)
def test_asked_one_by_one_it_is_the_same_world(name):
    """In any order, from another object: the same visits, signals and expectations."""
    world, again = small(name), small(name)
    numbers = np.random.default_rng(3).integers(0, world.visits, 200).tolist()
    for number in numbers:
        visit = again.visit(number)
        pool = again.pools(np.array([number]))[0]
        assert np.isin(pool, visit.offered).all()
        assert len(set(pool.tolist())) == len(pool)
        items = pool[: world.slots]
        shown = [world.people.item_ids[item] for item in items]
        visits, slots = np.full(len(items), number), np.arange(len(items))
        draws = world.draws(visits, slots, items)
        signals = again.outcome(number, shown)
        assert len(signals) == draws.happened.sum()
        assert again.reward(signals) == pytest.approx(world.rewards(draws).sum(), abs=1e-12)
        for signal in signals:
            kind = [each.name for each in world.kinds].index(signal.kind)
            assert signal.item_id == shown[signal.slot]
            assert signal.delay_ms == draws.delays_ms[kind, signal.slot] > 0
            assert signal.value == draws.values[kind, signal.slot]
        each = [world.expected(number, items[[at]], slot=at)[0] for at in range(len(items))]
        assert value_of_list(again, number, shown) == pytest.approx(sum(each), rel=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_visits_are_in_the_order_of_time_and_within_the_days(name):
    world = small(name)
    times = [world.visit(number).time_ms for number in range(0, world.visits, 500)]
    assert times == sorted(times)
    assert (np.diff(world.people.times) >= 0).all()
    day = (world.people.times - world.people.times[0]) / 86_400_000
    assert day[-1] < world.parameters.days + 0.2
    with pytest.raises(InvalidFieldError, match="raise visits"):
        world.visit(world.visits)
    for ask in (world.visit, world.expected, lambda number: world.outcome(number, [])):
        with pytest.raises(InvalidFieldError, match="visit -1"):
            ask(-1)


@pytest.mark.parametrize("name", SMALL)
def test_luck_belongs_to_the_visit_and_the_item(name):
    """Shown beside other items an item earns the same: two policies are compared on the same luck."""
    world = small(name)
    for number in range(300):
        pool = world.pools(np.array([number]))[0]
        ids = [world.people.item_ids[item] for item in pool]
        alone = world.outcome(number, ids[:1])
        beside = world.outcome(number, [ids[0], *ids[2 : world.slots + 1]])
        assert [signal for signal in beside if signal.slot == 0] == alone


@pytest.mark.parametrize("name", SMALL)
def test_no_list_is_better_than_the_best(name):
    world = small(name)
    rng = np.random.default_rng(0)
    for number in rng.integers(0, world.visits, 50).tolist():
        best = value_of_list(world, number, best_list(world, number))
        offered = world.offered(number)
        for _ in range(20):
            items = rng.permutation(offered)[: world.slots]
            shown = [world.people.item_ids[item] for item in items]
            assert value_of_list(world, number, shown) <= best + 1e-12


@pytest.mark.parametrize("name", SMALL)
def test_a_policy_earns_on_average_what_the_oracle_says(name):
    """Played, against its true value on the same visits: within 4 standard errors."""
    world = small(name)
    counted = np.arange(world.visits)[world.counted(np.arange(world.visits))][:1500]
    truth = value_of_lists(world, lambda visit: best_list(world, visit.number), counted)
    earned = [
        world.reward(world.outcome(number, best_list(world, number))) for number in counted.tolist()
    ]
    assert truth.visits == 1500
    stderr = np.std(earned, ddof=1) / np.sqrt(1500)
    assert abs(np.mean(earned) - truth.value) < 4 * stderr

    first = value_of_policy(world, lambda _, items: np.eye(len(items))[0], counted[:100])
    means = [
        world.expected(number, world.pools(np.array([number]))[0][:1])[0]
        for number in counted[:100].tolist()
    ]
    assert first.value == pytest.approx(np.mean(means), rel=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_what_cannot_be_shown_is_refused(name):
    world = small(name)
    ids = world.people.item_ids
    with pytest.raises(InvalidFieldError, match="no item 'x'"):
        world.outcome(0, ["x"])
    with pytest.raises(InvalidFieldError, match="slots"):
        world.outcome(0, ids[: world.slots + 1] if world.slots < len(ids) else [*ids, "x"])
    if world.slots > 1:
        with pytest.raises(InvalidFieldError, match="twice"):
            world.outcome(0, [ids[0], ids[0]])
    assert world.outcome(0, []) == []
