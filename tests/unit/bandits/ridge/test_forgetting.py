"""A ridge model with a half-life: what a decision counts follows from its own time alone."""

from dataclasses import replace
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chosen import columns_of
from support.strategies import decision_features, interactions

from bandits.errors import SnapshotError, SpecError
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, Softmax, SquareCB
from bandits.features.hashing import partition_of
from bandits.kernels.sums import halved_by_age
from bandits.ridge.config import RidgeConfig
from bandits.ridge.forgetting import Epoch
from bandits.ridge.learner import RidgeLearner
from bandits.ridge.merge import merge_ridge
from bandits.ridge.model import RidgeModel
from bandits.ridge.payloads import decode_sums
from bandits.types import ChosenRow, Float64, Interaction, Snapshot

HALF_LIFE_MS = 20_000
CONFIG = RidgeConfig(
    l2=2.0, bias_l2=3.0, interactions=[("context", "scores")], max_features=100, half_life="20s"
)
PLAIN = msgspec.structs.replace(CONFIG, half_life=msgspec.UNSET)
SEEN = interactions(7, 80)
NOW = "110000-3"
EXPLORATIONS = [
    EpsilonGreedy(),
    Softmax(),
    SquareCB(),
    LinUcb(),
    LinTs(draws=200),
]


def learned(config: RidgeConfig = CONFIG, seen=SEEN, **options) -> RidgeLearner:
    learner = RidgeLearner(config, salt=b"salt", **options)
    learner.learn(seen)
    return learner


def at_time(interaction: Interaction, time_ms: int) -> Interaction:
    return replace(interaction, time_ms=time_ms)


def weight(time_ms: int, now_ms: int) -> float:
    return 2.0 ** (-(now_ms - time_ms) / HALF_LIFE_MS)


@given(st.integers(-(10**12), 10**12), st.integers(1000, 10**9))
def test_a_weight_is_the_power_of_two_that_the_age_says(age, half_life_ms):
    """To 1e-15, and a whole number of half-lives more changes the exponent alone."""
    now = 2 * 10**12
    (found,) = halved_by_age(np.array([now - age]), now, half_life_ms)
    exact = Fraction(-age, half_life_ms)
    if abs(exact) < 1000:
        whole = exact.__floor__()
        expected = np.ldexp(2.0 ** float(exact - whole), whole)
        assert abs(found / expected - 1) < 1e-15
        (later,) = halved_by_age(np.array([now - age]), now + 3 * half_life_ms, half_life_ms)
        assert later * 8 == found


def test_whole_half_lives_weigh_exactly():
    times = np.array([7000 - 1000 * n for n in range(60)])
    assert (halved_by_age(times, 7000, 1000) == np.ldexp(1.0, -np.arange(60))).all()


@pytest.mark.parametrize("now", [NOW, "95000-0"])
def test_the_posterior_is_that_of_the_weighted_joint_regression(now):
    """Each decision with 2^(-age / half-life), beside a prior that does not fade.

    A snapshot before the newest decision is as of that one.
    """
    learner = learned(uncertainty=True)
    learner.checkpoint()  # settles
    now_ms = max(int(now.split("-")[0]), *(each.time_ms for each in SEEN))
    rows = {name: n for n, name in enumerate(learner._action_ids)}

    x = np.array(
        [
            learner._index.matrix(each.context, each.actions, dense=True)[1][each.chosen]
            for each in SEEN
        ]
    )
    own = np.zeros((len(SEEN), len(rows)))
    own[np.arange(len(SEEN)), [rows[each.actions.ids[each.chosen]] for each in SEEN]] = 1
    z = np.hstack([x, own])
    weights = np.array([weight(each.time_ms, now_ms) for each in SEEN])
    prior = np.diag([CONFIG.l2] * x.shape[1] + [CONFIG.bias_l2] * len(rows))
    covariance = np.linalg.inv(z.T @ (z * weights[:, None]) + prior)
    mean = covariance @ z.T @ (weights * [each.reward for each in SEEN])

    model = RidgeModel(learner.snapshot(now))
    assert model.worth == pytest.approx(weights.sum(), rel=1e-12)
    context, actions = decision_features(5)
    found = model.upper_bounds(context, actions, 1.0)
    for k, name in enumerate(actions.ids):
        row = np.zeros(z.shape[1])
        row[: x.shape[1]] = learner._index.matrix(context, actions, dense=True)[1][k]
        unknown = 0.0 if name in rows else 1 / CONFIG.bias_l2
        if name in rows:
            row[x.shape[1] + rows[name]] = 1
        expected = row @ mean + np.sqrt(row @ covariance @ row + unknown)
        assert found[k] == pytest.approx(expected, abs=1e-9)


