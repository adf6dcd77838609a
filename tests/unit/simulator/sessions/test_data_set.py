"""Sessions of a data set's own users: the pool of serving, rewards and leaving of the data."""

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pytest
from gymnasium.utils.env_checker import check_env

from bandits.errors import ArtifactError, DataSetError, InvalidFieldError
from policies.data.data_set import DataSet
from policies.data.writer import write_data_set
from policies.decisions.holdout import FixedPolicy
from simulator.rl.env import ENV_ID, session_world
from simulator.sessions.data_set import LIMIT, TESTED, DataSetSessions, data_set_sessions
from simulator.sessions.leaving import SURE, leaving_of
from simulator.sessions.movielens import movielens_sessions
from simulator.sessions.play import play
from simulator.sessions.world import MAX_STEPS

USERS, ITEMS, EACH = 60, 40, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Even users want even items: three events an hour apart, a day, three events, and so on."""
    rng = np.random.default_rng(0)
    user, item, time = [], [], []
    for number in range(USERS):
        wanted = rng.permutation(np.arange(number % 2, ITEMS, 2))[:EACH]
        for step, chosen in enumerate(wanted.tolist()):
            user.append(f"u{number:02}")
            item.append(f"i{chosen:02}")
            time.append(86_400_000 * (1 + step // 3) + 60_000 * (step % 3) + number)
    events = pa.table({"user": user, "item": item, "time": pa.array(time, pa.int64())})
    items = pa.table(
        {
            "id": [f"i{number:02}" for number in range(ITEMS)],
            "colour": [("red", "blue")[number % 2] for number in range(ITEMS)],
            "price": [1000.0 + number for number in range(ITEMS)],
        }
    )
    users = pa.table(
        {
            "id": [f"u{number:02}" for number in range(USERS)],
            "age": [float(20 + number) for number in range(USERS)],
        }
    )
    path = tmp_path_factory.mktemp("data") / "set"
    write_data_set(path, events, items=items, users=users)
    return str(path)


@pytest.fixture(scope="module")
def world(folder):
    return data_set_sessions(folder, (), 0)


def test_nothing_is_shown_to_who_has_seen_every_item(world):
    assert world.proposed(0, (), ())
    assert world.proposed(0, (), world.catalogue.ids) == []


def test_it_is_an_environment_whose_columns_are_of_one_size(folder):
    env = gym.make(ENV_ID, world="data", data=folder).unwrapped
    check_env(env)
    assert {name for _, name in env.world.schema.names} >= {
        "age", "place", "liked", "colour=red", "colour=blue", "price", "popular.score",
        "item_knn.rank",
    }  # fmt: skip
    observation, _ = env.reset(seed=1)
    assert np.abs(observation["features"]).max() < 20
    price = list(env.world.schema.names).index(("features", "price")) + 1
    assert env.world.scale[price] == 1000.0 + ITEMS - 1
    assert observation["mask"].sum() > LIMIT // 2


def test_a_decision_is_among_what_the_sources_propose_and_nothing_comes_twice(world):
    rng = np.random.default_rng(3)
    for number in range(5):
        session = world.session(np.random.default_rng(number))
        row = world.users.index(world.users[session._row])
        shown = set()
        for _ in range(MAX_STEPS):
            ids = [action.id for action in session.request().actions]
            assert 0 < len(ids) <= world.max_actions
            assert not shown & set(ids)
            chosen = ids[int(rng.integers(len(ids)))]
            step = session.choose(chosen)
            assert step.reward == float(chosen in world.wanted[row])
            shown.add(chosen)
            if step.left:
                break


def test_what_was_taken_to_is_history_from_then_on(world):
    session = world.session(np.random.default_rng(5))
    wanted = world.wanted[session._row]
    before = world.proposed(session._row, (), ())
    liked = next(action.id for action in before if action.id in wanted)
    after = world.proposed(session._row, [liked], [liked])

    def knn(actions):
        return {action.id: action.scores.get("item_knn") for action in actions}

    assert liked not in knn(after)
    assert any(
        knn(after).get(item) != score for item, score in knn(before).items() if item != liked
    )
    assert session.choose(liked).reward == 1.0
    assert session.request().context["liked"] in {1.0, 0.0}


def test_users_of_the_comparison_play_in_no_session_before(world):
    tested = world.tested()
    drawn = [
        {one.session(np.random.default_rng(seed))._row for seed in range(150)}
        for one in (world, tested)
    ]
    assert not drawn[0] & drawn[1]
    assert len(world._test) == -(-len(world.users) // TESTED)
    assert {*world._test, *world._rows} == set(range(len(world.users)))


def test_a_source_that_knows_the_users_earns_more_than_chance(world):
    earned = {
        name: play(world, FixedPolicy(name), 100, 1).returns.sum()
        for name in ("item_knn", "uniform")
    }
    assert earned["item_knn"] > earned["uniform"]


def test_when_users_leave_is_what_the_data_says():
    """Sessions of three events, all of them liked; a user has four of them."""
    user = np.repeat(np.arange(50), 12)
    seconds = np.tile(np.arange(12) // 3 * 86_400.0 + np.arange(12) % 3, 50)
    liked = np.ones(600, np.bool_)
    leaving = leaving_of(user, seconds, liked)
    assert leaving.leaves[1] == 0.0
    assert leaving.returns[1] == 0.0
    assert leaving.returns[0] == pytest.approx(np.log(3))

    once = leaving_of(np.arange(50), np.zeros(50), liked[:50])
    assert once.leaves[0] == SURE
    assert once.returns[0] == -SURE


def test_those_of_movielens_are_what_they_were():
    leaving = movielens_sessions().leaving
    assert leaving.leaves == pytest.approx([-1.6681738, -0.3328488, -0.5717135])
    assert leaving.returns == pytest.approx([0.9042510, -0.4223066])


def test_what_cannot_be_played_is_refused(folder, tmp_path):
    with pytest.raises(ArtifactError, match="no source 'alz'"):
        session_world("data", 0, folder, ["alz"])
    with pytest.raises(DataSetError, match="fm only score what others propose"):
        session_world("data", 0, folder, ["fm"])
    with pytest.raises(DataSetError, match="is not a data set"):
        session_world("data", 0, str(tmp_path / "nothing"))
    write_data_set(tmp_path / "one", pa.table({"user": ["a", "b"], "item": ["x", "y"]}))
    with pytest.raises(DataSetError, match="no sessions can be played"):
        DataSetSessions(DataSet.open(str(tmp_path / "one")), ["popular"], 0)
    world = data_set_sessions(folder, ("popular",), 0)
    with pytest.raises(InvalidFieldError, match="not among the actions"):
        world.session(np.random.default_rng(0)).choose("nothing")
