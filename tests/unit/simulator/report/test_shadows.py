"""What a report says of shadows: better, worse, the policy itself, and those that say nothing."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog
from support.logs import archived
from support.shadowed import policy_of, said, served

from bandits.log.positions import log_order, position_ms
from bandits.log.records import DecisionRecord
from policies.shadows.files import PART, NamedShadow, PolicyShadows, ShadowState
from policies.shadows.opening import shadows_of
from policies.spec import spec_of
from simulator.report.shadows.estimating import shadow_worths
from simulator.report.shadows.section import shadows_section
from simulator.report.shadows.verdicts import SHADOW_VERDICTS
from simulator.report.shadows.worth import ShadowWorth

NAMES = ("twin", "greedy", "chance", "<b>none</b>")
IDS = ("i0", "i1", "i2")
PAID = {"i1": 0.8}
World = tuple[Path, PolicyShadows, FakeLog]
HALF: dict[str, Any] = {"learner": {"kind": "ridge"}, "exploration": {"kind": "epsilon_greedy"}}


def pays(record: DecisionRecord, rng: np.random.Generator) -> float:
    """One item is worth far more than the others."""
    return float(rng.random() < PAID.get(record.action_ids[record.chosen[0]], 0.1))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An archive of a policy that explores much, and what its shadows have said of it."""
    raw = policy_of(
        {**HALF, "floor": 0.5, "name": "p"},
        {"name": "twin", "floor": 0.5},
        {"name": "greedy", "exploration": {"kind": "greedy"}},
        {"name": "chance", "floor": 1.0},
        {"name": "<b>none</b>"},
    )
    spec = spec_of(raw)
    log = served(spec, rounds=60, each_round=15, pays=pays, ids=IDS)
    root = archived(tmp_path_factory.mktemp("archive"), log.entries, spec, blobs=log.blobs)
    end, shadows = log.entries[-1].id, PolicyShadows(root, "p")
    named = [NamedShadow(each.name, each.digest, each.refused) for each in shadows_of(spec)]
    shadows.say_current(named)
    for each, name in zip(shadows_of(spec), named, strict=True):
        if each.spec is not None:
            made = said(each.spec, log)
            shadows.of(name).store(0, made[:700])
            shadows.of(name).store(1, made[700:])
            shadows.of(name).say_state(
                ShadowState("follows", end, len(made), at_ms=position_ms(end))
            )
    return root, shadows, log


@pytest.fixture(scope="module")
def worths(world: World) -> dict[str, ShadowWorth]:
    root, shadows, _ = world
    return {each.name: each for each in shadow_worths(root, "p", shadows)}


def test_better_worse_and_alike_are_told_apart(worths: dict[str, ShadowWorth]) -> None:
    """By doubly robust evaluation of all rows, with a verdict each."""
    assert tuple(worths) == NAMES
    assert {name: each.verdict.code for name, each in worths.items()} == {
        "twin": "shadow_undecided",
        "greedy": "shadow_better",
        "chance": "shadow_worse",
        "<b>none</b>": "shadow_refused",
    }
    assert {each.rows for each in worths.values()} == {900, 0}


@pytest.mark.parametrize("name", ["greedy", "chance"])
def test_the_interval_holds_the_truth(
    name: str, world: World, worths: dict[str, ShadowWorth]
) -> None:
    """What it would have earned is known here: its probabilities times what each item pays."""
    _, shadows, log = world
    records = [each.record for each in log.entries if isinstance(each.record, DecisionRecord)]
    paid = np.array([[PAID.get(each, 0.1) for each in one.action_ids] for one in records])
    (shadow,) = (each for each in shadows.current() if each.name == name)
    made = sorted(shadows.of(shadow).newest("0-0"), key=lambda each: log_order(each.position))
    mine = np.array([each.pmfs[0] for each in made])
    theirs = np.array([each.pmfs()[0] for each in records])
    truth = float(((mine - theirs) * paid).sum(axis=1).mean())
    assert worths[name].low < truth < worths[name].high


def test_a_shadow_that_is_the_policy_earns_what_the_policy_earned(
    worths: dict[str, ShadowWorth],
) -> None:
    """To the last digits of a sum: the estimate of the policy itself is its mean reward."""
    twin = worths["twin"]
    assert twin.difference == pytest.approx(0.0, abs=1e-12)
    assert twin.value == pytest.approx(twin.served, abs=1e-12)


def test_only_what_it_has_followed_counts(world: World) -> None:
    """One that is behind is judged by its own rows; one that nobody follows any more says so."""
    root, shadows, log = world
    end = log.entries[-1].id
    twin = shadows.current()[0]
    lag = PolicyShadows(root, "q")
    lag.say_current([twin])
    half = list(shadows.of(twin).newest("0-0"))[-300:]
    early = "20000-0"
    lag.of(twin).store(0, half)
    lag.of(twin).say_state(ShadowState("follows", early, 300, at_ms=position_ms(end)))
    (worth,) = shadow_worths(root, "p", lag)
    assert (worth.rows, worth.verdict.code) == (300, "shadow_undecided")
    assert worth.behind_s == (position_ms(end) - 20_000) / 1000

    for said_at, state, code in (
        (position_ms(early) - 100_000, "follows", "shadow_stopped"),
        (position_ms(end), "failed", "shadow_failed"),
    ):
        lag.of(twin).say_state(ShadowState(state, early, 300, message="why", at_ms=said_at))
        (worth,) = shadow_worths(root, "p", lag)
        assert worth.verdict.code == code


def test_one_that_has_said_little_or_nothing_waits(
    world: World,
) -> None:
    root, shadows, log = world
    end = log.entries[-1].id
    twin, few = shadows.current()[0], PolicyShadows(root, "few")
    few.say_current([twin])
    assert shadow_worths(root, "p", few)[0].verdict.code == "shadow_waits"
    few.of(twin).store(0, list(shadows.of(twin).newest("0-0"))[:20])
    few.of(twin).say_state(ShadowState("follows", end, 20, at_ms=position_ms(end)))
    (worth,) = shadow_worths(root, "p", few)
    assert (worth.verdict.code, worth.rows) == ("shadow_waits", 20)
    assert shadow_worths(root, "p", PolicyShadows(root, "nobody")) == []


def test_the_page_shows_names_as_text(worths: dict[str, ShadowWorth]) -> None:
    """A name that is markup is no markup; each verdict is one of the table's."""
    page = shadows_section(list(worths.values()))
    assert "<b>none" not in page
    assert "&lt;b&gt;none" in page
    assert "nan" not in page
    assert {each.verdict.code for each in worths.values()} <= SHADOW_VERDICTS.keys()
    assert math.isnan(worths["<b>none</b>"].value)
    assert PART > 700
    assert b"NaN" not in msgspec.json.encode(list(worths.values()))
