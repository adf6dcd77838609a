"""What groups of items are shown, and what groups of users get."""

import math

import numpy as np
import pytest
from msgspec import json
from support.fakes import FakeLog
from support.logs import archived, decision

from bandits.log.join import JoinRule
from bandits.log.records import CatalogueRecord, TickRecord
from policies.items.catalogue import Catalogue, Item
from policies.rules.quotas.quota import Exposure
from policies.spec import PolicySpec
from simulator.report.fairness import (
    exposure_by_group,
    exposure_field,
    exposure_report,
    outcomes_by_group,
)
from simulator.report.gather import HOLDOUT, NO_UNIT, POLICY, PolicyRows, read_policy
from simulator.report.item_groups import groups_of_items
from simulator.report.make import policy_report_of
from simulator.report.page import policy_page


def rows_of(reward, codes, unit=None, group=None) -> PolicyRows:
    n = len(reward)
    return PolicyRows(
        ms=np.arange(n),
        unit=np.array([NO_UNIT] * n if unit is None else unit, np.int32),
        group=np.array([POLICY] * n if group is None else group, np.int8),
        reward=np.array(reward, np.float64),
        fields={"age": (np.array(codes, np.int8), ["young", "old", "nobody"])},
        units=0 if unit is None else max(unit) + 1,
    )


def test_exposure_adds_up_and_its_interval_holds_the_share_also_at_the_ends():
    chosen = {"a": 30, "b": 10, "c": 60, "new": 0}
    found = exposure_by_group(chosen, {"a": "x", "b": "x", "c": "y"}.get)
    assert [(each.group, each.chosen) for each in found] == [("y", 60), ("x", 40), ("", 0)]
    assert sum(each.share for each in found) == 1.0
    # As the proportion_confint of statsmodels has it, with method wilson, for 40 of 100.
    assert (found[1].low, found[1].high) == pytest.approx((0.3094013, 0.4979974), abs=1e-6)
    assert found[2].low == 0.0 < found[2].high < 0.05
    (whole,) = exposure_by_group({"a": 5}, lambda _: "x")
    assert whole.high == whole.share == 1.0
    assert exposure_by_group({}, lambda _: "x") == []


def test_outcomes_are_the_policys_by_value_and_can_be_written():
    rows = rows_of([1, 0, 1, 1, 9, 5], [0, 0, 1, 1, 1, -1], group=[POLICY] * 4 + [HOLDOUT, POLICY])
    young, old = outcomes_by_group(rows)
    assert (young.field, young.value, young.decisions, young.units) == ("age", "young", 2, 2)
    assert (young.mean, old.mean, old.low, old.high) == (0.5, 1.0, 1.0, 1.0)
    # the standard error of two decisions: their standard deviation, 1 / sqrt 2, by sqrt 2
    assert young.high - young.mean == pytest.approx(1.959964 * 0.5)
    assert json.decode(json.encode([young, old]))[1]["value"] == "old"


def test_of_one_user_an_interval_says_nothing_and_users_widen_it():
    one = outcomes_by_group(rows_of([1, 0, 1], [0, 0, 0], unit=[7, 7, 7]))
    assert (one[0].units, one[0].low) == (1, -math.inf)

    # Whoever gets the same ten times is as sure as one who gets it once.
    reward = [0.0, 1.0, 1.0, 0.0]
    once = outcomes_by_group(rows_of(reward, [0] * 4))
    often = outcomes_by_group(
        rows_of(np.repeat(reward, 10), [0] * 40, unit=np.repeat([1, 2, 3, 4], 10))
    )
    assert often[0].high == pytest.approx(once[0].high)
    assert often[0].decisions == 40


def test_the_intervals_cover_the_mean_of_users_who_come_often():
    """400 logs: 95% of intervals, less four standard errors of that share (false alarm 1 in 3e4)."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(400):
        taste = rng.random(60)
        unit = rng.integers(60, size=600)
        reward = (rng.random(600) < taste[unit]).astype(float)
        (found,) = outcomes_by_group(rows_of(reward, [0] * 600, unit=unit))
        held += found.low <= 0.5 <= found.high
    assert held / 400 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400)


PROVIDERS = {"a": "north", "b": "south", "c": "south"}


def test_a_report_says_what_groups_of_items_were_shown_beside_their_floor(tmp_path):
    """Groups by the catalogue of the newest decision; who is surely below the floor is marked."""
    spec = PolicySpec("p", exposure=Exposure("provider", 0.4), join=JoinRule(window_s=1.0))
    items = [Item(name, {"provider": of, "new": name == "a"}) for name, of in PROVIDERS.items()]
    catalogue, log = Catalogue(items), FakeLog(spec)
    log.blobs[catalogue.digest] = catalogue.encoded
    log.append(CatalogueRecord(catalogue.digest), at=5)
    for number in range(60):
        chosen = 0 if number % 6 == 0 else 1 + number % 2
        log.append(
            decision(
                f"e{number}",
                ids=("a", "b", "gone"),
                chosen=(chosen,),
                spec=spec.digest,
                catalogue=catalogue.digest,
                context={"region": "<b>eu</b>"},
            ),
            at=10 + number,
        )
    log.append(TickRecord(), at=100_000)
    archived(tmp_path, log.entries, spec, blobs=log.blobs)

    rows = read_policy(str(tmp_path), "p")
    assert exposure_field(rows) == "provider"
    said = exposure_report(
        rows, "provider", groups_of_items(str(tmp_path), "p", rows.catalogue, "provider")
    )
    assert said.floor == 0.4
    assert {each.group: each.chosen for each in said.groups} == {"south": 20, "": 30, "north": 10}
    by_flag = groups_of_items(str(tmp_path), "p", rows.catalogue, "new")
    assert (by_flag("a"), by_flag("b"), by_flag("gone")) == ("true", "false", None)
    assert exposure_report(rows, "new", by_flag).floor is None
    assert groups_of_items(str(tmp_path), "p", "", "new")("a") is None

    page = policy_page(policy_report_of("p", rows, exposure=said))
    assert "What groups of items were shown" in page
    assert "<b class='unreliable'>16.67%</b>" in page  # north, whose interval ends below 40%
    assert "<b class='unreliable'>33.33%</b>" not in page
    assert "&lt;b&gt;eu&lt;/b&gt;" in page
    assert "<b>eu</b>" not in page
    assert "What groups of items were shown" not in policy_page(policy_report_of("p", rows))
