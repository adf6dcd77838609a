"""What came of some decisions: the join of the learner, run over their own entries alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

import msgspec

from banditloop_client.console_schemas import DecisionOutcome, LoggedReward, RewardOutcome
from bandits.errors import ArchiveError, MissingBlobError
from bandits.log.encoded_decisions import DECISIONS
from bandits.log.join import Join
from bandits.log.join_rule import JoinRule
from bandits.log.positions import position_at, position_before, position_ms
from bandits.log.records import ActivationRecord, LogEntry, RewardRecord, TickRecord
from bandits.log.versions import FOLD
from policies.spec import decode_spec
from serve_app.store.history import History

COUNTED: tuple[RewardOutcome, ...] = (
    *("joined", "duplicate", "late", "invalid", "placed", "unknown_signal"),
)
"""The counts of a join that one reward can make greater; "early" is said of what waits."""


@dataclass(slots=True)
class CameOf:
    """What has come of one decision.

    Attributes:
        rule: how its rewards join.
        closes_ms: when its window does, in the log's time.
        outcome: see DecisionOutcome.
        earned: by slot that was drawn, what its rewards come to.
        rewards: as the log has them.
    """

    rule: JoinRule
    closes_ms: int
    outcome: DecisionOutcome = "not_read"
    earned: Mapping[int, float] = field(default_factory=dict)
    rewards: list[LoggedReward] = field(default_factory=list)
    activated: bool = False

    @property
    def reward(self) -> float | None:
        """What its slots have earned together; None: no reward has counted."""
        return sum(self.earned.values()) if self.earned else None


def join_rules_of(history: History) -> Callable[[str], JoinRule]:
    """Return what gives the rule of a spec; of one that is gone, the rule that specs begin with."""
    known: dict[str, JoinRule] = {}

    def rule_of(spec: str) -> JoinRule:
        if spec not in known:
            try:
                known[spec] = decode_spec(history.blob(spec)).rule
            except (MissingBlobError, ArchiveError):
                known[spec] = JoinRule()
        return known[spec]

    return rule_of


def came_of(
    history: History, entries: Mapping[str, tuple[str, str]], *, most: int
) -> dict[str, CameOf]:
    """Return what has come of some decisions of a log, by their entries.

    Args:
        history: the log.
        entries: by the position of each decision, its event_id and its spec.
        most: how many entries are looked at, from the oldest of them on.
    """
    if not entries:
        return {}
    rule_of = join_rules_of(history)
    out = {}
    for at, (_, spec) in entries.items():
        rule = rule_of(spec)
        out[at] = CameOf(rule, position_ms(at) + rule.window_ms)
    oldest = min(entries, key=position_ms)
    # A decision is remembered for one window more: what comes then is late.
    until_ms = max(each.closes_ms + each.rule.window_ms for each in out.values())
    joined = _Joined({event_id: at for at, (event_id, _) in entries.items()}, out, rule_of)

    looked, ended = 0, False
    for entry in islice(history.encoded(position_before(oldest)), most):
        looked += 1
        if entry.time_ms > until_ms:
            ended = True
            break
        joined.add(entry)
    now_ms = until_ms if ended else position_ms(history.end())
    if ended or looked < most:
        joined.end(now_ms)
    return out


class _Joined:
    """Joins the entries of some decisions."""

    def __init__(
        self,
        places: Mapping[str, str],
        out: Mapping[str, CameOf],
        rule_of: Callable[[str], JoinRule],
    ) -> None:
        self._places, self._out = places, out
        self._join = Join(rule_of, fold=FOLD)
        self._duplicates: set[str] = set()

    def add(self, entry: LogEntry) -> None:
        """Join an entry, if it is of one of the decisions."""
        record = entry.record
        if not isinstance(record, (*DECISIONS, RewardRecord, ActivationRecord)):
            return
        at = self._places.get(record.event_id)
        if at is None:
            return

        before = dict(self._join.counts)
        self._join.apply(entry)
        counted = {name for name, count in self._join.counts.items() if count > before.get(name, 0)}
        if "duplicate_decision" in counted and entry.id in self._out:
            self._out[entry.id].outcome = "duplicate"
            self._duplicates.add(entry.id)
        if isinstance(record, RewardRecord):
            outcome: RewardOutcome = "waiting"
            for name in COUNTED:
                outcome = name if name in counted else outcome
            self._out[at].rewards.append(_logged(entry, record, outcome))
        self._look(record.event_id, at)

    def _look(self, event_id: str, at: str) -> None:
        remembered, came = self._join.remembered(event_id), self._out[at]
        if remembered is not None:
            came.activated = remembered.activated
            # Once its window has closed, nothing is known of what it has earned.
            if remembered.values:
                came.earned = dict(remembered.values)

    def end(self, now_ms: int) -> None:
        """Say of each decision how it stands at a time of the log."""
        self._join.apply(LogEntry(position_at(now_ms), TickRecord()))
        for at, came in self._out.items():
            if at in self._duplicates:
                continue
            if now_ms < came.closes_ms:
                came.outcome = "open"
            elif not came.activated:
                came.outcome = "not_activated"
            else:
                came.outcome = "rewarded" if came.earned else "unrewarded"
            settled: RewardOutcome = "waiting"
            if came.activated:
                settled = "joined"
            elif came.outcome != "open":
                settled = "unactivated"
            came.rewards = [_settled(each, settled) for each in came.rewards]


def _settled(reward: LoggedReward, outcome: RewardOutcome) -> LoggedReward:
    return (
        msgspec.structs.replace(reward, outcome=outcome) if reward.outcome == "waiting" else reward
    )


def _logged(entry: LogEntry, record: RewardRecord, outcome: RewardOutcome) -> LoggedReward:
    return LoggedReward(
        entry.id,
        datetime.fromtimestamp(entry.time_ms / 1000, UTC),
        record.value,
        outcome,
        record.slot,
        record.action_id,
        record.reward_id,
        record.signal,
    )
