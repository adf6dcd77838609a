"""Rewards are in order: they find their decisions, in time, and they say something."""

from collections import Counter, deque
from collections.abc import Iterator

from bandits.log.join import Join, JoinRule
from bandits.log.join_rule import SignalledRule
from bandits.log.records import BuildRecord, DecisionRecord, LogEntry, RewardRecord, SpecRecord
from bandits.log.versions import FOLD
from policies.profiles.signals import REWARD
from simulator.doctor.checks.findings import (
    Figure,
    Finding,
    Severity,
    grade_share,
    make_finding,
    nothing_to_check,
    percent,
)
from simulator.doctor.checks.references import ReferencedBlobs

NEVER_JOINED = (0.05, 0.2)
"""Shares of the rewards above which a finding is a warning, and a failure."""
OUTCOMES: tuple[tuple[str, str, tuple[float, float | None], str, str], ...] = (
    (
        "late_rewards",
        "late",
        (0.05, 0.1),
        (
            "the window closes before rewards come: join.window_s is too short, or rewards are held"
            " up on their way"
        ),
        "make join.window_s longer than nearly all rewards take, or send rewards sooner",
    ),
    (
        "orphan_rewards",
        "orphan",
        (0.01, 0.1),
        (
            "their decisions are not in the log: rank answered with logged false, entries were"
            " lost, rewards were sent to another policy or under an event_id that rank never"
            " answered, or they came after two windows"
        ),
        (
            "count answers with logged false; send the event_id that rank answered; for rewards"
            " that come so late make join.window_s longer"
        ),
    ),
    (
        "unactivated_rewards",
        "unactivated",
        (0.01, 0.1),
        (
            "their decisions were deferred, and no activation came before the window closed:"
            " nothing is learned of them"
        ),
        "activate a deferred decision when it is acted upon, before its reward; or do not defer it",
    ),
    (
        "invalid_rewards",
        "invalid",
        (0.001, 0.02),
        "they name a slot or an action that was not chosen",
        "send the action_id or slot that rank answered, or neither for a decision of one slot",
    ),
    (
        "unknown_signals",
        "unknown_signal",
        (0.001, 0.02),
        "they name a signal that the spec of their decision does not weigh",
        "name one of the spec's signals, or weigh this one, by 0 if it is not to be learned",
    ),
    (
        "duplicate_rewards",
        "duplicate",
        (0.2, None),
        "clients retry, or send several rewards per slot without a reward_id; each is counted once",
        "harmless for retries; to send several rewards for a slot give each a reward_id of its own",
    ),
)
"""By outcome of the join: the finding, the outcome, its limits, cause and remedy."""
STOPPED = (20, 100)
"""Rewards expected in a stretch that got none, from which it is a warning, and a failure."""
NONE_AT_ALL = (1_000, 10_000)
"""Lessons, all of the default reward, from which it is a warning, and a failure."""
ALL_THE_SAME = (200, 1_000)
"""Lessons, all of one other reward, from which it is a warning, and a failure."""
SIGNALS_EXPECTED = 1_000
"""Rewards that counted, from which a signal that never came is a warning."""
PARTS = 16
"""Groups that the decisions of a window are counted in."""
COUNTED = (
    "decisions",
    "joined",
    "late",
    "orphan",
    "invalid",
    "unknown_signal",
    "duplicate",
    "duplicate_decision",
    "not_activated",
    "orphan_activation",
    "unactivated",
    "placed",
)
"""The counts of the join that a report shows."""


