"""Every check of the doctor, in one pass over a log, and the report that they make."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bandits.log.records import DecisionRecord, LogEntry
from simulator.doctor.checks.columns import Columns
from simulator.doctor.checks.derivations import Derivations
from simulator.doctor.checks.entries import Clock, Undecodable
from simulator.doctor.checks.exploration import Exploration, Uniformity
from simulator.doctor.checks.findings import Check, DoctorReport, Finding, nothing_to_check
from simulator.doctor.checks.freshness import LiveStatus, PriorReport, Staleness, StalledLearning
from simulator.doctor.checks.magnitudes import Magnitudes
from simulator.doctor.checks.propensities import Draws, Propensities
from simulator.doctor.checks.references import MissingBlobs, ReferencedBlobs
from simulator.doctor.checks.refreshes import RefreshOutcome
from simulator.doctor.checks.rewards import Rewards
from simulator.doctor.checks.rules import RuledDecisions
from simulator.doctor.checks.sources import Sources
from simulator.doctor.control_states import ControlStates

SAMPLE = 2000
"""Decisions that the expensive checks look at."""
PROOFS = ("draws", "derivations", "frequencies")
"""The checks that can show that choices were drawn as logged; without any of them nothing does."""
NO_DECISIONS = nothing_to_check(
    "examination", "the log holds no decisions", action="decide first, or read more of the log"
)


def examine(
    entries: Iterable[LogEntry],
    *,
    policy: str | None = None,
    salts: Mapping[str, bytes] | None = None,
    stored: ReferencedBlobs | None = None,
    live: LiveStatus | None = None,
    build: Mapping[str, str] | None = None,
    states: ControlStates | None = None,
    undecodable: Callable[[], int] = lambda: 0,
    progress: Callable[[LogEntry], None] = lambda _: None,
) -> DoctorReport:
    """Read a log once and report on it.

    Memory holds a window of the log (the join), never the whole.

    The chance that a true log fails any of the three tests of chance is at most 3 FALSE_ALARM =
    3e-4. Every other failure is a fact about the log, or a share that exceeds its limit by more
    than chance (CHANCE) explains.

    Args:
        entries: the log, in order.
        policy: its name, for the report.
        salts: the service's, by the id under which the log names them
            (``bandits.log.codec.digest``).
        stored: the blobs that the log names.
        live: what the service says of itself, if it can be asked.
        build: this machine's, as ``BuildRecord`` has it.
        states: of the quotas' controller, as partition 0 says them; that one is read first.
        undecodable: how many entries did not decode; asked at the end.
        progress: told of each entry.
    """
    stored, salts = stored or ReferencedBlobs(), salts or {}
    rewards = Rewards(stored)
    checks: list[Check] = [
        Draws(salts),
        Derivations(stored, salts=salts.values(), build=build, limit=SAMPLE),
        Propensities(),
        Exploration(),
        Uniformity(stored),
        Sources(stored),
        RuledDecisions(stored, limit=SAMPLE, states=states),
        Magnitudes(stored, limit=SAMPLE),
        Columns(stored),
        rewards,
        MissingBlobs(stored),
        Undecodable(undecodable),
        Clock(live.clock_ms if live else None),
    ]
    if live is not None:
        checks += [
            Staleness(live, lambda: rewards.last_taught),
            StalledLearning(live),
            PriorReport(live),
            RefreshOutcome(live),
        ]

    decisions = 0
    for entry in entries:
        decisions += isinstance(entry.record, DecisionRecord)
        for check in checks:
            check.add(entry)
        progress(entry)

    # Without a decision no check has anything to say of the policy.
    if decisions == 0:
        return unexaminable_report(
            policy, "the log holds no decisions", "decide first, or read more of the log"
        )
    findings = [finding for check in checks for finding in check.findings()]
    return doctor_report(policy, decisions, findings)


def doctor_report(policy: str | None, decisions: int, findings: list[Finding]) -> DoctorReport:
    """Return a report that trusts a log if no check failed and at least one of PROOFS succeeded.

    Args:
        policy: whose log it is.
        decisions: how many the log holds.
        findings: of all checks.
    """
    failed = any(finding.severity == "failure" for finding in findings)
    proved = any(finding.check in PROOFS and finding.severity != "nothing" for finding in findings)
    unchecked = [finding.check for finding in findings if finding.severity == "nothing"]
    return DoctorReport(
        policy, decisions, False if failed else True if proved else None, findings, unchecked
    )


def with_findings(report: DoctorReport, findings: Sequence[Finding]) -> DoctorReport:
    """Return a report with further findings; one that failed makes the log untrusted.

    Args:
        report: on a log.
        findings: of checks that look at more than its entries.
    """
    failed = any(finding.severity == "failure" for finding in findings)
    return msgspec.structs.replace(
        report,
        trusted=False if failed else report.trusted,
        findings=[*report.findings, *findings],
    )


def combine_reports(policy: str, reports: Sequence[DoctorReport]) -> DoctorReport:
    """Combine the reports of a policy's partitions, each a log by itself, into one.

    A policy whose every partition is true fails a test of chance at most as many times as often as
    one log does, as it has partitions.

    Args:
        policy: whose partitions they are.
        reports: one a partition, in order.
    """
    if not any(report.decisions for report in reports):
        return msgspec.structs.replace(reports[0], policy=policy)

    by_check: dict[str, list[Finding]] = {}
    for number, report in enumerate(reports):
        for finding in report.findings if report.decisions else [NO_DECISIONS]:
            message = f"partition {number}: {finding.message}"
            numbered = msgspec.structs.replace(finding, message=message)
            by_check.setdefault(finding.check, []).append(numbered)

    # What is well in all partitions is said once; what is not, for each partition that has it.
    findings: list[Finding] = []
    for check, partitions in by_check.items():
        loud = [finding for finding in partitions if finding.severity not in {"ok", "nothing"}]
        if loud or all(finding.severity == "nothing" for finding in partitions):
            findings += loud or partitions
        else:
            messages = "; ".join(finding.message for finding in partitions)
            findings.append(Finding(check, "ok", messages))

    return doctor_report(policy, sum(report.decisions for report in reports), findings)


def unexaminable_report(policy: str | None, message: str, action: str) -> DoctorReport:
    """Return the report on a log of which there was nothing to read.

    Args:
        policy: whose log it is.
        message: why there was nothing.
        action: what would make an examination possible.
    """
    return DoctorReport(policy, 0, None, [Finding("examination", "failure", message, "", action)])
