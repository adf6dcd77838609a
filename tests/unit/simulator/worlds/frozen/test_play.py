"""Policies learn in frozen worlds, in the in-process loop."""

import msgspec
import numpy as np
import pytest

from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.join_rule import JoinRule
from bandits.log.records import DecisionRecord
from bandits.ridge.config import RidgeConfig
from policies.items.catalogue import Catalogue
from policies.profiles.known_user import KnownUser
from policies.profiles.options import ProfileOptions
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile
from policies.spec import PolicySpec
from simulator.worlds.frozen.make import FROZEN_WORLDS, frozen_world
from simulator.worlds.frozen.play import FrozenRequests, items_on_offer
from simulator.worlds.loop import Timing, run_loop

LEARNER = RidgeConfig(interactions=[("context", "item")])
ROUNDS = 4000


def played(world, exploration, rounds=ROUNDS):
    spec = PolicySpec(
        "shop",
        use=["context", "item"],
        learner=LEARNER,
        exploration=exploration,
        floor=0.0,
        join=JoinRule(window_s=0.1),
    )
    run = run_loop(FrozenRequests(world), spec, rounds=rounds, seed=0, timing=Timing(delay_ms=0.0))
    return run.rewards


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_thompson_sampling_beats_chance_in_the_shop(seed):
    """On the same users with the same luck; the margin is of the second half."""
    world = frozen_world("shop", seed, users=300, items=60, categories=6, visits=6000, events=6000)
    half = ROUNDS // 2
    learned = played(world, LinTs(scale=0.03, draws=50))[half:].mean()
    chance = played(world, EpsilonGreedy(1.0))[half:].mean()
    assert learned > 1.25 * chance


@pytest.mark.parametrize("name", FROZEN_WORLDS)
def test_every_world_can_be_played(name):
    changes = {"users": 50, "visits": 500}
    if name == "shop":
        changes |= {"items": 100, "events": 400}
    world = frozen_world(name, 1, **changes)
    rewards = played(world, EpsilonGreedy(0.5), rounds=100)
    assert rewards.shape == (100,)
    assert np.isfinite(rewards).all()
    again = played(world, EpsilonGreedy(0.5), rounds=100)
    assert (rewards == again).all()


def test_what_is_known_of_who_asks_is_asked_for_before_each_decision():
    world = frozen_world("drift", 1, users=50, visits=500)
    bought = world.people.item_ids[0]
    profile = UserProfile((ProfileEvent(1, 1, 0, bought, "purchase"),), (), "v")
    spec = PolicySpec("home", profile=ProfileOptions(), repeat={"purchased": "never"})
    asked = []

    def known(request):
        asked.append(request.user_id)
        return KnownUser("a pseudonym", profile if len(asked) > 10 else UserProfile())

    run = run_loop(FrozenRequests(world), spec, rounds=20, seed=0, known=known)
    records = [each.record for each in run.log if isinstance(each.record, DecisionRecord)]
    assert len(records) == len(asked) == 20
    assert {record.user for record in records} == {"a pseudonym"}
    assert [bought in record.action_ids for record in records] == [True] * 10 + [False] * 10


def test_items_on_offer_make_a_catalogue():
    world = frozen_world("shop", 1, users=50, items=100, visits=500, events=400)
    items = items_on_offer(world, 30)
    assert [item.id for item in items] == [
        world.people.item_ids[at] for at in world.offered(30).tolist()
    ]
    assert set(items[0].features) == {"category", "brand", "price", "text"}
    assert len(Catalogue.of(msgspec.to_builtins(items)).encoded) > 1000
