"""The join: decisions and rewards of the log become what a learner is taught. Pure, incremental.

A decision is taught when its window closes, or, ``as_it_arrives``, at once with the default reward
and then corrected by each reward that counts. What the model holds of a remembered decision is kept
beside it (``taught``), so that a correction is always the difference to it, whatever happened to
the model in between.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from bandits.errors import CodecError
from bandits.log.deadlines import Deadline, Deadlines
from bandits.log.join_state import ClosedState, EarlyActivation, EarlyState, JoinState, OpenState
from bandits.log.positions import position_ms
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
)
from bandits.log.versions import fold_version

__all__ = ["Join", "JoinRule", "JoinState", "JoinedDecision"]


class JoinRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rewards join decisions.

    Attributes:
        window_s: how long a decision waits for its rewards, in seconds from its entry. A later
            reward is late as long as the decision is remembered, one more window.
        default_reward: the reward of a decision that got none.
        aggregation: which of several rewards of a slot counts, or whether they are added up.
        learn: whether a decision is learned when its window closes, or at once with the default
            reward and then corrected by each reward that counts.
        late: whether a late reward is ignored, or corrects the model.
    """

    window_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = 600.0
    default_reward: float = 0.0
    aggregation: Literal["first", "last", "sum", "max"] = "first"
    learn: Literal["at_close", "as_it_arrives"] = "at_close"
    late: Literal["ignore", "correct"] = "ignore"

    @property
    def window_ms(self) -> int:
        """The window in milliseconds, the log's unit of time."""
        return round(self.window_s * 1000)


