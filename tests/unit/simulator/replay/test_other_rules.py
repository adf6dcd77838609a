"""Replay of a policy under rules that the log was not made under."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.logs import archived, decision

from bandits.errors import ReplayError
from bandits.exploration import EpsilonGreedy
from bandits.log.join import JoinRule
from bandits.log.records import (
    CatalogueRecord,
    LogEntry,
    Removed,
    RewardRecord,
    Ruled,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from policies.blend import make_learner
from policies.items.catalogue import Catalogue, Item
from policies.profiles.options import ProfileOptions
from policies.rules.boosts import Boost
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive
from simulator.learners.trained import FrozenPolicy, train_on_log
from simulator.logs.archive.pieces import policy_pieces
from simulator.ope.targets import UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.evaluate_learning import evaluate_learning
from simulator.replay.parse_policy import parse_policy

ITEMS = Catalogue(
    [
        Item("a", {"stock": 1.0, "price": 1.0}),
        Item("b", {"stock": 1.0, "price": 3.0}),
        Item("c", {"stock": 9.0, "price": 9.0}),
        Item("d", {"stock": 0.0, "price": 2.0}),
    ]
)
LOGGED = PolicySpec(
    "p",
    learner=RidgeConfig(),
    exploration=EpsilonGreedy(1.0),
    join=JoinRule(window_s=2.0),
    filter="item.stock > 0",
)
GREEDY = msgspec.structs.replace(LOGGED, exploration=EpsilonGreedy(0.0))
COUNT = 600


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Decisions among a, b and c, of which d was removed; what pays is b."""
    log = [
        LogEntry("1-0", SpecRecord(LOGGED.digest, "salt")),
        LogEntry("1-1", CatalogueRecord(ITEMS.digest)),
    ]
    for n in range(COUNT):
        record = decision(
            f"e{n}",
            chosen=(n % 3,),
            spec=LOGGED.digest,
            catalogue=ITEMS.digest,
            rules=Ruled(
                removed={"filter.where": Removed(["d"], 1)},
                boosts=np.array([0, 0, 9], "<f4").tobytes(),
                filter="item.price > 2" if n % 2 else None,
            ),
        )
        log.append(LogEntry(f"{10_000 + 10 * n}-0", record))
        log.append(LogEntry(f"{10_001 + 10 * n}-0", RewardRecord(f"e{n}", float(n % 3 == 1))))
    log.append(LogEntry("9000000-0", TickRecord()))
    blobs = {LOGGED.digest: LOGGED.encoded, ITEMS.digest: ITEMS.encoded}
    return policy_pieces(
        str(archived(tmp_path_factory.mktemp("log"), log, LOGGED, 2, blobs)), "p", 1
    )


def under(base: PolicySpec = LOGGED, **changes) -> FrozenPolicy:
    """A policy that has learned nothing, under other rules."""
    spec = msgspec.structs.replace(base, **changes)
    return FrozenPolicy("other", spec, make_learner(spec, salt=b"s").snapshot("0-0"))


def rows(pieces, count: int = 2) -> list:
    (piece,) = pieces
    return [row for batch in piece.batches() for row in batch.decisions][:count]


def test_a_stricter_filter_leaves_some_of_what_could_be_chosen(pieces):
    policy = under(filter="item.stock > 0 && item.price < 5.0")
    (row, _) = rows(pieces)
    np.testing.assert_allclose(policy.pmf(row), [0.5, 0.5, 0])
    np.testing.assert_allclose(policy.after(row)([1, 2]), [1, 0])

    report = evaluate(OpeQuestion([policy, UniformTarget()], estimators=["ips", "snips"]), pieces)
    found = {result.policy: result.estimates for result in report.results}
    assert found["other"]["ips"].value == pytest.approx(0.5)
    assert found["uniform"]["ips"].value == pytest.approx(1 / 3)
    assert found["other"]["ips"].verdict == "reliable"
    assert any("sources would have proposed" in note for note in report.results[0].notes)


