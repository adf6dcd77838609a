"""What a check has found, and how sure it must be before it says so."""

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

    ``cause`` and ``action`` say why it happens and what to do; empty when all is well.

    ``severity`` nothing: there was nothing to check, and ``action`` says what would make it
    possible.
    """

    check: str
    severity: Severity
    message: str
    cause: str = ""
    action: str = ""
    figures: dict[str, Figure] = msgspec.field(default_factory=dict)


class DoctorReport(msgspec.Struct, frozen=True):
    """All findings about one policy's log.

    ``trusted`` None: it could not be examined, or nothing could be proved.

    ``unchecked``: checks that had nothing to check.
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
        """What was found, after the last entry."""
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
    """A finding, without its cause and action when all is well."""
    if severity == "ok":
        return Finding(check, severity, message, figures=figures)
    return Finding(check, severity, message, cause, action, figures)


def nothing_to_check(
    check: str, message: str, *, action: str, figures: dict[str, Figure] | None = None
) -> Finding:
    """Nobody has been found guilty, and nobody innocent."""
    return Finding(check, "nothing", f"nothing to check: {message}", "", action, figures or {})


def grade_share(bad: int, total: int, *, warn: float, fail: float | None) -> Severity:
    """How bad a share ``bad / total`` is: a failure only if it exceeds ``fail`` (None: never) by more than chance."""
    if total == 0:
        return "ok"
    if fail is not None and exceeds(bad, total, fail):
        return "failure"
    return "warning" if bad > warn * total else "ok"


def exceeds(count: int, total: int, rate: float) -> bool:
    """Whether so many of ``total`` would happen less often than CHANCE at ``rate`` (Chernoff's bound, 1952)."""
    share = count / total
    if share <= rate:
        return False
    divergence = share * math.log(share / rate)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - rate))
    return total * divergence > -math.log(CHANCE)


def percent(part: float, total: float) -> str:
    """A share for a reader."""
    return f"{100.0 * part / total:.3g}%" if total else "none"
