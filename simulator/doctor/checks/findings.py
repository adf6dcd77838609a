"""The findings of a check, and how sure it must be before it says so."""

import math
from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from bandits.log.records import LogEntry

Severity = Literal["ok", "nothing", "warning", "failure"]
Figure = float | str | None

CHANCE = 1e-4
"""A share fails its limit only if chance would carry it there less often than this."""


class Finding(msgspec.Struct, frozen=True):
    """The answer of one check.

    ``cause`` and ``action`` say why it happens and what to do; both are empty when all is well.
    ``severity`` is nothing when there was nothing to check; ``action`` then says what would make a
    check possible.
    """

    check: str
    severity: Severity
    message: str
    cause: str = ""
    action: str = ""
    figures: dict[str, Figure] = msgspec.field(default_factory=dict)


class DoctorReport(msgspec.Struct, frozen=True):
    """All findings about one policy's log.

    ``trusted`` is None when the log could not be examined, or nothing could be proved.
    ``unchecked`` names the checks that had nothing to check.
    """

    policy: str | None
    decisions: int
    trusted: bool | None
    findings: list[Finding]
    unchecked: list[str] = []


class Check(Protocol):
    """Sees every entry once, in order, and holds no more of them than its question needs."""

    def add(self, entry: LogEntry) -> None:
        """See the next entry."""
        ...

    def findings(self) -> Iterable[Finding]:
        """Return what was found, after the last entry."""
        ...


def make_finding(
    check: str,
    severity: Severity,
    message: str,
    *,
    cause: str,
    action: str,
    figures: dict[str, Figure],
) -> Finding:
    """Return a finding, without its cause and action when all is well.

    Args:
        check: the name of the check.
        severity: how bad it is.
        message: what was found.
        cause: why such a thing happens.
        action: what to do about it.
        figures: the numbers behind the message, by name.
    """
    if severity == "ok":
        return Finding(check, severity, message, figures=figures)
    return Finding(check, severity, message, cause, action, figures)


def nothing_to_check(
    check: str, message: str, *, action: str, figures: dict[str, Figure] | None = None
) -> Finding:
    """Return the finding of a check that had nothing to look at.

    Args:
        check: the name of the check.
        message: what is missing.
        action: what would make the check possible.
        figures: the numbers behind the message, by name.
    """
    return Finding(check, "nothing", f"nothing to check: {message}", "", action, figures or {})


def grade_share(bad: int, total: int, *, warn: float, fail: float | None) -> Severity:
    """Grade the share ``bad / total``.

    Args:
        bad: how many are bad.
        total: of how many.
        warn: the share above which it is a warning.
        fail: the share that must be exceeded by more than chance for a failure; None: never.
    """
    if total == 0:
        return "ok"
    if fail is not None and exceeds(bad, total, fail):
        return "failure"
    return "warning" if bad > warn * total else "ok"


def exceeds(count: int, total: int, rate: float) -> bool:
    """Return whether chance gives such a count less often than CHANCE (Chernoff's bound, 1952).

    Args:
        count: how often it happened.
        total: in how many trials, 1 or more.
        rate: how often it happens by hypothesis, as a share of the trials.
    """
    share = count / total
    if share <= rate:
        return False

    divergence = share * math.log(share / rate)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - rate))
    return total * divergence > -math.log(CHANCE)


def percent(part: float, total: float) -> str:
    """Return a share for a reader: in percent, with three digits, or "none".

    Args:
        part: how many of the total.
        total: the number that is 100%; there is no share of 0.
    """
    return f"{100.0 * part / total:.3g}%" if total else "none"