def test_of_decisions_of_one_time_a_snapshot_at_that_time_knows_all():
    """Without a half-life, and with one: the same sums, but for the field that says what is left."""
    at_once = [at_time(each, 123_456) for each in SEEN]
    forgets, plain = learned(seen=at_once), learned(PLAIN, at_once)
    model, same = (RidgeModel(each.snapshot("123456-0")) for each in (forgets, plain))
    context, actions = decision_features(5)
    assert model.scores(context, actions) == pytest.approx(same.scores(context, actions), abs=1e-10)
    assert model.worth == pytest.approx(same.worth, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, len(SEEN)), max_size=5), st.booleans())
def test_where_batches_end_and_epochs_move_changes_no_bit(cuts, columns):
    parts = RidgeLearner(CONFIG, salt=b"salt")
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), len(SEEN)], strict=True):
        if columns:
            parts.learn_rows(columns_of(SEEN[low:high]))
        else:
            parts.learn(SEEN[low:high])
        parts.snapshot("200000-0")
    assert parts.checkpoint() == learned().checkpoint()


def test_a_move_of_the_epoch_rounds_nothing():
    """The same decisions, all of them older by whole half-lives: the same bits of every sum."""
    learner = learned(seen=SEEN[:40])
    before = decode_sums(learner.checkpoint())
    # The decision that moves it counts nothing: its features are 0 but for the intercept.
    later = before.newest_ms // HALF_LIFE_MS * HALF_LIFE_MS + 5 * HALF_LIFE_MS
    learner.learn_row(ChosenRow("new", (), (), 0.0, time_ms=later))
    after = decode_sums(learner.checkpoint())

    d, n = len(before.hashes), len(before.action_ids)
    assert after.newest_ms == later
    for number, (old, new) in enumerate(zip(before.arrays(), after.arrays(), strict=True)):
        same = new[:n] if number > 1 else new[:d].copy()
        if number == 0:
            same[0, 0] -= 1.0
        assert (32 * same == old).all() if number else (32 * same == old)[1:].all()


@pytest.mark.parametrize("count", [1, 4])
def test_merged_sums_give_the_posterior_of_one_learner_to_1e_9(count):
    """Whatever the newest decision of each partition is."""
    whole = interactions(1, 400)
    parts = [
        [each for each in whole if partition_of(each.event_id, count) == k] for k in range(count)
    ]
    parts[-1] = [each for each in parts[-1] if each.time_ms < 150_000]
    known = sorted((each for part in parts for each in part), key=lambda each: each.time_ms)
    merged = RidgeLearner(
        CONFIG, checkpoint=merge_ridge(CONFIG, [learned(seen=part).checkpoint() for part in parts])
    )
    context, actions = decision_features(5)
    one, many = (
        RidgeModel(each.snapshot("500000-0")).scores(context, actions)
        for each in (learned(seen=known), merged)
    )
    assert many == pytest.approx(one, abs=1e-9)
    assert merge_ridge(CONFIG, []) == RidgeLearner(CONFIG).checkpoint()


def test_a_correction_counts_as_its_decision_does():
    """Whenever it comes: to 1e-9 what the corrected reward would have taught."""
    late, known = RidgeLearner(CONFIG), RidgeLearner(CONFIG)
    for number, each in enumerate(SEEN):
        row = ChosenRow.of(each)
        late.learn_row(msgspec.structs.replace(row, reward=0.0))
        known.learn_row(row)
        if number >= 30:
            earlier = ChosenRow.of(SEEN[number - 30])
            late.correct_row(earlier)
    for each in SEEN[-30:]:
        late.correct_row(ChosenRow.of(each))
    context, actions = decision_features(5)
    found, expected = (
        RidgeModel(each.snapshot(NOW)).scores(context, actions) for each in (late, known)
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_learner_that_is_idle_for_years_holds_finite_numbers_and_has_forgotten_all():
    learner = learned()
    late = at_time(SEEN[0], 10**12)
    learner.learn([late])
    alone = RidgeLearner(CONFIG)
    alone.learn([late])
    context, actions = decision_features(5)
    found, fresh = (
        RidgeModel(each.snapshot(f"{10**12}-0")).scores(context, actions)
        for each in (learner, alone)
    )
    assert found == pytest.approx(fresh, abs=1e-9)


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda each: type(each).__name__)
def test_every_exploration_widens_to_that_of_a_fresh_model_when_nothing_comes(exploration):
    """The PMF of a model that has forgotten is that of one that knows as many features, and nothing.

    Draws of LinTS depend on the position, so both are drawn at one.
    """
    learner, empty = (CONFIG.make(exploration, salt=b"salt") for _ in range(2))
    learner.learn(SEEN)
    empty.learn([at_time(each, 0) for each in SEEN])
    soon, long_after = NOW, f"{110_000 + 1200 * HALF_LIFE_MS}-0"

    def pmfs(snapshot: Snapshot) -> Float64:
        explore = CONFIG.load(snapshot, exploration)
        return np.concatenate([explore(*decision_features(seed)) for seed in range(20)])

    fresh = pmfs(empty.snapshot(long_after))
    assert pmfs(learner.snapshot(long_after)) == pytest.approx(fresh, abs=1e-12)
    assert np.abs(pmfs(learner.snapshot(soon)) - fresh).max() > 0.01


