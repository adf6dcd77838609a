"""A live policy is up to date: its learner keeps up, and replicas get what it learns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from banditloop_client.schemas import RefreshInfo
from bandits.log.positions import has_reached, is_after, position_ms
from bandits.log.records import LogEntry, PinRecord, RollbackRecord, SpecRecord, WarmStartRecord
from policies.fold.known_prior import EXPECTED, KnownPrior
from simulator.doctor.checks.findings import (
    Figure,
    Finding,
    Severity,
    make_finding,
    nothing_to_check,
)

BEHIND_S = (10.0, 300.0)
"""Seconds behind, above which it is a warning, and a failure."""


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """The status of a live service, as it reports itself.

    ``end`` is the log's last entry; ``position`` the learner's, None if it has published nothing;
    ``head`` the newest snapshot's. ``clock_ms`` is the log's clock. ``running``: whether any
    process of the service has been heard of lately. ``stalled``: where learning stands still and
    why. ``refused``: the entries refused last, and why. ``prior``: the log's, None if it has none.
    ``refresh``: the last one of the policy's sources, None if there never was one.
    """

    end: str
    clock_ms: int
    running: bool
    position: str | None
    head: str | None
    learned: int
    snapshots: int
    stalled: str | None = None
    refused: tuple[str, ...] = ()
    prior: KnownPrior | None = None
    refresh: RefreshInfo | None = None

    @property
    def now_ms(self) -> int:
        """Return the clock while the service runs; when it stopped, if it has."""
        return self.clock_ms if self.running else position_ms(self.end)


class Staleness:
    """Compares the learner with the log's end, and the newest snapshot with what the log taught.

    ``taught`` gives the entry by which the log last taught something: a snapshot of before it is
    stale.
    """

    def __init__(self, live: LiveStatus, taught: Callable[[], str | None]) -> None:
        self._live = live
        self._taught = taught
        self._pinned = False
        # The first entry that was read, that the learner lacks, and that taught what the newest
        # snapshot lacks.
        self._begins: str | None = None
        self._unread: str | None = None
        self._unserved: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Note whether a snapshot is pinned, and since when something is lacking.

        Where one is pinned, replicas serve an old one by intention.
        """
        self._begins = self._begins or entry.id
        position, head, taught = self._live.position, self._live.head, self._taught()
        if self._unread is None and position is not None and is_after(entry.id, position):
            self._unread = entry.id
        if self._unserved is None and head is not None and taught and is_after(taught, head):
            self._unserved = taught

        if isinstance(entry.record, PinRecord):
            self._pinned = entry.record.snapshot_id is not None
        elif isinstance(entry.record, SpecRecord | RollbackRecord | WarmStartRecord):
            self._pinned = False

    def _behind(self, position: str | None, end: str, first: str | None) -> float:
        """Return seconds since the first thing that ``position`` lacks; 0: it has reached ``end``.

        Args:
            position: what was reached; None: nothing.
            end: what was to be reached.
            first: what was read past ``position`` first; None: nothing.
        """
        if position is not None and has_reached(position, end):
            return 0.0

        # Where it was not read from there on, something may be lacking since then.
        since = position or end
        if first is not None and self._begins is not None and not is_after(self._begins, since):
            since = first
        return max(0.0, (self._live.now_ms - position_ms(since)) / 1000.0)

    def findings(self) -> Iterator[Finding]:
        """Yield two: the learner's lag, and the snapshot's age."""
        live, taught = self._live, self._taught()
        lag_s, stale_s = self._behind(live.position, live.end, self._unread), 0.0
        if taught is not None:
            stale_s = self._behind(live.head, taught, self._unserved)
        figures: dict[str, Figure] = {
            "end": live.end,
            "learner_position": live.position,
            "snapshot_position": live.head,
            "last_taught": taught,
            "learned": live.learned,
            "snapshots": live.snapshots,
        }

        where = (
            "has published nothing"
            if live.position is None
            else f"is {lag_s:,.1f} s behind the log's end"
        )
        yield make_finding(
            "learner_lag",
            _severity(lag_s),
            f"the learner {where}",
            cause="the learner is down, still replaying after a restart, or slower than the"
            " traffic",
            action="see the learner's log (/tmp/ray/session_latest/logs) and the metric"
            " banditloop_learner_lag_seconds",
            figures={"lag_s": lag_s, **figures},
        )

        # Only a snapshot that lacks a lesson is stale; a pinned one is old by intention.
        if taught is None:
            yield nothing_to_check(
                "snapshot_staleness",
                "the log has taught nothing yet",
                action="wait for the first window to close (join.window_s, or a signal's)",
                figures=figures,
            )
            return
        yield make_finding(
            "snapshot_staleness",
            "ok" if self._pinned else _severity(stale_s),
            f"replicas serve without what could have been learned in the last {stale_s:,.1f} s"
            + (" because a snapshot is pinned" if self._pinned else ""),
            cause="no snapshot was published since, so replicas serve an old model",
            action="see the learner's log: a snapshot that cannot be made or stored is reported"
            " there",
            figures={"stale_s": stale_s, **figures},
        )