class JoinedDecision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What to teach of a decision: ``rewards`` of its ``slots``, or by how much to correct those taught before."""

    position: str
    record: DecisionRecord
    slots: tuple[int, ...]
    rewards: tuple[float, ...]
    correction: bool = False


class _Remembered(msgspec.Struct, eq=False, gc=False):
    """A decision whose window is open, or closed for less than another window (then ``record`` may be gone)."""

    position: str
    record: DecisionRecord | None
    rule: JoinRule
    number: int
    activated: bool
    values: dict[int, float] = {}
    seen: dict[int | str, None] = {}
    taught: dict[int, float] = {}
    forgotten_ms: int = 0
    waiting: int = 0


@dataclass(slots=True, eq=False)
class Join:
    """Feed it the log's entries in order; it returns what is to be taught.

    ``rule_of`` maps a spec digest to its JoinRule; ``waits`` tells of one whether its learner
    cannot correct: then ``as_it_arrives`` teaches a slot when its first reward comes, or the
    default when the window closes. ``counts`` has one outcome per reward: joined, duplicate, late,
    orphan, invalid, unactivated (its decision never was), or early (still waiting for its decision,
    or for its activation); and counts of decisions and activations. ``rule`` says how long an early
    one waits. ``fold``: the version of the fold (see FOLD), which the log's builds say.
    """

    rule_of: Callable[[str], JoinRule]
    rule: JoinRule = field(default_factory=JoinRule)
    waits: Callable[[str], bool] = lambda _: False
    counts: Counter[str] = field(default_factory=Counter)
    fold: int = 1
    _open: dict[str, _Remembered] = field(default_factory=dict)
    _closed: dict[str, _Remembered] = field(default_factory=dict)
    # by number: until, reward
    _early: dict[str, dict[int, tuple[int, RewardRecord]]] = field(default_factory=dict)
    # those that came early; by number: until
    _activations: dict[str, dict[int, int]] = field(default_factory=dict)
    _deadlines: Deadlines = field(default_factory=Deadlines)
    _sequence: int = 0

    def apply(self, entry: LogEntry) -> list[JoinedDecision]:
        """Close every window that ends at or before the entry's time, then apply the entry.

        Raises:
            NewerBuildError: from this entry on the log is a later build's; nothing was applied.
        """
        now_ms, record = entry.time_ms, entry.record
        version = fold_version(record.build) if isinstance(record, BuildRecord) else self.fold
        out: list[JoinedDecision] = []
        self._advance(now_ms, out)
        if isinstance(record, DecisionRecord):
            self._decision(entry.id, now_ms, record, out)
        elif isinstance(record, RewardRecord):
            self._reward(now_ms, record, out)
        elif isinstance(record, ActivationRecord):
            self._activation(now_ms, record, out)
        elif version != self.fold:
            self._adopt_fold(version)
        return out

    def oldest_open(self) -> str | None:
        """Log position of the oldest open decision."""
        return next(iter(self._open.values())).position if self._open else None

    def open_windows(self) -> Iterator[tuple[str, int]]:
        """Of each open decision, its log position and when its window closes, in log time."""
        for each in self._open.values():
            yield each.position, position_ms(each.position) + each.rule.window_ms

    def next_deadline_ms(self) -> int | None:
        """When the next window closes, in log time."""
        return self._deadlines.next_ms()

    def forget_taught(self) -> None:
        """The model was replaced by an untaught one."""
        for decision in self._remembered():
            decision.taught.clear()

    def adopt_taught(self, other: "Join") -> None:
        """The model was replaced by the one that ``other``, a join of a prefix of the same log, has taught."""
        known = {decision.position: decision.taught for decision in other._remembered()}  # noqa: SLF001
        for decision in self._remembered():
            decision.taught = dict(known.get(decision.position, {}))

    def state(self) -> JoinState:
        """For a checkpoint."""
        correctable = {
            event_id: each for event_id, each in self._closed.items() if each.record is not None
        }
        return JoinState(
            self._sequence,
            dict(self.counts),
            [_state_of(event_id, each) for event_id, each in self._open.items()],
            [_state_of(event_id, each) for event_id, each in correctable.items()],
            [
                ClosedState(event_id, d.number, d.forgotten_ms)
                for event_id, d in self._closed.items()
                if not d.record
            ],
            [
                EarlyState(number, *each)
                for parked in self._early.values()
                for number, each in parked.items()
            ],
            [
                EarlyActivation(number, until, event_id)
                for event_id, parked in self._activations.items()
                for number, until in parked.items()
            ],
        )

    def restore(self, state: JoinState, records: Mapping[str, DecisionRecord]) -> None:
        """Go on from a state. ``records``: by position, of every decision it names.

        Raises:
            CodecError: a record is missing.
        """
        self.counts = Counter(state.counts)
        self._sequence = state.sequence
        found: list[Deadline] = []
        for each in state.open:
            decision = self._open[each.event_id] = self._restored(each, records)
            close_ms = position_ms(each.position) + decision.rule.window_ms
            found.append((close_ms, each.number, "close", each.event_id))
        for each in state.correctable:
            self._closed[each.event_id] = self._restored(each, records)
            found.append((each.forgotten_ms, each.number, "forget", each.event_id))
        for closed in state.closed:
            self._closed[closed.event_id] = _Remembered(
                "", None, self.rule, closed.number, activated=True, forgotten_ms=closed.forgotten_ms
            )
            found.append((closed.forgotten_ms, closed.number, "forget", closed.event_id))
        for early in state.early:
            event_id = early.reward.event_id
            self._early.setdefault(event_id, {})[early.number] = (early.orphan_ms, early.reward)
            found.append((early.orphan_ms, early.number, "orphan", event_id))
        for activation in state.activations:
            self._activations.setdefault(activation.event_id, {})[activation.number] = (
                activation.orphan_ms
            )
            found.append(
                (activation.orphan_ms, activation.number, "activation", activation.event_id)
            )
        self._deadlines.restore(found)

    def _restored(self, state: OpenState, records: Mapping[str, DecisionRecord]) -> _Remembered:
        record = records.get(state.position)
        if record is None or record.event_id != state.event_id:
            raise CodecError(
                f"the log holds no decision {state.event_id!r} at {state.position}", "position"
            )
        return _Remembered(
            state.position,
            record,
            self.rule_of(record.spec),
            state.number,
            state.activated,
            dict(state.values),
            dict.fromkeys(state.seen),
            dict(state.taught),
            state.forgotten_ms,
            state.waiting,
        )

    def records(self) -> Iterator[DecisionRecord]:
        """Of the decisions that may still be learned or corrected."""
        return (each.record for each in self._remembered() if each.record is not None)

    def _remembered(self) -> Iterator[_Remembered]:
        yield from self._open.values()
        yield from self._closed.values()

    def _advance(self, now_ms: int, out: list[JoinedDecision]) -> None:
        for deadline, number, kind, event_id in self._deadlines.due(now_ms):
            if kind == "forget":
                del self._closed[event_id]
            elif kind == "orphan":
                self._orphan(event_id, number)
            elif kind == "activation":
                self._orphan_activation(event_id, number)
            else:
                self._close(event_id, deadline, out)

    def _close(self, event_id: str, deadline: int, out: list[JoinedDecision]) -> None:
        decision = self._open.pop(event_id)
        self._closed[event_id] = decision
        decision.forgotten_ms = deadline + decision.rule.window_ms
        decision.number = self._remind(decision.forgotten_ms, "forget", decision.rule, event_id)
        self.counts["closed" if decision.activated else "not_activated"] += 1
        self._settle(decision, "unactivated")
        if decision.activated:
            _teach(decision, range(_slots(decision)), out)
        if not (decision.activated and decision.rule.late == "correct"):
            decision.record = None
            decision.values, decision.seen, decision.taught = _NOTHING, _NOTHING, _NOTHING

    def _decision(
        self, position: str, now_ms: int, record: DecisionRecord, out: list[JoinedDecision]
    ) -> None:
        if record.event_id in self._open or record.event_id in self._closed:
            self.counts["duplicate_decision"] += 1
            return
        self.counts["decisions"] += 1
        rule = self.rule_of(record.spec)
        number = self._remind(now_ms + rule.window_ms, "close", rule, record.event_id)
        decision = _Remembered(position, record, rule, number, activated=not record.deferred)
        self._open[record.event_id] = decision
        if waiting := self._activations.pop(record.event_id, None):
            self.counts["early_activation"] -= len(waiting)
            decision.activated = True
        for _, reward in self._early.pop(record.event_id, {}).values():
            self.counts["early"] -= 1
            self._join(decision, record, reward, "joined")
        if decision.activated:
            self._begin(decision, out)

    def _begin(self, decision: _Remembered, out: list[JoinedDecision]) -> None:
        """Teach what can be taught of a decision whose window has just opened, or that was just activated."""
        if decision.rule.learn == "as_it_arrives" and decision.record is not None:
            waits = self.waits(decision.record.spec)
            _teach(decision, sorted(decision.values) if waits else range(_slots(decision)), out)

    def _reward(self, now_ms: int, record: RewardRecord, out: list[JoinedDecision]) -> None:
        decision = self._open.get(record.event_id)
        if decision is not None and decision.record is not None:
            slot = self._join(decision, decision.record, record, "joined")
            if slot is not None and decision.activated and decision.rule.learn == "as_it_arrives":
                _teach(decision, (slot,), out)
            return
        decision = self._closed.get(record.event_id)
        if decision is None:
            self.counts["early"] += 1
            until = now_ms + self.rule.window_ms
            number = self._remind(until, "orphan", self.rule, record.event_id)
            self._early.setdefault(record.event_id, {})[number] = (until, record)
        elif decision.record is None:
            self.counts["late"] += 1
        else:
            slot = self._join(decision, decision.record, record, "late")
            if slot is not None and slot in decision.taught:
                _teach(decision, (slot,), out)

    def _orphan(self, event_id: str, number: int) -> None:
        parked = self._early.get(event_id, {})
        if parked.pop(number, None) is None:
            return  # its decision came
        self.counts["early"] -= 1
        self.counts["orphan"] += 1
        if not parked:
            del self._early[event_id]

    def _orphan_activation(self, event_id: str, number: int) -> None:
        parked = self._activations.get(event_id, {})
        if parked.pop(number, None) is None:
            return  # its decision came
        self.counts["early_activation"] -= 1
        self.counts["orphan_activation"] += 1
        if not parked:
            del self._activations[event_id]

    def _join(
        self, decision: _Remembered, record: DecisionRecord, reward: RewardRecord, outcome: str
    ) -> int | None:
        """Count a reward; the slot whose aggregate it entered, if it did."""
        slot = _slot_of(record, reward)
        if slot is None:
            self.counts["invalid"] += 1
            return None
        identity = slot if reward.reward_id is None else reward.reward_id
        if identity in decision.seen:
            self.counts["duplicate"] += 1
            return None
        decision.seen[identity] = None
        if decision.activated or self.fold == 1:
            self.counts[outcome] += 1
        else:
            self.counts["early"] += 1
            decision.waiting += 1
        if slot not in decision.values or decision.rule.aggregation == "last":
            decision.values[slot] = reward.value
        elif decision.rule.aggregation == "sum":
            decision.values[slot] += reward.value
        elif decision.rule.aggregation == "max":
            decision.values[slot] = max(decision.values[slot], reward.value)
        return slot

    def _activation(self, now_ms: int, record: ActivationRecord, out: list[JoinedDecision]) -> None:
        decision = self._open.get(record.event_id)
        if decision is not None:
            if not decision.activated:
                decision.activated = True
                self._settle(decision, "joined")
                self._begin(decision, out)
        elif record.event_id in self._closed or self.fold == 1:
            self.counts["orphan_activation"] += 1
        else:
            self.counts["early_activation"] += 1
            until = now_ms + self.rule.window_ms
            number = self._remind(until, "activation", self.rule, record.event_id)
            self._activations.setdefault(record.event_id, {})[number] = until

    def _settle(self, decision: _Remembered, outcome: str) -> None:
        """The rewards that waited for a decision's activation have an outcome."""
        if decision.waiting:
            self.counts["early"] -= decision.waiting
            self.counts[outcome] += decision.waiting
            decision.waiting = 0

    def _adopt_fold(self, version: int) -> None:
        """From here on entries are folded so.

        Of an earlier version, when an older build goes on, nothing waits.
        """
        if version == 1 and self.fold > 1:
            for decision in self._open.values():
                self._settle(decision, "joined")
            parked = [
                (event_id, number)
                for event_id, known in self._activations.items()
                for number in known
            ]
            for event_id, number in parked:
                self._orphan_activation(event_id, number)
        self.fold = version

    def _remind(self, at_ms: int, kind: str, rule: JoinRule, event_id: str) -> int:
        self._sequence += 1
        self._deadlines.add((at_ms, self._sequence, kind, event_id), rule.window_s)
        return self._sequence