def test_the_covariance_grows_back_to_the_priors_when_nothing_comes():
    learner = learned(uncertainty=True)
    context, actions = decision_features(5)
    before = -np.inf
    for halvings in range(0, 60, 4):
        model = RidgeModel(learner.snapshot(f"{110_000 + halvings * HALF_LIFE_MS}-0"))
        width = model.upper_bounds(context, actions, 1.0) - model.scores(context, actions)
        assert (width >= before - 1e-12).all()
        before = width
    _, features, unmet = learner._index.matrix(context, actions, dense=True)
    prior = ((features**2).sum(axis=1) + unmet) / CONFIG.l2 + 1 / CONFIG.bias_l2
    assert before == pytest.approx(np.sqrt(prior), abs=1e-9)


def test_a_prior_fades_from_the_time_it_was_taught():
    """Half of its weight is left after a half-life, whatever the rows say of themselves."""
    rows = columns_of([at_time(each, 0) for each in SEEN])
    learner = RidgeLearner(CONFIG)
    assert learner.learn_prior([rows], 0.5, 1_000_007) == len(SEEN)
    assert learner.learned == len(SEEN) // 2
    for age, worth in ((0, 1.0), (HALF_LIFE_MS, 0.5), (HALF_LIFE_MS // 2, 0.5**0.5)):
        model = RidgeModel(learner.snapshot(f"{1_000_007 + age}-0"))
        assert model.worth == pytest.approx(worth * len(SEEN) / 2, rel=1e-12)


def test_a_checkpoint_is_refused_by_a_learner_that_forgets_otherwise():
    with pytest.raises(SnapshotError):
        RidgeLearner(PLAIN, checkpoint=learned().checkpoint())
    with pytest.raises(SnapshotError):
        RidgeLearner(CONFIG, checkpoint=learned(PLAIN).checkpoint())


def test_without_a_half_life_nothing_says_that_there_could_be_one():
    """So snapshots, checkpoints and specs have the bytes that they had."""
    learner = learned(PLAIN)
    payload = msgspec.msgpack.decode(learner.snapshot("1-0").payload)
    assert not {"worth"} & payload.keys()
    assert "half_life" not in payload["config"]
    assert "newest_ms" not in msgspec.msgpack.decode(learner.checkpoint())
    assert not learner.timed


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1e3s", "30 days", "0d", "0.5s", "inf s"])
def test_what_is_no_half_life_is_refused(text):
    with pytest.raises(SpecError) as refused:
        RidgeConfig(half_life=text)
    assert refused.value.target == "learner.half_life"


def test_an_epoch_is_the_whole_half_life_before_the_newest_decision():
    epoch = Epoch(1000, 0)
    times = np.array([500, 999, 400, 2500, 1700, 2999, 3000], np.int64)
    found = [
        (rows.start, rows.stop, halvings, weights.tolist())
        for rows, halvings, weights in epoch.stretches(times)
    ]
    assert [each[:3] for each in found] == [(0, 3, 0), (3, 6, 2), (6, 7, 1)]
    assert found[2][3] == [1.0]
    assert found[0][3] == pytest.approx([2**0.5, 2**0.999, 2**0.4])
    assert (epoch.number, epoch.newest_ms) == (3, 3000)
    assert list(epoch.stretches(np.zeros(0, np.int64))) == []
