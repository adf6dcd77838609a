"""The join: decisions and rewards of the log become rewarded decisions. Pure, incremental, no clock but the log's."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from bandits.records import ActivationRecord, DecisionRecord, LogEntry, RewardRecord


class JoinRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rewards join decisions.

    A decision's window runs ``window_s`` seconds from its entry; a reward that comes after it is late (as long as the
    decision is remembered, one more window), and changes nothing.
    """

    window_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = 600.0
    default_reward: float = 0.0
    aggregation: Literal["first", "last", "sum", "max"] = "first"
    learn: Literal["at_close"] = "at_close"

    @property
    def window_ms(self) -> int:
        """The window in milliseconds, the log's unit of time."""
        return round(self.window_s * 1000)


@dataclass(frozen=True, slots=True, eq=False)
class JoinedDecision:
    """A closed decision: one reward per slot, and whether any of them was more than the default."""

    position: str
    record: DecisionRecord
    rewards: tuple[float, ...]
    rewarded: bool


@dataclass(slots=True, eq=False)
class _Open:
    position: str
    record: DecisionRecord
    rule: JoinRule
    activated: bool
    values: dict[int, float] = field(default_factory=dict)
    seen: set[object] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Join:
    """Feed it the log's entries in order; it yields each decision when the decision's window closes.

    ``rule_of`` maps a spec digest to its JoinRule. ``counts`` has one outcome per reward: joined, duplicate, late,
    orphan, invalid, or early (still waiting for its decision); and counts of decisions.
    """

    rule_of: Callable[[str], JoinRule]
    rule: JoinRule = field(default_factory=JoinRule)
    counts: Counter[str] = field(default_factory=Counter)
    _open: dict[str, _Open] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)
    _early: dict[str, dict[int, RewardRecord]] = field(default_factory=dict)  # by the number of its reminder
    _deadlines: list[tuple[int, int, str, str]] = field(default_factory=list)
    _sequence: int = 0

    def apply(self, entry: LogEntry) -> Iterator[JoinedDecision]:
        """Close every window that ends at or before the entry's time, then apply the entry."""
        yield from self._advance(entry.time_ms)
        record = entry.record
        if isinstance(record, DecisionRecord):
            self._decision(entry, record)
        elif isinstance(record, RewardRecord):
            self._reward(entry, record)
        elif isinstance(record, ActivationRecord):
            self._activation(record)

    def oldest_open(self) -> str | None:
        """Log position of the oldest open decision, where a resume has to read from."""
        return next(iter(self._open.values())).position if self._open else None

    def next_deadline_ms(self) -> int | None:
        """When the next window closes, in log time."""
        return self._deadlines[0][0] if self._deadlines else None

    def _advance(self, now_ms: int) -> Iterator[JoinedDecision]:
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            deadline, number, kind, event_id = heapq.heappop(self._deadlines)
            if kind == "forget":
                self._closed.discard(event_id)
            elif kind == "orphan":
                self._orphan(event_id, number)
            else:
                joined = self._close(event_id, deadline)
                if joined is not None:
                    yield joined

    def _close(self, event_id: str, deadline: int) -> JoinedDecision | None:
        decision = self._open.pop(event_id)
        self._closed.add(event_id)
        self._remind(deadline + decision.rule.window_ms, "forget", event_id)
        if not decision.activated:
            self.counts["not_activated"] += 1
            return None
        self.counts["closed"] += 1
        default = decision.rule.default_reward
        rewards = tuple(decision.values.get(slot, default) for slot in range(len(decision.record.chosen)))
        return JoinedDecision(decision.position, decision.record, rewards, bool(decision.values))

    def _decision(self, entry: LogEntry, record: DecisionRecord) -> None:
        if record.event_id in self._open or record.event_id in self._closed:
            self.counts["duplicate_decision"] += 1
            return
        self.counts["decisions"] += 1
        rule = self.rule_of(record.spec)
        self._open[record.event_id] = _Open(entry.id, record, rule, activated=not record.deferred)
        self._remind(entry.time_ms + rule.window_ms, "close", record.event_id)
        for reward in self._early.pop(record.event_id, {}).values():
            self.counts["early"] -= 1
            self._join(self._open[record.event_id], reward)

    def _reward(self, entry: LogEntry, record: RewardRecord) -> None:
        decision = self._open.get(record.event_id)
        if decision is not None:
            self._join(decision, record)
        elif record.event_id in self._closed:
            self.counts["late"] += 1
        else:
            self.counts["early"] += 1
            number = self._remind(entry.time_ms + self.rule.window_ms, "orphan", record.event_id)
            self._early.setdefault(record.event_id, {})[number] = record

    def _orphan(self, event_id: str, number: int) -> None:
        parked = self._early.get(event_id, {})
        if parked.pop(number, None) is None:
            return  # its decision came
        self.counts["early"] -= 1
        self.counts["orphan"] += 1
        if not parked:
            del self._early[event_id]

    def _join(self, decision: _Open, reward: RewardRecord) -> None:
        slot = _slot_of(decision.record, reward)
        if slot is None:
            self.counts["invalid"] += 1
            return
        identity: object = slot if reward.reward_id is None else reward.reward_id
        if identity in decision.seen:
            self.counts["duplicate"] += 1
            return
        decision.seen.add(identity)
        self.counts["joined"] += 1
        if slot not in decision.values or decision.rule.aggregation == "last":
            decision.values[slot] = reward.value
        elif decision.rule.aggregation == "sum":
            decision.values[slot] += reward.value
        elif decision.rule.aggregation == "max":
            decision.values[slot] = max(decision.values[slot], reward.value)

    def _activation(self, record: ActivationRecord) -> None:
        decision = self._open.get(record.event_id)
        if decision is None:
            self.counts["orphan_activation"] += 1
        else:
            decision.activated = True

    def _remind(self, at_ms: int, kind: str, event_id: str) -> int:
        self._sequence += 1
        heapq.heappush(self._deadlines, (at_ms, self._sequence, kind, event_id))
        return self._sequence


def join(entries: Iterable[LogEntry], rule_of: Callable[[str], JoinRule], rule: JoinRule) -> Iterator[JoinedDecision]:
    """Every decision whose window closes within ``entries``. ``rule`` says how long an early reward waits."""
    state = Join(rule_of, rule)
    for entry in entries:
        yield from state.apply(entry)


def _slot_of(decision: DecisionRecord, reward: RewardRecord) -> int | None:
    """The slot a reward is for, or None when it names an action or slot that was not chosen."""
    if reward.action_id is None:
        slot = reward.slot or 0
        return slot if slot < len(decision.chosen) else None
    for slot, index in enumerate(decision.chosen):
        if decision.action_ids[index] == reward.action_id and reward.slot in (None, slot):
            return slot
    return None
