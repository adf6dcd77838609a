"""What every learner promises: its state depends on the sequence of interactions alone."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chosen import columns_of
from support.fakes import SALT
from support.strategies import interactions

from bandits.errors import SnapshotError
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, VwExploration
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec

RIDGE = RidgeConfig(l2=2.0, interactions=[("context", "scores")], max_features=60)
SPECS = {
    "ridge lints": PolicySpec("p", learner=RIDGE, exploration=LinTs(draws=10)),
    "ridge linucb": PolicySpec("p", learner=RIDGE, exploration=LinUcb()),
    "ridge that forgets": PolicySpec(
        "p", learner=msgspec.structs.replace(RIDGE, half_life="7s"), exploration=LinUcb()
    ),
    "vw mtr": PolicySpec(
        "p",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -b 10 -q cs"),
        exploration=EpsilonGreedy(),
    ),
    "vw bag": PolicySpec(
        "p", learner=VwConfig("--cb_explore_adf -b 10 --bag 3 -q cf"), exploration=VwExploration()
    ),
    "vw dr cover": PolicySpec(
        "p",
        learner=VwConfig("--cb_explore_adf -b 10 --cb_type dr --cover 2"),
        exploration=VwExploration(),
    ),
}
COUNT = 40
SEEN = interactions(11, COUNT)


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys(), scope="module")
def spec(request):
    return request.param


def whole(spec):
    learner = make_learner(spec, salt=SALT)
    learner.learn(SEEN)
    return learner


@settings(max_examples=8)
@given(st.lists(st.integers(0, COUNT), max_size=4))
def test_any_split_of_the_interactions_gives_the_same_bytes(spec, cuts):
    """Also when a snapshot is made, or nothing is learned, in between."""
    parts = make_learner(spec, salt=SALT)
    for low, high in pairwise([0, *sorted(cuts), COUNT]):
        parts.learn(SEEN[low:high])
        parts.snapshot("9-9")
    assert parts.snapshot("1-0") == whole(spec).snapshot("1-0")
    assert parts.checkpoint() == whole(spec).checkpoint()


@pytest.mark.parametrize("cuts", [[0, COUNT], [0, 1, 1, 30, COUNT]])
def test_rows_that_are_columns_teach_what_the_interactions_do(spec, cuts):
    learner = make_learner(spec, salt=SALT)
    if not learner.by_row:
        pytest.skip("it learns from all actions")
    for low, high in pairwise(cuts):
        learner.learn(SEEN[low : (low + high) // 2])
        learner.learn_rows(columns_of(SEEN[(low + high) // 2 : high]))
    assert learner.checkpoint() == whole(spec).checkpoint()


@pytest.mark.parametrize("at", [0, 1, COUNT // 2, COUNT])
def test_resuming_from_a_checkpoint_is_part_of_the_sequence(spec, at):
    """Two that serialise and load at one place agree byte for byte, as at a checkpoint entry."""
    results = []
    for cuts in ([0, at], [0, at // 2, at]):
        first = make_learner(spec, salt=SALT)
        for low, high in pairwise(cuts):
            first.learn(SEEN[low:high])
        resumed = make_learner(spec, salt=SALT, checkpoint=first.checkpoint())
        assert resumed.checkpoint() == first.checkpoint()
        assert resumed.snapshot("5-0") == first.snapshot("5-0")
        resumed.learn(SEEN[at:])
        results.append((resumed.checkpoint(), resumed.snapshot("1-0")))
    assert results[0] == results[1]


def test_the_order_of_the_interactions_is_part_of_the_state(spec):
    other = make_learner(spec, salt=SALT)
    other.learn(SEEN[::-1])
    assert other.checkpoint() != whole(spec).checkpoint()


def test_a_snapshot_says_where_it_stands_and_how_much_it_knows(spec):
    snapshot = whole(spec).snapshot("123-4")
    assert (snapshot.position, snapshot.learned) == ("123-4", COUNT)
    assert make_learner(spec, salt=SALT).snapshot("0-0").learned == 0
    load_policy(spec, snapshot)


@settings(max_examples=15)
@given(st.binary(max_size=100))
def test_a_corrupt_checkpoint_is_refused(spec, data):
    with pytest.raises(SnapshotError):
        make_learner(spec, salt=SALT, checkpoint=data)


def test_a_truncated_or_flipped_checkpoint_is_refused_or_valid(spec):
    good = whole(spec).checkpoint()
    for bad in (good[:-1], good[: len(good) // 2], good + b"x"):
        with pytest.raises(SnapshotError):
            make_learner(spec, salt=SALT, checkpoint=bad)
