"""The last refresh of a policy's sources came to an end, and made nothing worse."""

from collections.abc import Iterator

from bandits.log.records import LogEntry
from simulator.doctor.checks.findings import Finding, make_finding
from simulator.doctor.checks.freshness import LiveStatus


class RefreshOutcome:
    """Says what became of the last refresh; nothing of a policy that never had one."""

    def __init__(self, live: LiveStatus) -> None:
        self._last = live.refresh

    def add(self, entry: LogEntry) -> None:
        """Do nothing: the refresh has said it."""

    def findings(self) -> Iterator[Finding]:
        """Yield one, or none."""
        last = self._last
        if last is None:
            return
        said = {
            "accepted": f"the last refresh of the sources was accepted: artifact {last.artifact}",
            "stored": f"the last refresh only stored its artifact, elsewhere: {last.artifact}",
            "refused": f"the last refresh was refused, for it was worse: {last.message}",
        }.get(last.outcome, f"the last refresh failed ({last.code}): {last.message}")
        yield make_finding(
            "refresh",
            "ok" if last.outcome in {"accepted", "stored"} else "warning",
            said,
            cause="the log of its window teaches less than what the artifact that serves has seen,"
            " or training could not be done",
            action="try it by hand: banditloop refresh POLICY.yaml --dry-run",
            figures={name: float(count) for name, count in last.counts.items()},
        )
