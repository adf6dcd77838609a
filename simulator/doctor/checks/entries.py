"""The log itself is in order: its entries decode, and their clock moves forward."""

from collections.abc import Callable, Iterator

from bandits.log.positions import log_order
from bandits.log.records import LogEntry
from simulator.doctor.checks.findings import (
    Finding,
    Severity,
    make_finding,
    nothing_to_check,
    percent,
)

UNDECODABLE = 1e-4
"""Share of the entries above which undecodable ones are a failure; any at all are a warning."""
STANDSTILL = 5_000
"""Entries in one millisecond: several times what a Redis server can append."""
AHEAD_MS = 60_000
"""How far the last entry may be ahead of the server's clock."""


class Undecodable:
    """Counts entries that are no record.

    ``count`` is asked at the end: whoever reads the log knows how many did not decode.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._entries = 0

    def add(self, entry: LogEntry) -> None:  # noqa: ARG002
        """Count an entry."""
        self._entries += 1

    def findings(self) -> Iterator[Finding]:
        """Yield one: a failure above UNDECODABLE, a warning for any."""
        bad = self._count()
        severity: Severity = (
            "failure" if bad > UNDECODABLE * self._entries else "warning" if bad else "ok"
        )

        yield make_finding(
            "undecodable",
            severity,
            f"{bad:,} of {self._entries:,} entries do not decode, {percent(bad, self._entries)}",
            cause="something wrote to the stream past the service, or another version of it, or"
            " entries are damaged",
            action="let nothing but the service write to the log (a Redis ACL); restore damaged"
            " entries from a backup",
            figures={"undecodable": bad, "entries": self._entries, "failure_above": UNDECODABLE},
        )


class Clock:
    """Checks that event time, which is the entry's id, moves forward.

    A clock that steps moves the windows of the join. Redis never gives a smaller id: when its clock
    steps back, ids stand still until the clock has caught up. ``now_ms`` is the log's clock, if the
    log is live.
    """

    def __init__(self, now_ms: int | None = None) -> None:
        self._now_ms = now_ms
        self._last = (0, 0)
        self._entries = self._backwards = self._run = self._longest = 0
        self._first: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Compare an entry's id with the one before."""
        current = log_order(entry.id)
        self._entries += 1

        if current <= self._last:
            self._backwards += 1
            self._first = self._first or entry.id

        self._run = self._run + 1 if current[0] == self._last[0] else 1
        self._longest = max(self._longest, self._run)
        self._last = current

    def findings(self) -> Iterator[Finding]:
        """Yield one: a failure where the clock went back, stood still, or is far ahead."""
        ahead_ms = self._last[0] - self._now_ms if self._now_ms is not None else 0
        faults = []
        if self._backwards:
            faults.append(
                f"{self._backwards:,} entries do not come after the one before, the first at"
                f" {self._first}"
            )
        if self._longest > STANDSTILL:
            faults.append(
                f"{self._longest:,} entries bear the same millisecond: the clock stood still"
            )
        if ahead_ms > AHEAD_MS:
            faults.append(f"the last entry is {ahead_ms / 1000:,.0f} s ahead of the server's clock")

        # One entry has nothing to be compared with, unless there is a clock.
        if self._entries < 2 and self._now_ms is None:
            yield nothing_to_check(
                "clock",
                f"{self._entries} entries, so none comes after another",
                action="read more of the log",
            )
            return

        yield make_finding(
            "clock",
            "failure" if faults else "ok",
            "; ".join(faults) or "event time moves forward",
            cause="the clock of Redis was stepped, entries were added with ids of their own, or the"
            " archive was edited",
            action="slew clocks, do not step them (chrony, ntpd -x); let nothing but the service"
            " write to the log. Windows around the step closed too soon or too late",
            figures={
                "backwards": self._backwards,
                "most_in_one_ms": self._longest,
                "ahead_ms": ahead_ms,
                "last": f"{self._last[0]}-{self._last[1]}",
            },
        )
