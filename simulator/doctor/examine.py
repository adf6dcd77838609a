"""Can a log be trusted? Every check, in one pass over the log."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bandits.log.records import DecisionRecord, LogEntry
from simulator.doctor.checks.columns import Columns
from simulator.doctor.checks.derivations import Derivations
from simulator.doctor.checks.entries import Clock, Undecodable
from simulator.doctor.checks.exploration import Exploration, Uniformity
from simulator.doctor.checks.findings import Check, DoctorReport, Finding, nothing_to_check
from simulator.doctor.checks.freshness import LiveStatus, Staleness, StalledLearning
from simulator.doctor.checks.magnitudes import Magnitudes
from simulator.doctor.checks.propensities import Draws, Propensities
from simulator.doctor.checks.references import MissingBlobs, ReferencedBlobs
from simulator.doctor.checks.rewards import Rewards
from simulator.doctor.checks.sources import Sources

SAMPLE = 2000
PROOFS = ("draws", "derivations", "frequencies")
"""Without any of these nothing shows that a log is what was drawn: choices or PMFs derived again, or many of them."""
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
    undecodable: Callable[[], int] = lambda: 0,
    progress: Callable[[LogEntry], None] = lambda _: None,
) -> DoctorReport:
    """Read a log once and report on it. Holds a window of it in memory (the join), never the whole.

    ``salts``: the service's, by the id under which the log names them (``bandits.log.codec.digest``).
    ``undecodable``: how many entries did not decode, asked at the end. ``build``: of this machine,
    as ``BuildRecord`` has it.

    The chance that a true log fails any of the three tests of chance is at most 3 FALSE_ALARM =
    3e-4; every other failure is a fact about the log, or a share above its limit by more than
    chance (CHANCE) explains.
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
        Magnitudes(stored, limit=SAMPLE),
        Columns(stored),
        rewards,
        MissingBlobs(stored),
        Undecodable(undecodable),
        Clock(live.clock_ms if live else None),
    ]
    if live is not None:
        checks += [Staleness(live, lambda: rewards.last_taught), StalledLearning(live)]
    decisions = 0
    for entry in entries:
        decisions += isinstance(entry.record, DecisionRecord)
        for check in checks:
            check.add(entry)
        progress(entry)
    if decisions == 0:
        return unexaminable_report(
            policy, "the log holds no decisions", "decide first, or read more of the log"
        )
    findings = [finding for check in checks for finding in check.findings()]
    return doctor_report(policy, decisions, findings)


def doctor_report(policy: str | None, decisions: int, findings: list[Finding]) -> DoctorReport:
    """A report that trusts a log if nothing speaks against it, and at least one of PROOFS for it."""
    failed = any(finding.severity == "failure" for finding in findings)
    proved = any(finding.check in PROOFS and finding.severity != "nothing" for finding in findings)
    unchecked = [finding.check for finding in findings if finding.severity == "nothing"]
    return DoctorReport(
        policy, decisions, False if failed else True if proved else None, findings, unchecked
    )


def combine_reports(policy: str, reports: Sequence[DoctorReport]) -> DoctorReport:
    """One report of those of a policy's partitions, each a log by itself.

    What all find well is said once.

    A policy whose every partition is true fails any test of chance at most that many times as often
    as one log.
    """
    if not any(report.decisions for report in reports):
        return msgspec.structs.replace(reports[0], policy=policy)
    every: dict[str, list[Finding]] = {}
    for number, report in enumerate(reports):
        for each in report.findings if report.decisions else [NO_DECISIONS]:
            said = msgspec.structs.replace(each, message=f"partition {number}: {each.message}")
            every.setdefault(each.check, []).append(said)
    findings: list[Finding] = []
    for check, own in every.items():
        loud = [each for each in own if each.severity not in {"ok", "nothing"}]
        if loud or all(each.severity == "nothing" for each in own):
            findings += loud or own
        else:
            findings.append(Finding(check, "ok", "; ".join(each.message for each in own)))
    return doctor_report(policy, sum(report.decisions for report in reports), findings)


def unexaminable_report(policy: str | None, message: str, action: str) -> DoctorReport:
    """There was nothing to read."""
    return DoctorReport(policy, 0, None, [Finding("examination", "failure", message, "", action)])