class StalledLearning:
    """Says whether learning goes on, and whether every entry was applied."""

    def __init__(self, live: LiveStatus) -> None:
        self._live = live

    def add(self, entry: LogEntry) -> None:
        """Do nothing: the learner has said it."""

    def findings(self) -> Iterator[Finding]:
        """Yield two: whether learning stands still, and what it has refused."""
        stalled, refused = self._live.stalled, self._live.refused
        if self._live.position is None:
            action = "start the service: its learner says every second where it stands"
            for check in ("learning", "refused"):
                yield nothing_to_check(check, "no learner has said anything yet", action=action)
            return

        yield make_finding(
            "learning",
            "ok" if stalled is None else "failure",
            "no entry keeps learning from going on"
            if stalled is None
            else f"learning stands still at {stalled}",
            cause="something that this entry needs is missing or fails on the learner's machine",
            action="mend what it names (docs/how-to/repair-learning.md): the learner tries again by"
            " itself, at least every 30 s",
            figures={"stalled": stalled},
        )

        # The log shows entries that were refused, so a few of them will do.
        listed = "; ".join(refused[:3]) + ("; …" if len(refused) > 3 else "")
        yield make_finding(
            "refused",
            "warning" if refused else "ok",
            f"of the entries refused last: {listed}" if refused else "no entry was refused",
            cause="what these entries say cannot be done, as they and what they name show: nothing"
            " came of them",
            action="if it was meant, say it again, mended (another model, spec or catalogue)",
            figures={"refused": float(len(refused))},
        )


class PriorReport:
    """Says what the model in force was taught before its first decision."""

    def __init__(self, live: LiveStatus) -> None:
        self._prior = live.prior

    def add(self, entry: LogEntry) -> None:
        """Do nothing: the learner has said it."""

    def findings(self) -> Iterator[Finding]:
        """Yield one."""
        known = self._prior
        if known is None:
            yield nothing_to_check(
                "prior",
                "the log has no prior, so its model began with nothing",
                action="banditloop train puts one into its artifact, and prior: none leaves it out",
            )
            return

        taught = known.taught
        # Rows that this policy cannot use are somebody's mistake; anything else was meant so.
        unusable = bool(known.reason) and known.reason not in EXPECTED
        yield make_finding(
            "prior",
            "warning" if unusable else "ok",
            known.said,
            cause="the rows were made for another catalogue, or for other sources",
            action="serve the artifact with its own catalogue and sources, or train it again",
            figures={
                "rows": 0.0 if taught is None else float(taught.rows),
                "skipped": 0.0 if taught is None else float(taught.skipped),
                "strength": known.strength if taught is None else taught.strength,
            },
        )


def _severity(seconds: float) -> Severity:
    warn, fail = BEHIND_S
    return "failure" if seconds > fail else "warning" if seconds > warn else "ok"
