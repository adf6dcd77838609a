"""Replay of whole pages under page rules that the log was not made under."""

from itertools import permutations

import msgspec
import numpy as np
import pytest
from support.logs import archived, decision

from bandits.errors import ReplayError
from bandits.exploration import EpsilonGreedy
from bandits.log.join import JoinRule
from bandits.log.records import CatalogueRecord, LogEntry, RewardRecord, SpecRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from policies.blend import make_learner
from policies.items.catalogue import Catalogue, Item
from policies.rules.pages.page import Diversity, Page
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive
from simulator.learners.trained import FrozenPolicy, train_on_log, with_page_rewards
from simulator.logs.archive.pieces import policy_pieces
from simulator.logs.rows import LoggedDecision, MemoryPiece
from simulator.ope.targets import UniformTarget
from simulator.replay.evaluate_slates import SlateQuestion, evaluate_slates

BRANDS = {"a": "x", "b": "x", "c": "y"}
ITEMS = Catalogue(
    [Item(name, {"brand": brand}, vectors={"v": [1.0, 0.0]}) for name, brand in BRANDS.items()]
)
LOGGED = PolicySpec(
    "p", learner=RidgeConfig(), exploration=EpsilonGreedy(1.0), join=JoinRule(window_s=2.0)
)
ONE_OF_EACH = Page(most={"brand": 1})
COUNT = 600


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Each page of two of three items equally often; the second earns 1 below another brand."""
    log = [
        LogEntry("1-0", SpecRecord(LOGGED.digest, "salt")),
        LogEntry("1-1", CatalogueRecord(ITEMS.digest)),
    ]
    shown = list(permutations(range(3), 2))
    for n in range(COUNT):
        page = shown[n % len(shown)]
        first, second = ("abc"[at] for at in page)
        named = {"spec": LOGGED.digest, "catalogue": ITEMS.digest}
        log.append(LogEntry(f"{10_000 + 10 * n}-0", decision(f"e{n}", chosen=page, **named)))
        earned = float(BRANDS[first] != BRANDS[second])
        log.append(LogEntry(f"{10_001 + 10 * n}-0", RewardRecord(f"e{n}", earned, slot=1)))
    log.append(LogEntry("9000000-0", TickRecord()))
    blobs = {LOGGED.digest: LOGGED.encoded, ITEMS.digest: ITEMS.encoded}
    return policy_pieces(
        str(archived(tmp_path_factory.mktemp("log"), log, LOGGED, 2, blobs)), "p", 1
    )


def under(**changes) -> FrozenPolicy:
    """A policy that has learned nothing, under other rules."""
    spec = msgspec.structs.replace(LOGGED, **changes)
    return FrozenPolicy("other", spec, make_learner(spec, salt=b"s").snapshot("0-0"))


def rows(pieces) -> list[LoggedDecision]:
    """The two slots of the first page, which is a above b."""
    return [row for piece in pieces for batch in piece.batches() for row in batch.decisions][:2]


def test_what_may_stand_below_is_what_the_policys_own_page_lets(pieces):
    """On the page that the log shows, and on any other that the policy might fill."""
    policy, (first, second) = under(page=ONE_OF_EACH), rows(pieces)
    np.testing.assert_allclose(policy.pmf(first), [1 / 3] * 3)
    assert second.action_ids == ["b", "c"]
    np.testing.assert_allclose(policy.pmf(second), [0.0, 1.0])
    np.testing.assert_allclose(under().pmf(second), [0.5, 0.5])
    np.testing.assert_allclose(policy.after(first)([1, 2]), [0.0, 1.0])
    np.testing.assert_allclose(policy.after(first)([0, 1]), [0.5, 0.5])


def test_diversity_is_taken_from_scores_as_a_decision_takes_it(pieces):
    """Also where items are compared by their vectors, as the catalogue has them."""
    greedy = {"exploration": EpsilonGreedy(0.0), "floor": 0.0}
    second = rows(pieces)[1]
    policy = under(page=Page(diversity=Diversity("brand", 0.5)), **greedy)
    np.testing.assert_allclose(policy.pmf(second), [0.0, 1.0])
    alike = under(page=Page(diversity=Diversity("v", 0.5, vector=True)), **greedy)
    np.testing.assert_allclose(alike.pmf(second), [0.5, 0.5])


def test_the_cascade_estimator_says_what_its_own_pages_earn(pieces):
    """Every page that the rule lets stand earns 1, and two in three of the log's."""
    policy = under(page=ONE_OF_EACH)
    question = SlateQuestion([policy, UniformTarget()], ("rips", "snrips", "iips"), horizon=2)
    found = {each.policy: each for each in evaluate_slates(question, pieces).results}
    assert found["other"].estimates["rips"].value == pytest.approx(1.0)
    assert found["other"].estimates["snrips"].value == pytest.approx(1.0)
    assert found["uniform"].estimates["rips"].value == pytest.approx(2 / 3)
    assert any("its page's rules are asked" in note for note in found["other"].notes)


def test_a_rule_of_neighbours_is_judged_where_the_order_is_known(pieces):
    policy = under(page=Page(in_a_row={"brand": 1}))
    np.testing.assert_allclose(policy.pmf(rows(pieces)[1]), [0.0, 1.0])
    found = evaluate_slates(SlateQuestion([policy], ("rips",), horizon=2), pieces).results[0]
    assert found.estimates["rips"].value == pytest.approx(1.0)
    with pytest.raises(ReplayError, match=r"iips and pi do not know: use rips"):
        evaluate_slates(SlateQuestion([policy], ("iips",), horizon=2), pieces)


def test_a_later_slot_of_a_table_does_not_say_what_stands_above():
    row = LoggedDecision("e", {}, ["b", "c"], 0, 0.5, 0.0, slot=1)
    with pytest.raises(ReplayError, match="the service's archive alone"):
        under(page=ONE_OF_EACH).pmf(row)


@pytest.mark.parametrize("kind", ["sum", "largest"])
def test_what_a_page_earned_is_learned_of_an_archive_and_of_nothing_that_may_cut_pages(
    pieces, kind
):
    join = msgspec.structs.replace(LOGGED.join, page_reward=kind)
    spec = msgspec.structs.replace(LOGGED, join=join)
    assert train_on_log(spec, pieces).learned == 2 * COUNT
    (batch,) = [batch for piece in pieces for batch in piece.batches()]
    own, taught = batch.reward.reshape(-1, 2), with_page_rewards(batch, kind).reward.reshape(-1, 2)
    assert own[:, 0].max() == 0.0
    np.testing.assert_array_equal(taught, np.repeat(own.sum(axis=1, keepdims=True), 2, axis=1))

    table = MemoryPiece([LoggedDecision("e", {}, ["b", "c"], 0, 0.5, 0.0, slot=1)])
    for refused in (lambda: train_on_log(spec, [table]), lambda: progressive(spec, [table])):
        with pytest.raises(ReplayError) as caught:
            refused()
        assert caught.value.target == "join.page_reward"
