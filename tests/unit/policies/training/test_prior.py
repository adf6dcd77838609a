"""The rows of a prior: what users did later with what sources, trained on what was earlier, propose."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support.events import coded_events

from bandits.types import frozen
from policies.artifacts.prior import decode_prior
from policies.data.coded import weights_as_rewards
from policies.data.manifest import WeightOptions
from policies.data.writer import write_data_set
from policies.training.cf import AlsConfig
from policies.training.fits import TrainConfig
from policies.training.prior import contexts_of, make_prior
from policies.training.scorers.network import ScorerConfig

CONFIG = TrainConfig(als=AlsConfig(factors=4, iterations=3))
USERS, ITEMS, EACH = 40, 30, 12
CATALOGUE = [{"id": f"i{item}", "features": {}} for item in range(ITEMS)]
CONTEXTS = {f"u{user}": {"taste": str(user % 2)} for user in range(USERS)}
SOURCES = ("als", "popular")


def make_events(*, once: bool = False):
    """Users like items of their own parity; ``once``: each has a day to himself."""
    rng = np.random.default_rng(0)
    rows, times = [], []
    for user in range(USERS):
        items = rng.choice(np.arange(user % 2, ITEMS, 2), EACH, replace=False)
        rows += [(f"u{user}", f"i{item}", 1.0) for item in items]
        begin = 1000 * user if once else 0
        times += [begin + 10 * at for at in range(EACH)]
    return replace(coded_events(rows), time=frozen(np.array(times, np.int64)))


def made(events, **more):
    more = {"sources": SOURCES, "config": CONFIG, "contexts": CONTEXTS} | more
    return make_prior(events, CATALOGUE, **more)


@pytest.mark.parametrize(("once", "split"), [(False, "time"), (True, "user")])
def test_a_reward_is_what_a_user_did_later(once, split):
    events = make_events(once=once)
    prior = made(events)
    assert (prior.split, prior.users, prior.reason) == (split, USERS, "")

    # Later is the last quarter of each user's twelve: nothing earlier is proposed again.
    for decision in prior.rows.decisions:
        parity = int(decision.context["taste"])
        rewards = decision.known_rewards()
        taken = [item for item, reward in zip(decision.action_ids, rewards, strict=True) if reward]
        assert set(rewards.tolist()) <= {0.0, 1.0}
        assert len(taken) <= EACH // 4
        assert all(int(item[1:]) % 2 == parity for item in taken)
        assert set(decision.source_scores()) == set(SOURCES)
    assert 0.05 < prior.rewarded < 0.3


def test_rows_have_the_scores_of_what_only_scores_and_none_of_its_items():
    events, config = make_events(), replace(CONFIG, fm=ScorerConfig(factors=4, epochs=2))
    prior = made(events, sources=(*SOURCES, "fm"), config=config)
    proposed = made(events).rows.decisions
    for decision, without in zip(prior.rows.decisions, proposed, strict=True):
        scores = decision.source_scores()
        assert set(scores) == {*SOURCES, "fm"}
        assert np.isfinite(scores["fm"]).all()
        assert decision.action_ids == without.action_ids

    # It sees the context: users of a taste are offered what that taste takes.
    scored = [each for each in prior.rows.decisions if len(set(each.action_ids)) > 1]
    assert len({each.source_scores()["fm"].tobytes() for each in scored}) > 1


def test_no_user_is_in_it_and_the_same_events_give_the_same_bytes():
    events = make_events()
    first, second = made(events).rows.encoded, made(events).rows.encoded
    assert first == second != made(events, seed=1).rows.encoded
    assert b"u1" not in first
    assert len(decode_prior(first)) == len(made(events).rows)


def test_rows_are_bounded_by_a_sample_of_users():
    events = make_events()
    whole, part = made(events), made(events, max_rows=300)
    assert len(part.rows) <= 300 < len(whole.rows)
    assert part.users < whole.users


@pytest.mark.parametrize(
    ("changed", "more", "reason"),
    [
        ({"time": frozen(np.full(USERS * EACH, -1, np.int64))}, {}, "no event has a time"),
        ({}, {"sources": ("popular",)}, "there is one source, popular"),
        ({"weight": frozen(np.full(USERS * EACH, 0.4, np.float32))}, {}, "0 of .* were then taken"),
    ],
)
def test_why_there_is_no_prior(changed, more, reason):
    prior = made(replace(make_events(), **changed), **more)
    assert prior.rows is None
    assert re.match(reason, prior.reason)


def test_too_few_users_are_said():
    events = make_events()
    few = events.select(events.user < 5).compact()
    prior = made(few)
    assert prior.rows is None
    assert prior.reason.startswith("5 users have events in the earlier part")


def test_contexts_are_the_columns_that_a_caller_can_send(tmp_path):
    """A column that is another name of each user is left out; age does not fade a reward."""
    users = [f"u{user:03}" for user in range(60)]
    events = pa.table(
        {
            "user": users,
            "item": ["i0"] * 60,
            "time": pa.array(range(60), pa.timestamp("ms", "UTC")),
        }
    )
    table = pa.table({"id": users, "zip": users, "group": ["a", "b"] * 30, "age": [30] * 60})
    options = WeightOptions(half_life_s=0.001)
    data = write_data_set(tmp_path / "data", events, users=table, weights=options)
    assert contexts_of(data)["u001"] == {"group": "b", "age": 30.0}
    assert data.coded().weight.min() < 0.5
    assert (weights_as_rewards(data.coded(), options) == 1.0).all()


def test_who_has_turned_to_every_item_keeps_nobody_else_from_being_learned_from():
    rows = [("staff", f"i{at % ITEMS}", 1.0, "view", at) for at in range(3 * ITEMS)]
    rows += [
        (f"u{user}", f"i{(2 * at + user) % ITEMS}", 1.0, "view", 8 * at)
        for user in range(USERS)
        for at in range(EACH)
    ]
    prior = made(coded_events(rows))
    assert (prior.users, prior.reason) == (USERS, "")