def test_what_a_laxer_filter_lets_through_is_no_choice_of_the_log(pieces):
    policy = under(filter=msgspec.UNSET)
    without, own = rows(pieces)
    np.testing.assert_allclose(policy.pmf(without), [0.25] * 3)
    np.testing.assert_allclose(policy.pmf(own), [1 / 3] * 3)  # the request refuses it, too

    report = evaluate(OpeQuestion([policy], estimators=["ips"]), pieces)
    (result,) = report.results
    estimate = result.estimates["ips"]
    assert estimate.verdict == "unreliable"
    assert "12.5% of the target policy's choices" in estimate.reason
    assert "its filter may let through what the log's (item.stock > 0) took away" in estimate.reason


def test_a_filter_that_may_be_laxer_is_never_more_than_weak(pieces):
    report = evaluate(OpeQuestion([under(filter="item.price != 2.0")], estimators=["ips"]), pieces)
    assert report.results[0].estimates["ips"].verdict == "weak"


def test_a_filter_that_refuses_everything_chooses_nothing(pieces):
    policy = under(filter="item.stock > 100 && item.stock > 0")
    assert policy.pmf(rows(pieces)[0]).tolist() == [0, 0, 0]
    report = evaluate(OpeQuestion([policy], estimators=["ips"]), pieces)
    assert report.results[0].estimates["ips"].verdict == "unreliable"


def test_boosts_are_those_of_the_policy_and_not_the_log(pieces):
    (row, _) = rows(pieces)
    np.testing.assert_allclose(under(GREEDY).pmf(row), [1 / 3] * 3)
    boosted = under(GREEDY, boost=[Boost("item.price == 3.0", 0.2)])
    np.testing.assert_allclose(boosted.pmf(row), [0.01 / 3, 0.99 + 0.01 / 3, 0.01 / 3])
    report = evaluate(OpeQuestion([boosted], estimators=["ips"]), pieces)
    assert report.results[0].estimates["ips"].value == pytest.approx(0.99 + 0.01 / 3)


@pytest.mark.slow
def test_a_policy_that_learns_on_the_way_obeys_its_rules(pieces):
    spec = msgspec.structs.replace(LOGGED, filter="item.stock > 0 && item.price < 5.0")
    assert progressive(spec, pieces).ips == pytest.approx(0.5)
    assert progressive(LOGGED, pieces).ips == pytest.approx(1 / 3)

    laxer = msgspec.structs.replace(LOGGED, filter="item.stock >= 0.0")
    result, _ = evaluate_learning(laxer, "progressive", pieces, log="", log_format="archive")
    assert any("its filter may let through" in note for note in result.notes)


def test_what_no_record_says_is_an_error_that_names_it(pieces):
    seen = under(filter="item.stock > 0 && !(item.id in profile.view)", profile=ProfileOptions())
    with pytest.raises(
        ReplayError, match=r"profile\.view, of which the record of event e0"
    ) as error:
        seen.pmf(rows(pieces)[0])
    assert error.value.target == "filter.where"
    with pytest.raises(ReplayError, match="private"):
        under(filter="context.city == item.city", context_private=["city"])


def test_a_trained_model_takes_the_rules_of_another_spec(pieces, tmp_path):
    model, rules = tmp_path / "home.model", tmp_path / "other.yaml"
    model.write_bytes(train_on_log(LOGGED, list(map(replace, pieces))).encoded)
    rules.write_text('name: x\nfilter: "item.stock > 0 && item.price < 5.0"\n')
    target = parse_policy(f"{{kind: trained, path: {model}, rules: {rules}}}")
    assert target.name == f"home, rules of {rules}"
    np.testing.assert_allclose(target.pmf(rows(pieces)[0]), [0.5, 0.5, 0])
    (function, arguments) = target.__reduce__()  # as it goes to where a piece is tallied
    assert function(*arguments).notes == target.notes