_NOTHING: dict[Any, Any] = {}
"""Of a decision without its record, to which nothing is added any more."""


def _teach(decision: _Remembered, slots: Sequence[int], out: list[JoinedDecision]) -> None:
    """Bring the model's knowledge of these slots to their aggregates, or to the default."""
    assert decision.record is not None  # noqa: S101 - taught only while it is remembered
    default, taught = decision.rule.default_reward, decision.taught
    if not taught:  # the usual case
        rewards = tuple(decision.values.get(slot, default) for slot in slots)
        if rewards:
            decision.taught = dict(zip(slots, rewards, strict=True))
            out.append(JoinedDecision(decision.position, decision.record, tuple(slots), rewards))
        return
    wanted = {slot: decision.values.get(slot, default) for slot in slots}
    fresh = tuple(slot for slot in slots if slot not in taught)
    changed = tuple(slot for slot in slots if slot in taught and taught[slot] != wanted[slot])
    deltas = tuple(wanted[slot] - taught[slot] for slot in changed)
    taught.update(wanted)
    if fresh:
        out.append(
            JoinedDecision(
                decision.position, decision.record, fresh, tuple(wanted[slot] for slot in fresh)
            )
        )
    if changed:
        out.append(
            JoinedDecision(decision.position, decision.record, changed, deltas, correction=True)
        )


def _state_of(event_id: str, d: _Remembered) -> OpenState:
    return OpenState(
        event_id,
        d.position,
        d.number,
        d.activated,
        dict(d.values),
        list(d.seen),
        dict(d.taught),
        d.forgotten_ms,
        d.waiting,
    )


def _slots(decision: _Remembered) -> int:
    return 0 if decision.record is None else len(decision.record.chosen)


def _slot_of(decision: DecisionRecord, reward: RewardRecord) -> int | None:
    """The slot a reward is for, or None when it names an action or slot that was not chosen."""
    if reward.action_id is None:
        slot = reward.slot or 0
        return slot if slot < len(decision.chosen) else None
    for slot, index in enumerate(decision.chosen):
        if decision.action_ids[index] == reward.action_id and reward.slot in (None, slot):
            return slot
    return None
