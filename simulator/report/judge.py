"""What a report comes to: the verdict, and what is to be known beside it."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bandits.log.join_rule import UNNAMED, SignalledRule
from simulator.doctor.checks.findings import Finding
from simulator.report.comparing import compacted
from simulator.report.gather import EARLIER, POLICY, PolicyRows
from simulator.report.report import (
    ApprenticeWorth,
    Assignment,
    Drift,
    ReportedRange,
    Uplift,
    describe_share,
    describe_span,
)
from simulator.report.uplift import FEWEST_UNITS, RATIO_ALARM, SKEWED, compare_groups
from simulator.report.verdicts import Verdict, verdict_of

LEFT_OUT = 0.01
"""Share of the units or decisions left out, above which a reader is told."""
WAITING = 0.1
"""The same of decisions whose windows are open."""
DRIFT_ALARM = 1e-3
"""False-alarm rate of the comparison of the first quarter with the last."""
FAR = 0.1
"""Share of the decisions that would have to be others, beyond chance, to be told of a drift."""
LUCK = 2.0
"""Times the distance by chance that a reader is not told of, as in a log of few decisions."""
LEAST_TIMED = 100
"""Decisions from which on a leap of the clock can be told from a quiet night."""
LEAST_SIGNALLED = 100
"""Decisions from which on one expects to have seen each signal, but for rare ones."""
LEAST_LEAP_MS = 600_000
"""A shorter time without a decision is none: so a log of some minutes has pauses."""


def judge_policy(
    rows: PolicyRows,
    uplift: Uplift | None,
    assignment: Assignment | None,
    findings: Sequence[Finding],
    apprentice: ApprenticeWorth | None = None,
) -> Verdict:
    """Return what a report ends in.

    Args:
        rows: the policy's decisions.
        uplift: over the holdout, if there is one.
        assignment: of units to the holdout, likewise.
        findings: the doctor's, if it was asked.
        apprentice: what it is worth, if the policy is one.
    """
    failed = [each for each in findings if each.severity == "failure"]
    message = f"the doctor: {failed[0].message}" if failed else ""
    code = "log_untrusted"
    if not len(rows):
        code = "no_decisions"
        waiting = rows.waiting.decisions
        message = "no decision was logged in this range"
        if waiting:
            message = f"no decision has a closed window; {waiting:,} are open"
    elif not any(signal.events for signal in rows.signals.values()):
        code, message = "no_rewards", f"{len(rows):,} decisions, and no reward event"
    elif float(rows.reward.min()) == float(rows.reward.max()):
        code = "rewards_all_equal"
        message = f"every decision earned {float(rows.reward[0]):.6g}"
    elif not failed and apprentice is not None:
        return _beside(apprentice)
    elif not failed and (uplift is None or assignment is None):
        code, message = "no_holdout", "the spec has no holdout to compare with"

    if not message and uplift is not None and assignment is not None:
        return _compared(uplift, assignment)
    return verdict_of(code, message)


def _beside(found: ApprenticeWorth) -> Verdict:
    """Return the verdict of a policy that is an apprentice."""
    said = f"the policy would have chosen what was served in {found.agreed:.1%} of the decisions"
    if found.verdict == "unreliable":
        return verdict_of("apprentice_unknown", f"{said}; what it would earn: {found.reason}")
    said += (
        f", and is estimated to earn {found.difference:+.4g} per decision beside"
        f" {found.earned:.4g}: between {found.low:+.4g} and {found.high:+.4g} with 95% confidence"
        f" at one look ({found.verdict})"
    )
    if found.low > 0.0:
        return verdict_of("apprentice_better", said)
    return verdict_of("apprentice_worse" if found.high < 0.0 else "apprentice_undecided", said)


def _compared(uplift: Uplift, assignment: Assignment) -> Verdict:
    """Return the verdict of what can be compared."""
    sides = uplift.policy, uplift.holdout
    held_out = f"{assignment.held_out:,} of {assignment.units:,} units are in the holdout"
    if min(side.units for side in sides) < 2:
        return verdict_of("holdout_empty", held_out)
    if assignment.p_value < RATIO_ALARM:
        return verdict_of(
            "assignment_broken",
            f"{held_out}, where the spec holds out {assignment.fraction:.3g} of them"
            f" (p = {assignment.p_value:.1g} at any look)",
        )
    if not math.isfinite(uplift.low):
        return verdict_of(
            "too_early",
            f"{held_out}; an interval takes {FEWEST_UNITS} on each side, and no unit that decides"
            " alone",
        )

    return _found(uplift)


def _found(uplift: Uplift) -> Verdict:
    """Return what the interval says, and when it will say more."""
    share = describe_share(uplift.difference, uplift.holdout.mean)
    sign = "more" if uplift.difference > 0.0 else "less"
    said = (
        f"a decision earns {abs(uplift.difference):.4g} {sign} than in the holdout"
        f" ({share or 'which earns nothing'}): between {uplift.low:+.4g} and {uplift.high:+.4g}"
        f" with {1.0 - uplift.alpha:.0%} confidence, however often you look"
    )
    if uplift.conclusive:
        return verdict_of("better" if uplift.low > 0.0 else "worse", said)
    if max(-uplift.low, uplift.high) < uplift.worth_finding:
        return verdict_of("no_difference", said)
    if uplift.worth_finding_s is not None:
        said += (
            f"; a difference of {describe_share(uplift.worth_finding, uplift.holdout.mean)} would"
            f" be found in about {describe_span(uplift.worth_finding_s)}"
        )
    return verdict_of("undecided", said)


def cautions_on(
    rows: PolicyRows,
    read: ReportedRange,
    uplift: Uplift | None,
    assignment: Assignment | None,
) -> Iterator[Verdict]:
    """Yield what is to be known beside the verdict, from the decisions.

    Args:
        rows: the policy's decisions.
        read: what was read.
        uplift: over the holdout, if there is one.
        assignment: of units to the holdout, likewise.
    """
    if uplift is not None and assignment is not None:
        yield from _of_comparison(uplift, assignment)
    if earlier := int((rows.compared == EARLIER).sum()):
        yield verdict_of("holdout_changed", f"{earlier:,} decisions are not compared")

    if read.waiting > WAITING * max(1, read.decisions):
        yield verdict_of(
            "early_rewards",
            f"{read.waiting:,} decisions wait for their windows, beside {read.decisions:,}",
        )
    if read.refused:
        yield verdict_of("bad_entries", f"{read.refused:,} entries; first {read.first_refused}")
    if missing := _missing_signals(rows):
        yield verdict_of(
            "signal_missing", f"{len(rows):,} decisions, and no reward of {', '.join(missing)}"
        )
    if leap := _leap_ms(rows):
        yield verdict_of("clock_jumped", f"no decision for {describe_span(leap / 1000.0)}")
    if drift := _drift(rows):
        yield drift


def cautions_beside(drifts: Sequence[Drift], findings: Sequence[Finding]) -> Iterator[Verdict]:
    """Yield what is to be known beside the verdict, from a closer look and from the doctor.

    Args:
        drifts: how far the first and the newest decisions are apart.
        findings: the doctor's.
    """
    # Whether rewards have changed is tested on all decisions, not on the ends of the log alone.
    told = [each for each in drifts if each.what != "reward"]
    far = [each for each in told if each.distance > FAR + LUCK * each.by_chance]
    for what in sorted({each.what for each in far}):
        names = [f"{each.name} {each.distance:.0%}".strip() for each in far if each.what == what]
        yield verdict_of(f"{what}_drift", f"moved: {', '.join(names)}")

    for finding in findings:
        if finding.severity == "warning":
            yield verdict_of("doctor_warns", f"{finding.check}: {finding.message}")


def _of_comparison(uplift: Uplift, assignment: Assignment) -> Iterator[Verdict]:
    if math.isfinite(uplift.low) and uplift.skewness > SKEWED:
        yield verdict_of("skewed", f"the skewness of the difference is {uplift.skewness:.2g}")
    if assignment.unserved > LEFT_OUT * max(1, uplift.holdout.decisions):
        yield verdict_of("unserved", f"{assignment.unserved:,} decisions are in neither group")
    if assignment.in_both > LEFT_OUT * max(1, assignment.units):
        yield verdict_of(
            "in_both_groups",
            f"{assignment.in_both:,} of {assignment.units:,} units are in both groups",
        )


def _missing_signals(rows: PolicyRows) -> list[str]:
    """Return the signals of the spec of which no reward came, where others did."""
    rule = None if rows.spec is None else rows.spec.rule
    if not isinstance(rule, SignalledRule) or len(rows) < LEAST_SIGNALLED or not rows.signals:
        return []
    return [name for name in rule.signals if name not in {UNNAMED, *rows.signals}]


def _leap_ms(rows: PolicyRows) -> int:
    """Return the longest time without a decision, if it is long and most of the range; else 0."""
    if len(rows) < LEAST_TIMED:
        return 0
    longest = int(np.diff(rows.ms).max())
    is_most = 2 * longest > int(rows.ms[-1] - rows.ms[0])
    return longest if is_most and longest >= LEAST_LEAP_MS else 0


def _drift(rows: PolicyRows) -> Verdict | None:
    """Return that the policy's mean reward changed from the first quarter to the last, if so."""
    mine = np.flatnonzero(rows.group == POLICY)
    quarter = len(mine) // 4
    if not quarter:
        return None
    first, last = (compacted(rows, places).policy() for places in (mine[:quarter], mine[-quarter:]))
    compared = compare_groups(last, first, DRIFT_ALARM)
    low, high = compared.interval
    if low <= 0.0 <= high:
        return None
    return verdict_of(
        "reward_drifts", f"from {first.mean:.4g} to {last.mean:.4g} for a decision of the policy"
    )
