"""A policy's report, made of what was gathered: every part, and the verdict that they come to."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from bandits.statistics.intervals import ALPHA
from simulator.doctor.checks.findings import Finding
from simulator.report.closer import CloserLook
from simulator.report.comparing import assignment_of, segments_of, stretches, uplift_of
from simulator.report.fairness import outcomes_by_group
from simulator.report.gather import HOLDOUT, POLICY, PolicyRows
from simulator.report.judge import cautions_beside, cautions_on, judge_policy
from simulator.report.report import (
    ExposureReport,
    PolicyReport,
    ReportedRange,
    SignalEvents,
    Spread,
    StretchOfTime,
)
from simulator.report.shadows.worth import ShadowWorth

HEAD = 0.01
"""Share of the items that are the head."""


def policy_report_of(
    policy: str,
    rows: PolicyRows,
    *,
    alpha: float = ALPHA,
    closer: CloserLook | None = None,
    findings: Sequence[Finding] = (),
    exposure: ExposureReport | None = None,
    shadows: Sequence[ShadowWorth] = (),
) -> PolicyReport:
    """Return the report on a policy.

    Args:
        policy: its name.
        rows: its decisions; there may be none.
        alpha: the probability that the interval of the uplift ever misses the truth.
        closer: what a closer look at some of them has found, if there was one.
        findings: the doctor's on its log, if it was asked.
        exposure: what groups of items were shown, if any feature says which there are.
        shadows: what its shadows are worth.
    """
    uplift, assignment = uplift_of(rows, alpha), assignment_of(rows)
    range_ = _range(rows)

    return PolicyReport(
        policy=policy,
        range=range_,
        verdict=judge_policy(
            rows, uplift, assignment, findings, closer.apprentice if closer else None
        ),
        cautions=[
            *cautions_on(rows, range_, uplift, assignment),
            *cautions_beside(closer.drifts if closer else [], findings),
        ],
        uplift=uplift,
        assignment=assignment,
        segments=[] if uplift is None else segments_of(rows, alpha),
        signals=[
            SignalEvents(name, count.events, count.total)
            for name, count in sorted(rows.signals.items())
        ],
        times=list(_times(rows)),
        choices=_choices(rows),
        looked_at=closer.rows if closer else 0,
        coverage=closer.coverage if closer else None,
        sources=closer.sources if closer else [],
        exploration=closer.exploration if closer else None,
        drifts=closer.drifts if closer else [],
        findings=[each for each in findings if each.severity in {"warning", "failure"}],
        outcomes=outcomes_by_group(rows),
        exposure=exposure,
        shadows=list(shadows),
        apprentice=closer.apprentice if closer else None,
    )


def _range(rows: PolicyRows) -> ReportedRange:
    slots = int(rows.slots.sum(dtype=np.int64))
    return ReportedRange(
        first_ms=int(rows.ms[0]) if len(rows) else 0,
        last_ms=int(rows.ms[-1]) if len(rows) else 0,
        decisions=len(rows),
        rows=slots,
        mean_reward=float(rows.reward.sum()) / slots if slots else math.nan,
        waiting=rows.waiting.decisions,
        refused=rows.refused,
        first_refused=rows.first_refused,
    )


def _times(rows: PolicyRows) -> Iterator[StretchOfTime]:
    for start, stop in stretches(len(rows)):
        group, reward = rows.group[start:stop], rows.reward[start:stop]
        policy, holdout = (
            float(reward[group == number].mean()) if (group == number).any() else math.nan
            for number in (POLICY, HOLDOUT)
        )
        yield StretchOfTime(int(rows.ms[start]), stop - start, policy, holdout)


def _choices(rows: PolicyRows) -> dict[str, Spread]:
    both = rows.chosen[POLICY] + rows.chosen[HOLDOUT]
    groups = {"policy": rows.chosen[POLICY], "holdout": rows.chosen[HOLDOUT]}
    return {name: _spread(counts, both) for name, counts in groups.items() if counts}


def _spread(counts: Counter[str], both: Counter[str]) -> Spread:
    mine = np.array(list(counts.values()), np.float64)
    share = mine / mine.sum()
    everywhere = np.array([both[item] for item in counts], np.float64) / sum(both.values())
    head = max(1, math.ceil(HEAD * len(both)))
    most = [item for item, _ in both.most_common(head)]
    return Spread(
        choices=int(mine.sum()),
        items=len(mine),
        effective=float(np.exp(-(share * np.log(share)).sum())),
        head=sum(counts[item] for item in most) / float(mine.sum()),
        novelty=abs(float((share * np.log2(everywhere)).sum())),
    )
