"""Every code of the documented tables is what some log comes to, and nothing else is said of it."""

from dataclasses import replace

import numpy as np
import pytest

from policies.spec import Holdout, PolicySpec, spec_of
from simulator.doctor.checks.findings import Finding
from simulator.logs.rows import Waiting
from simulator.report.closer import CloserLook
from simulator.report.comparing import segments_of
from simulator.report.gather import EARLIER, POLICY, UNSERVED, PolicyRows, SignalCount
from simulator.report.make import policy_report_of
from simulator.report.report import ApprenticeWorth, Coverage, Drift, ExplorationPrice
from simulator.report.verdicts import CAUTIONS, VERDICTS

SPEC = PolicySpec("p", holdout=Holdout(0.5))
SIGNALLED = spec_of({"name": "p", "holdout": {"fraction": 0.5}, "signals": {"click": 1, "buy": 9}})


def rows_of(count=2000, *, held=0.5, uplift=0.3, mean=0.4, **changes) -> PolicyRows:
    """Decisions, each of a user of its own; ``changes`` are other columns, or what makes them."""
    rng = np.random.default_rng(0)
    group = (rng.random(count) < held).astype(np.int8)
    rows = PolicyRows(
        spec=SPEC,
        ms=np.arange(count) * 1000,
        unit=np.arange(count, dtype=np.int32),
        group=group,
        compared=group.copy(),
        slots=np.ones(count, np.int16),
        reward=(rng.random(count) < mean + uplift * (group == POLICY)).astype(np.float64),
        units=count,
        signals={"click": SignalCount(count, 1.0)},
    )
    made = {name: each(rows) if callable(each) else each for name, each in changes.items()}
    return replace(rows, **made)


def closer(*drifts, apprentice=None) -> CloserLook:
    price = ExplorationPrice(1, 0.0, -1.0, 1.0, "reliable", "")
    return CloserLook(1, Coverage(1, 1), [], list(drifts), price, apprentice)


def beside(low, high, verdict="reliable") -> dict:
    worth = ApprenticeWorth(9, {}, 0.5, 0.5, 0.4, 0.4, 0.5, 0.1, low, high, verdict, "why")
    return {"closer": closer(apprentice=worth)}


def but(column, where, value):
    """The column of some rows, with something else at some places."""

    def changed(rows):
        out = getattr(rows, column).copy()
        out[where] = value
        return out

    return changed


def said(severity):
    return {"findings": [Finding("draws", severity, "it is so")]}


VERDICTS_OF = [
    ("no_decisions", PolicyRows, {}),
    ("no_rewards", lambda: rows_of(signals={}), {}),
    ("rewards_all_equal", lambda: rows_of(mean=1.0), {}),
    ("log_untrusted", rows_of, said("failure")),
    ("apprentice_unknown", rows_of, beside(-1.0, 1.0, "unreliable")),
    ("apprentice_better", rows_of, beside(0.1, 0.2)),
    ("apprentice_worse", rows_of, beside(-0.2, -0.1)),
    ("apprentice_undecided", rows_of, beside(-0.1, 0.1)),
    ("no_holdout", lambda: rows_of(spec=PolicySpec("p")), {}),
    ("holdout_empty", lambda: rows_of(held=0.0), {}),
    ("assignment_broken", lambda: rows_of(held=0.8), {}),
    ("too_early", lambda: rows_of(60), {}),
    ("better", rows_of, {}),
    ("worse", lambda: rows_of(uplift=-0.3), {}),
    ("no_difference", lambda: rows_of(40_000, uplift=0.0), {}),
    ("undecided", lambda: rows_of(uplift=0.0), {}),
]
CAUTIONS_OF = [
    ("skewed", {"reward": lambda r: np.where(r.group, r.reward, 20.0 * (r.unit % 100 == 7))}, {}),
    ("unserved", {"group": but("group", np.s_[::20], UNSERVED)}, {}),
    ("holdout_changed", {"compared": but("compared", np.s_[:500], EARLIER)}, {}),
    ("in_both_groups", {"unit": but("unit", np.s_[-200:], np.arange(200))}, {}),
    ("early_rewards", {"waiting": Waiting(900, 1, 2)}, {}),
    ("bad_entries", {"refused": 1, "first_refused": "entry 1-0: it is none"}, {}),
    ("signal_missing", {"spec": SIGNALLED}, {}),
    ("clock_jumped", {"ms": but("ms", np.s_[1000:], 10**10 + np.arange(1000))}, {}),
    ("reward_drifts", {"reward": lambda r: (r.unit % 10 < 8 * (r.unit / 2000)).astype(float)}, {}),
    ("context_drift", {}, {"closer": closer(Drift("context", "age", 0.5, 0.01))}),
    ("candidates_drift", {}, {"closer": closer(Drift("candidates", "", 0.5, 0.01))}),
    ("doctor_warns", {}, said("warning")),
]


@pytest.mark.parametrize(("code", "rows", "more"), VERDICTS_OF)
def test_each_verdict_is_what_a_log_comes_to(code, rows, more):
    found = policy_report_of("p", rows(), **more)
    assert found.verdict.code == code
    assert found.verdict.action == VERDICTS[code].action
    assert found.verdict.message
    assert found.cautions == []


@pytest.mark.parametrize(("code", "changes", "more"), CAUTIONS_OF)
def test_each_caution_is_given_where_it_is_due_and_no_other_is(code, changes, more):
    if "group" in changes:
        changes = {**changes, "compared": changes["group"]}
    found = policy_report_of("p", rows_of(**changes), **more)
    assert [each.code for each in found.cautions] == [code]
    assert found.cautions[0].action == CAUTIONS[code].action
    assert found.cautions[0].message


def test_no_code_is_without_a_case():
    """Of shadows the verdicts are in another file."""
    assert [code for code, _, _ in VERDICTS_OF] == [*VERDICTS]
    assert [code for code, _, _ in CAUTIONS_OF] == [*CAUTIONS]


def test_segments_share_the_chance_of_an_error():
    """Intervals by Bonferroni, p-values by Holm: as of each segment alone, at its share of alpha."""
    codes = (np.arange(4000) % 8).astype(np.int8)
    names = [f"s{at}" for at in range(8)]
    better = but("reward", codes == 3, (np.arange(500) % 20 > 0).astype(float))
    rows = rows_of(4000, uplift=0.05, reward=better, fields={"of": (codes, names)})
    found = segments_of(rows, 0.05)
    alone = []
    for at, each in enumerate(found):
        only = np.where(codes == at, 0, -1).astype(np.int8)
        (one,) = segments_of(replace(rows, fields={"of": (only, ["it"])}), 0.05 / 8)
        assert (each.low, each.high) == (one.low, one.high)
        alone.append(one.adjusted)
    least = 0.0
    for rank, at in enumerate(np.argsort(alone, kind="stable")):
        least = max(least, min(1.0, (8 - rank) * alone[at]))
        assert found[at].adjusted == pytest.approx(least)
        assert found[at].conclusive == (least < 0.05)
    assert min(alone) < 1.0