class Rewards:
    """Runs the join over the log and judges its outcomes.

    A log that begins in the middle (trimmed, or read with --since) holds rewards whose decisions
    came before: outcomes are counted from its fourth window on.
    """

    def __init__(self, stored: ReferencedBlobs) -> None:
        self._stored = stored
        self._join = Join(self._rule_of)
        self._start: int | None = None
        self._cut = False
        self._before: Counter[str] = Counter()
        self._counting = False
        self._spec: str | None = None
        self._taught = 0
        self._values: tuple[float, float] | None = None
        self._silence = SilentStretch()
        self.last_taught: str | None = None
        """The entry by which the model of the newest spec was last taught."""

    def add(self, entry: LogEntry) -> None:
        """Join an entry."""
        if self._start is None:
            self._start = entry.time_ms
            self._cut = not isinstance(entry.record, SpecRecord | BuildRecord)
            if self._cut:
                # The record that said which version folds is cut off; most likely it was this one.
                self._join.fold = FOLD

        # The join's rule is the newest spec's; a log that is cut names it in its first decision.
        if isinstance(entry.record, SpecRecord):
            self._adopt(entry.record.digest)
        elif self._spec is None and isinstance(entry.record, DecisionRecord):
            self._adopt(entry.record.spec)
        window_ms = self._join.rule.window_ms
        self._apply(entry)

        # From now on no reward can be of a decision before the log's first entry.
        if not self._counting and (not self._cut or entry.time_ms >= self._start + 3 * window_ms):
            self._counting = True
            self._before = Counter(self._join.counts) if self._cut else Counter()

        if isinstance(entry.record, DecisionRecord):
            self._silence.decision(entry.time_ms, window_ms)
        elif isinstance(entry.record, RewardRecord):
            self._silence.reward(entry.time_ms, window_ms)

    def _adopt(self, spec: str) -> None:
        self._spec, self._join.rule = spec, self._rule_of(spec)

    def _apply(self, entry: LogEntry) -> None:
        """Drive the join, here alone: what it teaches is only counted."""
        for taught in self._join.apply(entry):
            self._taught += 1
            if taught.record.spec == self._spec and not taught.record.holdout:
                self.last_taught = entry.id
            low, high = self._values or (taught.rewards[0], taught.rewards[0])
            self._values = min(low, *taught.rewards), max(high, *taught.rewards)

    def _rule_of(self, digest: str) -> JoinRule:
        spec = self._stored.spec(digest)
        return JoinRule() if spec is None else spec.rule  # that it is gone is a finding of its own

    def findings(self) -> Iterator[Finding]:
        """Yield the join rate, one for each outcome, the rewards' flow, and what they say."""
        counts = Counter(self._join.counts)
        counts.subtract(self._before)
        if not self._counting:
            counts.clear()

        yield self._join_rate(counts)
        yield from self._outcomes(counts)
        yield self._silence.finding()
        yield self._informative()
        if self._join.signals or isinstance(self._join.rule, SignalledRule):
            yield self._signals()

    def _signals(self) -> Finding:
        """Return how many rewards of each signal counted, their mean, and which never came."""
        counted, rule = self._join.signals, self._join.rule
        weighed = rule.signals if isinstance(rule, SignalledRule) else {}
        missing = [name for name in weighed if name and name not in counted]

        figures: dict[str, Figure] = {}
        for name, (count, total) in sorted(counted.items()):
            figures[f"{name or REWARD}_count"] = count
            figures[f"{name or REWARD}_mean"] = total / count
        told = [
            f"{name or REWARD} {count:,} (mean {total / count:.3g})"
            for name, (count, total) in sorted(counted.items())
        ]
        rewards = sum(count for count, _ in counted.values())
        return make_finding(
            "signals",
            "warning" if missing and rewards >= SIGNALS_EXPECTED else "ok",
            f"{', '.join(told) or 'none came'}"
            + (f"; the spec weighs {', '.join(missing)}, which never came" if missing else ""),
            cause="nobody sends the signal, or it is sent under another name",
            action="send it, or leave it out of the spec",
            figures=figures,
        )

    def _join_rate(self, counts: Counter[str]) -> Finding:
        """Return how many of the settled rewards joined a decision."""
        settled = _settled(counts)
        figures: dict[str, Figure] = {name: counts[name] for name in COUNTED}
        figures["waiting"] = self._join.counts["early"]
        if not settled:
            return nothing_to_check(
                "join_rate",
                f"no reward has been settled{self._why_unsettled()}",
                action=self._what_to_wait_for(),
                figures=figures,
            )

        joined, (warn, fail) = counts["joined"], NEVER_JOINED
        return make_finding(
            "join_rate",
            grade_share(settled - joined, settled, warn=warn, fail=fail),
            f"{percent(joined, settled)} of {settled:,} settled rewards joined a decision",
            cause="rewards come after the window, name decisions that are not there, or name what"
            " was not chosen",
            action="see the findings about late, orphan, unactivated, invalid rewards and unknown"
            " signals, which tell which",
            figures=figures,
        )

    def _outcomes(self, counts: Counter[str]) -> Iterator[Finding]:
        """Yield one for each way in which a reward may come to nothing."""
        total = _settled(counts) + counts["duplicate"]
        for check, name, (warn, fail), cause, action in OUTCOMES:
            if not total:
                yield nothing_to_check(
                    check,
                    f"no reward has been settled{self._why_unsettled()}",
                    action=self._what_to_wait_for(),
                )
                continue

            figures: dict[str, Figure] = {
                name: counts[name],
                "rewards": total,
                "warning_above": warn,
                "failure_above": fail,
            }
            yield make_finding(
                check,
                grade_share(counts[name], total, warn=warn, fail=fail),
                f"{counts[name]:,} of {total:,} rewards, {percent(counts[name], total)}",
                cause=cause,
                action=action,
                figures=figures,
            )

    def _why_unsettled(self) -> str:
        if self._counting:
            return ""
        return ": the log begins in the middle and is shorter than three windows"

    def _what_to_wait_for(self) -> str:
        return "send rewards, or wait for them" if self._counting else "read more of the log"

    def _informative(self) -> Finding:
        """Return whether what was taught can tell one choice from another."""
        joined, taught = self._join.counts["joined"], self._taught
        if not taught:
            return nothing_to_check(
                "constant_rewards",
                "no window has closed, so nothing was taught",
                action="wait for one (join.window_s)",
            )

        low, high = self._values or (0.0, 0.0)
        severity: Severity = "ok"
        message = (
            f"{taught:,} lessons with rewards from {low:g} to {high:g}; {joined:,} rewards joined"
        )

        # A default reward may just mean that nobody clicked: it takes more of them to be sure.
        if low == high:
            default = self._join.rule.default_reward
            warn, fail = NONE_AT_ALL if low == default else ALL_THE_SAME
            severity = "failure" if taught >= fail else "warning" if taught >= warn else "ok"
            message = (
                f"all {taught:,} lessons were of one reward, {low:g}: there is nothing to learn"
            )
        elif taught >= NONE_AT_ALL[1] and joined < 0.001 * taught:
            severity = "warning"
            message = (
                f"only {joined:,} rewards for {taught:,} lessons: nearly all are of the default"
            )

        return make_finding(
            "constant_rewards",
            severity,
            message,
            cause="no reward reaches the service, or the one that does carries no information",
            action="send what distinguishes a good choice from a bad one; see that the sender of"
            " rewards works",
            figures={"taught": taught, "joined": joined, "lowest": low, "highest": high},
        )


