"""The join: decisions and rewards of the log become what a learner is taught. Pure, incremental.

A decision is taught when its window closes, or, ``as_it_arrives``, at once with the default reward
and then corrected by each reward that counts. What the model holds of a remembered decision is kept
beside it (``taught``), so that a correction is always the difference to it, whatever happened to
the model in between.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bandits.errors import CodecError
from bandits.log.deadlines import Deadline, Deadlines
from bandits.log.join_rule import JoinRule
from bandits.log.join_state import ClosedState, EarlyActivation, EarlyState, JoinState, OpenState
from bandits.log.positions import position_ms
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
)
from bandits.log.remembered_decisions import (
    NOTHING,
    JoinedDecision,
    RememberedDecision,
    count_slots,
    slot_of,
    state_of,
    teach_slots,
)
from bandits.log.versions import fold_version

__all__ = ["Join", "JoinRule", "JoinState", "JoinedDecision"]


@dataclass(slots=True, eq=False)
class Join:
    """Feed it the log's entries in order; it returns what is to be taught.

    ``rule_of``: the JoinRule of a spec, by digest.

    ``rule``: the one in force, which says how long an early reward waits for its decision.

    ``waits``: whether the learner of a spec cannot correct. Then ``as_it_arrives`` teaches a slot
    when its first reward comes, or the default when the window closes.

    ``counts``: one outcome per reward, joined, duplicate, late, orphan, invalid, unactivated (its
    decision never was) or early (still waiting for its decision, or for its activation); and counts
    of decisions and activations.

    ``fold``: the version of the fold, which the log's builds say (see FOLD).
    """

    rule_of: Callable[[str], JoinRule]
    rule: JoinRule = field(default_factory=JoinRule)
    waits: Callable[[str], bool] = lambda _: False
    counts: Counter[str] = field(default_factory=Counter)
    fold: int = 1
    _open: dict[str, RememberedDecision] = field(default_factory=dict)
    _closed: dict[str, RememberedDecision] = field(default_factory=dict)
    # Rewards that came before their decision, by event and number, with the time they wait until.
    _early: dict[str, dict[int, tuple[int, RewardRecord]]] = field(default_factory=dict)
    # Activations that came before their decision, likewise.
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

        # A window closes before the entry that closes it is applied.
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
        """Return the position of the oldest open decision."""
        return next(iter(self._open.values())).position if self._open else None

    def open_windows(self) -> Iterator[tuple[str, int]]:
        """Yield the position of each open decision, and when its window closes, in log time."""
        for decision in self._open.values():
            yield decision.position, position_ms(decision.position) + decision.rule.window_ms

    def next_deadline_ms(self) -> int | None:
        """Return when the next window closes, in log time."""
        return self._deadlines.next_ms()

    def forget_taught(self) -> None:
        """Note that the model was replaced by an untaught one."""
        for decision in self._remembered():
            decision.taught.clear()

    def adopt_taught(self, other: "Join") -> None:
        """Note that the model was replaced by the one that ``other`` has taught.

        Args:
            other: a join of a prefix of the same log.
        """
        remembered = other._remembered()  # noqa: SLF001 - a join of the same log
        taught = {decision.position: decision.taught for decision in remembered}
        for decision in self._remembered():
            decision.taught = dict(taught.get(decision.position, {}))

    def state(self) -> JoinState:
        """Return what a checkpoint holds of this join."""
        # Closed decisions with a record may still be corrected; the others only make rewards late.
        correctable = [
            state_of(event_id, decision)
            for event_id, decision in self._closed.items()
            if decision.record is not None
        ]
        closed = [
            ClosedState(event_id, decision.number, decision.forgotten_ms)
            for event_id, decision in self._closed.items()
            if decision.record is None
        ]

        early = [
            EarlyState(number, until, reward)
            for parked in self._early.values()
            for number, (until, reward) in parked.items()
        ]
        activations = [
            EarlyActivation(number, until, event_id)
            for event_id, parked in self._activations.items()
            for number, until in parked.items()
        ]

        opened = [state_of(event_id, decision) for event_id, decision in self._open.items()]
        counts = dict(self.counts)
        return JoinState(self._sequence, counts, opened, correctable, closed, early, activations)

    def restore(self, state: JoinState, records: Mapping[str, DecisionRecord]) -> None:
        """Go on from a state.

        Args:
            state: a checkpoint's.
            records: by position, the record of every decision that the state names.

        Raises:
            CodecError: a record is missing.
        """
        self.counts = Counter(state.counts)
        self._sequence = state.sequence
        deadlines: list[Deadline] = []

        # What a state remembers is in the order in which it came; so is what it is remembered in.
        for remembered in state.open:
            decision = self._restored(remembered, records)
            self._open[remembered.event_id] = decision
            close_ms = position_ms(remembered.position) + decision.rule.window_ms
            deadlines.append((close_ms, remembered.number, "close", remembered.event_id))

        for remembered in state.correctable:
            self._closed[remembered.event_id] = self._restored(remembered, records)
            forgotten_ms, event_id = remembered.forgotten_ms, remembered.event_id
            deadlines.append((forgotten_ms, remembered.number, "forget", event_id))
        for closed in state.closed:
            self._closed[closed.event_id] = RememberedDecision(
                "", None, self.rule, closed.number, activated=True, forgotten_ms=closed.forgotten_ms
            )
            deadlines.append((closed.forgotten_ms, closed.number, "forget", closed.event_id))

        for early in state.early:
            event_id = early.reward.event_id
            self._early.setdefault(event_id, {})[early.number] = (early.orphan_ms, early.reward)
            deadlines.append((early.orphan_ms, early.number, "orphan", event_id))
        for activation in state.activations:
            number, until, event_id = activation.number, activation.orphan_ms, activation.event_id
            self._activations.setdefault(event_id, {})[number] = until
            deadlines.append((until, number, "activation", event_id))

        self._deadlines.restore(deadlines)

    def _restored(
        self, state: OpenState, records: Mapping[str, DecisionRecord]
    ) -> RememberedDecision:
        """Return a decision as it was when the checkpoint was written."""
        record = records.get(state.position)
        if record is None or record.event_id != state.event_id:
            raise CodecError(
                f"the log holds no decision {state.event_id!r} at {state.position}", "position"
            )

        return RememberedDecision(
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
        """Yield the records of the decisions that may still be learned or corrected."""
        for decision in self._remembered():
            if decision.record is not None:
                yield decision.record

    def _remembered(self) -> Iterator[RememberedDecision]:
        yield from self._open.values()
        yield from self._closed.values()

    def _advance(self, now_ms: int, out: list[JoinedDecision]) -> None:
        """Do everything that is due by now; what is to be taught is added to ``out``."""
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
        """Close a window: what was not taught yet is taught now, if the decision was activated."""
        # One more window it is remembered, so that a reward which comes now is late, not early.
        decision = self._open.pop(event_id)
        self._closed[event_id] = decision
        decision.forgotten_ms = deadline + decision.rule.window_ms
        decision.number = self._remind(decision.forgotten_ms, "forget", decision.rule, event_id)

        self.counts["closed" if decision.activated else "not_activated"] += 1
        self._settle(decision, "unactivated")
        if decision.activated:
            teach_slots(decision, range(count_slots(decision)), out)

        # Only a decision that late rewards correct needs its record from here on.
        if not (decision.activated and decision.rule.late == "correct"):
            decision.record = None
            decision.values, decision.seen, decision.taught = NOTHING, NOTHING, NOTHING

    def _decision(
        self, position: str, now_ms: int, record: DecisionRecord, out: list[JoinedDecision]
    ) -> None:
        """Open the window of a decision, and join what came before it."""
        # Within a window the first decision of an id counts.
        if record.event_id in self._open or record.event_id in self._closed:
            self.counts["duplicate_decision"] += 1
            return

        self.counts["decisions"] += 1
        rule = self.rule_of(record.spec)
        number = self._remind(now_ms + rule.window_ms, "close", rule, record.event_id)
        decision = RememberedDecision(position, record, rule, number, activated=not record.deferred)
        self._open[record.event_id] = decision

        if waiting := self._activations.pop(record.event_id, None):
            self.counts["early_activation"] -= len(waiting)
            decision.activated = True
        for _, reward in self._early.pop(record.event_id, {}).values():
            self.counts["early"] -= 1
            self._join(decision, record, reward, "joined")

        if decision.activated:
            self._begin(decision, out)

    def _begin(self, decision: RememberedDecision, out: list[JoinedDecision]) -> None:
        """Teach what can be taught of a decision that has just been opened, or activated."""
        if decision.rule.learn == "as_it_arrives" and decision.record is not None:
            waits = self.waits(decision.record.spec)
            teach_slots(
                decision, sorted(decision.values) if waits else range(count_slots(decision)), out
            )

    def _reward(self, now_ms: int, record: RewardRecord, out: list[JoinedDecision]) -> None:
        """Join a reward with its decision: open, closed, or not there yet."""
        # In time: it is taught now, or when the window closes.
        decision = self._open.get(record.event_id)
        if decision is not None and decision.record is not None:
            slot = self._join(decision, decision.record, record, "joined")
            if slot is not None and decision.activated and decision.rule.learn == "as_it_arrives":
                teach_slots(decision, (slot,), out)
            return

        # Too late, or before its decision, for which it then waits.
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
                teach_slots(decision, (slot,), out)

    def _orphan(self, event_id: str, number: int) -> None:
        """Give up waiting for the decision of an early reward."""
        parked = self._early.get(event_id, {})
        if parked.pop(number, None) is None:
            return  # its decision came
        self.counts["early"] -= 1
        self.counts["orphan"] += 1
        if not parked:
            del self._early[event_id]

    def _orphan_activation(self, event_id: str, number: int) -> None:
        """Give up waiting for the decision of an early activation."""
        parked = self._activations.get(event_id, {})
        if parked.pop(number, None) is None:
            return  # its decision came
        self.counts["early_activation"] -= 1
        self.counts["orphan_activation"] += 1
        if not parked:
            del self._activations[event_id]

    def _join(
        self,
        decision: RememberedDecision,
        record: DecisionRecord,
        reward: RewardRecord,
        outcome: str,
    ) -> int | None:
        """Count a reward as ``outcome``; return the slot whose aggregate it entered, if it did."""
        slot = slot_of(record, reward)
        if slot is None:
            self.counts["invalid"] += 1
            return None

        # A reward without an id of its own is the one reward of its slot.
        identity = slot if reward.reward_id is None else reward.reward_id
        if identity in decision.seen:
            self.counts["duplicate"] += 1
            return None
        decision.seen[identity] = None

        # Fold 1 counted a reward at once, also where its decision was not activated yet.
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
        """Activate a deferred decision, or let the activation wait for it."""
        decision = self._open.get(record.event_id)
        if decision is not None:
            if not decision.activated:
                decision.activated = True
                self._settle(decision, "joined")
                self._begin(decision, out)

        # Fold 1 knew no activation that waits.
        elif record.event_id in self._closed or self.fold == 1:
            self.counts["orphan_activation"] += 1
        else:
            self.counts["early_activation"] += 1
            until = now_ms + self.rule.window_ms
            number = self._remind(until, "activation", self.rule, record.event_id)
            self._activations.setdefault(record.event_id, {})[number] = until

    def _settle(self, decision: RememberedDecision, outcome: str) -> None:
        """Count the rewards that waited for a decision's activation as ``outcome``."""
        if decision.waiting:
            self.counts["early"] -= decision.waiting
            self.counts[outcome] += decision.waiting
            decision.waiting = 0

    def _adopt_fold(self, version: int) -> None:
        """Fold entries by another version from here on."""
        # An older build goes on: by its fold nothing waits for an activation.
        if version == 1 and self.fold > 1:
            for decision in self._open.values():
                self._settle(decision, "joined")
            waiting = [
                (event_id, number)
                for event_id, parked in self._activations.items()
                for number in parked
            ]
            for event_id, number in waiting:
                self._orphan_activation(event_id, number)

        self.fold = version

    def _remind(self, at_ms: int, kind: str, rule: JoinRule, event_id: str) -> int:
        """Set a deadline; return its number, by which two of one moment are in order."""
        self._sequence += 1
        self._deadlines.add((at_ms, self._sequence, kind, event_id), rule.window_s)
        return self._sequence
