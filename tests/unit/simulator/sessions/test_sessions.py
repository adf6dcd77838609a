"""Worlds of sessions, and their environment: gymnasium's checks, and the small world's truth."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from bandits.errors import InvalidFieldError
from bandits.features.columns import INTERCEPT, FeatureIndex
from bandits.features.hashing import hash_feature
from policies.blend import load_policy
from policies.decisions.holdout import FixedPolicy
from simulator.rl.env import ENV_ID, RecSession
from simulator.rl.experiment import (
    BANDIT,
    RL,
    TUNED,
    SessionCell,
    SessionCellResult,
    bandit_named,
    ratios,
    without_exploration,
)
from simulator.sessions.optimum import myopic_return, optimal_return, value_of
from simulator.sessions.play import KnowsClicks, play, train_bandit
from simulator.sessions.satiation import WORLDS, satiation_world
from simulator.sessions.world import MAX_STEPS, featurise_session

NAMES = [*WORLDS, "movielens"]


def random_action(env: gym.Env, rng: np.random.Generator, mask) -> int:
    return int(rng.choice(np.flatnonzero(mask)))


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_gymnasiums_own_checks(name):
    check_env(gym.make(ENV_ID, world=name, world_seed=1).unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_observations_are_the_features_that_serving_builds(name):
    """The mask has as many places as the request has actions.

    Each row is what the learners' own index makes of it.
    """
    env = RecSession(name, 1)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=4)
    schema = env.world.schema
    index = FeatureIndex(
        (), None, len(schema), [INTERCEPT, *(hash_feature(*pair) for pair in schema.names)]
    )
    counts = set()
    for _ in range(60):
        context, actions = featurise_session(env.world, env._session.request())
        _, expected, _ = index.matrix(context, actions, dense=True)
        count = len(actions)
        counts.add(count)
        assert observation["mask"].tolist() == [1] * count + [0] * (env.world.max_actions - count)
        np.testing.assert_array_equal(observation["features"][:count], expected.astype(np.float32))
        assert not observation["features"][count:].any()
        hashed = {
            h
            for ns in (*context.namespaces, *actions.namespaces)
            for h in ns.cells().ravel().tolist()
        }
        assert hashed <= set(index.hashes) | {0}, "a feature that the schema does not name"
        observation, _, over, cut, _ = env.step(
            np.int64(random_action(env, rng, observation["mask"]))
        )
        if over or cut:
            observation, _ = env.reset()
    assert len(counts) > 1 or name in {"small", "movielens"}


@pytest.mark.parametrize("name", ["satiation", "movielens"])
def test_the_same_seed_and_choices_give_the_same_session(name):
    first, second = RecSession(name), RecSession(name)
    rng = np.random.default_rng(1)
    one, two = first.reset(seed=9)[0], second.reset(seed=9)[0]
    for _ in range(40):
        assert one["features"].tobytes() == two["features"].tobytes()
        action = np.int64(random_action(first, rng, one["mask"]))
        one, *rest = first.step(action)
        two, *others = second.step(action)
        assert rest == others
        if rest[1] or rest[2]:
            break


def test_vectorised_it_steps_as_each_session_would_alone():
    vector = gym.make_vec(ENV_ID, num_envs=3, world="satiation", world_seed=1)
    alone = [RecSession("satiation", 1) for _ in range(3)]
    together, _ = vector.reset(seed=5)
    each = [env.reset(seed=5 + at)[0] for at, env in enumerate(alone)]
    for _ in range(5):
        for at, observation in enumerate(each):
            np.testing.assert_array_equal(together["features"][at], observation["features"])
        together, rewards, over, _, _ = vector.step(np.zeros(3, np.int64))
        steps = [env.step(np.int64(0)) for env in alone]
        assert rewards.tolist() == [step[1] for step in steps]
        assert over.tolist() == [step[2] for step in steps]
        if over.any():
            break
        each = [step[0] for step in steps]
    vector.close()


def test_a_place_without_an_action_earns_nothing_and_ends_the_session():
    env = RecSession("satiation", 1)
    observation, _ = env.reset(seed=0)
    empty = int(observation["mask"].sum())
    assert empty < env.world.max_actions
    _, reward, over, cut, _ = env.step(np.int64(empty))
    assert (reward, over, cut) == (0.0, True, False)


def test_a_session_is_cut_off_after_so_many_decisions():
    env = RecSession("movielens")
    lengths = []
    for seed in range(20):
        env.reset(seed=seed)
        for step in range(1, MAX_STEPS + 1):
            *_, over, cut, _ = env.step(np.int64(0))
            if over or cut:
                lengths.append(step)
                assert cut == (step == MAX_STEPS and not over)
                break
    assert max(lengths) == MAX_STEPS
    assert min(lengths) < MAX_STEPS


def test_an_action_that_was_not_offered_is_refused():
    for name in ("satiation", "movielens"):
        session = RecSession(name).world.session(np.random.default_rng(0))
        with pytest.raises(InvalidFieldError, match="not among the actions"):
            session.choose("nothing")
    with pytest.raises(InvalidFieldError, match="there is no world 'best'"):
        RecSession("best")


@pytest.mark.parametrize("seed", range(2))
def test_dynamic_programming_says_what_sessions_earn(seed):
    """Simulated uniform choice is within 4 standard errors of its exact value; false alarm 6e-5."""
    world = satiation_world("small", seed)
    count = len(world.ids)
    exact = value_of(world, lambda _group, _levels: np.full(count, 1.0 / count))
    earned = []
    for number in range(300):
        rng = np.random.default_rng([seed, number])
        session, total = world.session(rng), 0.0
        while True:
            step = session.choose(world.ids[int(rng.integers(count))])
            total += step.reward
            if step.left:
                break
        earned.append(total)
    assert abs(np.mean(earned) - exact) < 4.0 * np.std(earned) / np.sqrt(len(earned))
    assert exact < myopic_return(world) < optimal_return(world)


def test_without_carry_over_what_comes_after_does_not_depend_on_the_choice():
    """With the same user and chance, what is shown changes neither decisions nor their number."""
    world = satiation_world("steady", 3)
    stories = []
    for pick in (0, -1):
        session = world.session(np.random.default_rng(8))
        story = []
        for _ in range(30):
            request = session.request()
            story.append([action.id for action in request.actions])
            if session.choose(request.actions[pick].id).left:
                break
        stories.append(story)
    assert stories[0] == stories[1]
    with pytest.raises(InvalidFieldError, match="dynamic programming needs"):
        optimal_return(world)


def test_policies_play_the_same_sessions():
    """Without carry-over the same users stay as long, whoever chooses.

    Who knows the clicks earns more than chance.
    """
    world = satiation_world("steady", 1)
    uniform, knows = (
        play(world, FixedPolicy("uniform"), 150, 3),
        play(world, KnowsClicks(0.01), 150, 3),
    )
    assert uniform.lengths.tolist() == knows.lengths.tolist()
    assert knows.returns.mean() > uniform.returns.mean()
    again = play(world, KnowsClicks(0.01), 150, 3)
    assert again.returns.tolist() == knows.returns.tolist()


def test_a_bandit_learns_what_is_clicked():
    world = satiation_world("steady", 1)
    spec = bandit_named(TUNED["steady"])
    policy = load_policy(without_exploration(spec), train_bandit(world, spec, 1500, 0))
    taught, knows, uniform = (
        play(world, each, 150, 3) for each in (policy, KnowsClicks(0.0), FixedPolicy("uniform"))
    )
    assert uniform.returns.mean() < taught.returns.mean() <= 1.02 * knows.returns.mean()


def test_a_ratio_is_over_the_seeds_that_have_both():
    def result(seed: int, policy: str, mean: float) -> SessionCellResult:
        return SessionCellResult(SessionCell("w", seed, policy, 1, 1), mean, 1.0, {}, [], 0.0, 0.0)

    found = ratios(
        [
            *(result(s, RL, 1.2 + s / 100) for s in range(3)),
            result(0, BANDIT, 1.0),
            result(1, BANDIT, 1.0),
        ]
    )
    (ratio,) = found
    assert (ratio.against, ratio.seeds) == (BANDIT, 2)
    assert ratio.value == pytest.approx(np.sqrt(1.2 * 1.21))
    radius = 12.706 * np.log(1.21 / 1.2) / np.sqrt(2) / np.sqrt(2)
    assert (ratio.low, ratio.high) == pytest.approx(
        (ratio.value / np.exp(radius), ratio.value * np.exp(radius))
    )