class SilentStretch:
    """The longest stretch of decisions during whose whole windows no reward came for anyone.

    Decisions younger than a window wait in at most PARTS + 1 groups.
    """

    def __init__(self) -> None:
        self._decisions = self._rewards = 0
        self._young: deque[tuple[int, int]] = deque()
        self._silent = self._longest = 0

    def decision(self, time_ms: int, window_ms: int) -> None:
        """Count a decision.

        Args:
            time_ms: when it was made.
            window_ms: how long it waits for a reward.
        """
        self._decisions += 1
        self._ripen(time_ms - window_ms)

        width_ms = max(1, window_ms // PARTS)
        part = time_ms // width_ms * width_ms
        if self._young and self._young[-1][0] == part:
            self._young[-1] = (part, self._young[-1][1] + 1)
        else:
            self._young.append((part, 1))

    def reward(self, time_ms: int, window_ms: int) -> None:
        """Count a reward, whatever its outcome: it ends the silence.

        Args:
            time_ms: when it came.
            window_ms: how long decisions wait.
        """
        self._rewards += 1
        self._ripen(time_ms - window_ms)
        self._silent = 0
        self._young.clear()

    def _ripen(self, before_ms: int) -> None:
        """Count the decisions whose windows have closed in silence."""
        while self._young and self._young[0][0] < before_ms:
            self._silent += self._young.popleft()[1]
        self._longest = max(self._longest, self._silent)

    def finding(self) -> Finding:
        """Compare the silence with the rewards of all other decisions."""
        if not self._rewards:
            return nothing_to_check(
                "reward_flow",
                "no reward came at all, so none stopped coming",
                action="send rewards, or wait for them",
            )

        # What the stretch would have got at the rate of all other decisions.
        others = self._decisions - self._longest
        expected = self._longest * self._rewards / others if others else 0.0
        warn, fail = STOPPED
        severity: Severity = (
            "failure" if expected >= fail else "warning" if expected >= warn else "ok"
        )

        return make_finding(
            "reward_flow",
            severity,
            f"at most {self._longest:,} decisions in a row were left without any reward, where"
            f" {expected:,.1f} were to be expected",
            cause="rewards stopped coming, for a while or for good: their sender or its way to the"
            " service is broken",
            action="repair the sender; leave that stretch out of evaluations: its default rewards"
            " are not real",
            figures={
                "silent_decisions": self._longest,
                "rewards_expected": expected,
                "rewards": self._rewards,
            },
        )


def _settled(counts: Counter[str]) -> int:
    """Return how many rewards have an outcome that is not that of a repeat."""
    lost = ("late", "orphan", "invalid", "unknown_signal", "unactivated")
    return sum(counts[name] for name in ("joined", *lost))
