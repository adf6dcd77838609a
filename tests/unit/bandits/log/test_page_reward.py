"""What a page earned is taught of each of its slots."""

import pytest
from support.logs import RULE, WINDOW, decision

from bandits.errors import SpecError
from bandits.exploration import Softmax
from bandits.log.join import Join, JoinRule
from bandits.log.records import LogEntry, RewardRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.spec import PolicySpec


def lessons_of(rule: JoinRule, *rewards: RewardRecord) -> list[tuple]:
    """What is taught of a page of three slots: slots, rewards and whether it is a correction."""
    join, out = Join(lambda _: rule, rule), []
    records = [decision(chosen=(0, 2, 1)), *rewards, TickRecord()]
    times = [0, *(100 + at for at in range(len(rewards))), WINDOW]
    for number, (ms, record) in enumerate(zip(times, records, strict=True)):
        out += join.apply(LogEntry(f"{ms}-{number}", record))
    return [(each.slots, each.rewards, each.correction) for each in out]


@pytest.mark.parametrize(("kind", "earned"), [("sum", 4.0), ("largest", 3.0)])
def test_each_slot_is_taught_what_the_page_earned(kind, earned):
    """A slot that got nothing earned the default; a reward that names no slot is of the page, too."""
    rule = JoinRule(window_s=WINDOW / 1000, page_reward=kind)
    found = lessons_of(rule, RewardRecord("e", 1.0), RewardRecord("e", 3.0, slot=2))
    assert found == [((0, 1, 2), (earned,) * 3, False)]


def test_as_it_arrives_each_reward_corrects_all_slots():
    rule = JoinRule(window_s=WINDOW / 1000, learn="as_it_arrives", page_reward="sum")
    found = lessons_of(rule, RewardRecord("e", 1.0), RewardRecord("e", 2.0, slot=2))
    assert found == [
        ((0, 1, 2), (0.0, 0.0, 0.0), False),
        ((0, 1, 2), (1.0, 1.0, 1.0), True),
        ((0, 1, 2), (2.0, 2.0, 2.0), True),
    ]


def test_without_it_each_slot_is_taught_its_own():
    own = lessons_of(RULE, RewardRecord("e", 1.0), RewardRecord("e", 3.0, slot=2))
    assert own == [((0, 1, 2), (1.0, RULE.default_reward, 3.0), False)]


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        (
            {
                "learner": VwConfig(),
                "exploration": Softmax(),
                "join": JoinRule(learn="as_it_arrives", page_reward="sum"),
            },
            "join.learn",
        ),
        (
            {
                "learner": RidgeConfig(examination=[1.0, 0.5]),
                "join": JoinRule(page_reward="largest"),
            },
            "join.page_reward",
        ),
        (
            {"learner": RidgeConfig(slot_biases=2), "join": JoinRule(page_reward="sum")},
            "join.page_reward",
        ),
    ],
)
def test_what_cannot_be_learned_of_a_page_is_refused(spec, target):
    with pytest.raises(SpecError) as caught:
        PolicySpec("home", **spec)
    assert caught.value.target == target
