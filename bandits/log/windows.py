"""The windows of a join: how they open and close, and what becomes of each reward.

The newest decisions are remembered with their records, older ones without: see
older_decisions.py. What is taught depends on neither.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.log.deadlines import NEVER, Deadlines
from bandits.log.encoded_decisions import Decision, chosen_hashes
from bandits.log.join_notes import JoinNotes
from bandits.log.join_rule import OF_ALL, UNNAMED, JoinRule, SignalledRule
from bandits.log.join_state import Identity, Inherited
from bandits.log.older_decisions import OlderDecisions
from bandits.log.positions import log_order, position_after, position_ms
from bandits.log.records import ActivationRecord, EncodedDecision, RewardRecord
from bandits.log.remembered_decisions import (
    NOTHING,
    JoinedDecision,
    RememberedDecision,
    as_read,
    slot_by_hash,
    slot_of,
    teach_at_close,
    teach_slots,
)

RECENT_BYTES = 64 << 20
"""How much memory the records of the newest decisions take, about."""
SPARE_SHIFT = 5
"""Once they take more, one part in two to the power of this is given up at once."""
ENCODED_BYTES = 400
"""How much one takes beside its bytes, about."""

Lessons = list[JoinedDecision] | None
"""Lessons are added here; None while entries are folded again whose lessons were taught."""


class RecordsBehind(Protocol):
    """The records of decisions that are not in memory any more."""

    def put_by(
        self, decisions: Sequence[RememberedDecision], records: Sequence[Decision]
    ) -> NDArray[np.int64] | None:
        """Take note of what decisions teach when they close.

        Args:
            decisions: n of them, in the order of the log.
            records: theirs, which are kept no longer.

        Returns:
            The hashes of what they chose, slot by slot (see ``action_hash``), if they are at hand.
        """
        ...

    def at_hand(self, positions: list[str], window_ms: int, spec: str) -> Sequence[Decision] | None:
        """Return what decisions teach whose windows close, of the first ones, as it is at hand.

        Args:
            positions: theirs, that follow each other in the log.
            window_ms: their windows' length.
            spec: the digest of theirs.

        Returns:
            Nothing: the first is to be asked for by ``closing``. None: so is each of them.
        """
        ...

    def closing(self, position: str, window_ms: int, spec: str) -> Decision:
        """Return the record of a decision whose window closes, or what of it teaches.

        Args:
            position: the decision's; those of one window come in the order of the log.
            window_ms: the window's length.
            spec: the digest of the decision's.
        """
        ...

    def at(self, position: str) -> Decision:
        """Return the record of a decision."""
        ...


@dataclass(slots=True, eq=False)
class Windows:
    """Every decision that is remembered, and what came before its decision.

    ``rule_of``: the JoinRule of a spec, by digest.

    ``rule``: the one in force, which says how long an early reward waits for its decision.

    ``waits``: whether the learner of a spec cannot correct. Then ``as_it_arrives`` teaches a slot
    when its first reward comes, or the default when the window closes.

    ``counts``: one outcome per reward, joined, duplicate, late, orphan, invalid, unactivated (its
    decision never was), early (still waiting for its decision, or for its activation), placed (of
    an item that no draw has put on its page) or unknown_signal (its decision's spec weighs no such
    signal); and counts of decisions, of those ``reranked``, and of activations.

    ``signals``: of the rewards that entered an aggregate, how many there were of each signal and
    the sum of their values; only of decisions whose spec weighs signals.

    ``fold``: the version of the fold, which the log's builds say (see FOLD).

    ``behind``: reads the records that are not in memory; None: all are kept there.

    ``recent_bytes``: how much memory those of the newest decisions may take.

    ``on_reward``: is told of each reward above 0 that joins an activated decision in time, when it
    does: the decision, the slot (see ``slot_of``), the time, the reward, and what it is worth, its
    value times its signal's weight. None: nobody is told, and no record is read for it.
    ``tells_all``: of those that are worth 0 or less, too; and, as worth 0, of those that have
    waited for an activation, when that comes: of each slot and signal once, with its aggregate.
    """

    rule_of: Callable[[str], JoinRule]
    rule: JoinRule = field(default_factory=JoinRule)
    waits: Callable[[str], bool] = lambda _: False
    counts: Counter[str] = field(default_factory=Counter)
    fold: int = 1
    behind: RecordsBehind | None = None
    recent_bytes: int = RECENT_BYTES
    on_reward: Callable[[Decision, int, int, RewardRecord, float], None] | None = None
    tells_all: bool = False
    signals: dict[str, tuple[int, float]] = field(default_factory=dict)
    _open: dict[str, RememberedDecision] = field(default_factory=dict)
    _closed: dict[str, RememberedDecision] = field(default_factory=dict)
    _older: OlderDecisions = field(init=False)
    _taken_bytes: int = 0
    # Rewards that came before their decision, by event and number, with the time they wait until.
    _early: dict[str, dict[int, tuple[int, RewardRecord]]] = field(default_factory=dict)
    # Activations that came before their decision, likewise.
    _activations: dict[str, dict[int, int]] = field(default_factory=dict)
    _deadlines: Deadlines = field(default_factory=Deadlines)
    _sequence: int = 0
    _notes: JoinNotes = field(init=False)
    # What is remembered since an earlier build's checkpoint, and its row, -1 if it has none.
    _inherited: Inherited | None = None
    _inherited_rows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._older = OlderDecisions(self.rule_of)
        self._notes = JoinNotes(self._oldest, self.fold)

    # What is remembered

    def _find(self, event_id: str) -> RememberedDecision | None:
        """Return the decision of a name; ``_keep`` it when it has been changed."""
        found = self._open.get(event_id) or self._closed.get(event_id)
        return found or (self._older.find(event_id) if self._older.next_ms < NEVER else None)

    def _keep(self, decision: RememberedDecision) -> None:
        if decision.row >= 0:
            self._older.keep(decision)

    def _teachable(self) -> Iterator[RememberedDecision]:
        """Yield the decisions of which something can be taught."""
        recent = chain(self._open.values(), self._closed.values())
        return chain(self._older.teachable(), (each for each in recent if each.slots))

    def _remembered(self) -> tuple[int, int]:
        """Return how many decisions are open, and how many closed ones are remembered."""
        older = self._older.count_open()
        closed = len(self._closed) + len(self._older) - older
        return len(self._open) + older, closed

    def _oldest(self) -> str | None:
        """Return the position from which on there are decisions that are remembered."""
        if self._inherited is not None:
            return position_after(self._inherited.through)

        positions = [
            self._closed[event_id].position for event_id in self._deadlines.first_of("forget")
        ]
        positions += [] if (first := self._first_open()) is None else [first.position]
        older = self._older.first()
        if older is not None:
            positions.append(older)
        return min(positions, key=log_order, default=None)

    def _first_open(self) -> RememberedDecision | None:
        """Return the oldest open decision that is no older one.

        A dict would look for its first item among all that were removed before it.
        """
        firsts = [self._open[event_id] for event_id in self._deadlines.first_of("close")]
        if len(firsts) == 1:
            return firsts[0]
        return min(firsts, key=lambda each: log_order(each.position), default=None)

    # Time

    def _advance(self, now_ms: int, out: Lessons) -> None:
        """Do everything that is due by now; what is to be taught is added to ``out``."""
        # Of two windows that end at once the one that opened first closes first.
        older = self._older
        while older.next_ms <= now_ms:
            at_ms = older.next_ms
            self._advance_recent(at_ms - 1, out)
            self.pop_older(at_ms, out)
        self._advance_recent(now_ms, out)

    @property
    def older(self) -> OlderDecisions:
        """The decisions whose records are not in memory."""
        return self._older

    def pop_older(self, at_ms: int, out: Lessons) -> None:
        """Close the next older decision that is due, or forget it.

        Args:
            at_ms: when it is due.
            out: gets what is to be taught, appended.
        """
        decision = self._older.pop_due()
        if decision is not None:
            self.end_older(decision, at_ms, out)

    def end_older(self, decision: RememberedDecision, at_ms: int, out: Lessons) -> None:
        """Close the window of an older decision.

        Args:
            decision: the decision.
            at_ms: when its window ends.
            out: gets what is to be taught, appended.
        """
        self._end(decision, at_ms, out)
        self._older.keep(decision)

    def _advance_recent(self, now_ms: int, out: Lessons) -> None:
        while due := self._deadlines.pop_due(now_ms):
            at_ms, number, kind, event_id = due
            if kind == "close":
                self._close(event_id, at_ms, out)
            elif kind == "forget":
                self._forget(event_id)
            elif kind == "orphan":
                self._orphan(event_id, number)
            else:
                self._orphan_activation(event_id, number)

    def _close(self, event_id: str, at_ms: int, out: Lessons) -> None:
        """Close the window of a decision that is no older one, at the time that it ends."""
        # One more window it is remembered, so that a reward which comes now is late, not early.
        decision = self._open.pop(event_id)
        self._closed[event_id] = decision
        record = decision.record
        self._end(decision, at_ms, out)
        self._remind(decision.forgotten_ms, "forget", decision.rule, event_id)
        if decision.record is None:
            self._give_back(record)

    def _forget(self, event_id: str) -> None:
        self._give_back(self._closed.pop(event_id).record)

    def _give_back(self, record: Decision | None) -> None:
        """Note that a record is kept no longer."""
        if record is not None and self.behind is not None:
            self._taken_bytes -= weight_of(record)

    def _end(self, decision: RememberedDecision, at_ms: int, out: Lessons) -> None:
        """Close a window: what was not taught yet is taught now, if the decision was activated."""
        rule = decision.rule
        decision.forgotten_ms = at_ms + rule.window_ms
        self.counts["closed" if decision.activated else "not_activated"] += 1
        if decision.waiting:
            self._settle(decision, "unactivated")
        # Only a decision that late rewards correct is needed from here on.
        is_over = not (decision.activated and rule.late == "correct")
        if decision.activated:
            if is_over and not decision.taught:
                teach_at_close(decision, out, self._closing_record)
            else:
                teach_slots(decision, range(decision.slots), out, self._closing_record)
        if is_over:
            decision.teach_no_more()

    def _closing_record(self, decision: RememberedDecision) -> Decision:
        return self.closing_record(decision.position, decision.rule, decision.spec)

    def closing_record(self, position: str, rule: JoinRule, spec: str) -> Decision:
        """Return what of an older decision teaches, whose window closes.

        Args:
            position: the decision's.
            rule: its spec's.
            spec: the digest of its spec.
        """
        assert self.behind is not None  # noqa: S101 - else every record is in memory
        return self.behind.closing(position, rule.window_ms, spec)

    def records_at_hand(
        self, positions: list[str], rule: JoinRule, spec: str
    ) -> Sequence[Decision] | None:
        """Return what the first of some older decisions teach; see ``RecordsBehind.at_hand``.

        Args:
            positions: theirs, that follow each other.
            rule: their spec's.
            spec: the digest of their spec.
        """
        assert self.behind is not None  # noqa: S101 - else every record is in memory
        return self.behind.at_hand(positions, rule.window_ms, spec)

    def _record_of(self, decision: RememberedDecision) -> Decision:
        assert self.behind is not None  # noqa: S101 - else every record is in memory
        return self.behind.at(decision.position)

    # Entries

    def _decision(self, position: str, now_ms: int, record: Decision, out: Lessons) -> None:
        """Open the window of a decision, and join what came before it."""
        # Within a window the first decision of an id counts.
        event_id = record.event_id
        if self._find(event_id) is not None:
            self.counts["duplicate_decision"] += 1
            self._notes.skip(position)
            return

        self.counts["decisions"] += 1
        rule, slots = self.rule_of(record.spec), record.slots
        activated = not record.deferred
        decision = RememberedDecision(position, record.spec, rule, record, activated, slots)
        self._remind(now_ms + rule.window_ms, "close", rule, event_id)
        self._open[event_id] = decision

        if event_id in self._activations or event_id in self._early:
            self._join_early(decision, event_id, now_ms)
        if decision.activated:
            self._begin(decision, out)

        if self.behind is not None:
            self._taken_bytes += weight_of(record)
            if self._taken_bytes > self.recent_bytes:
                self._make_room()

    def _make_room(self) -> None:
        """Keep the oldest decisions without their records, until the others have room to spare."""
        made: list[RememberedDecision] = []
        records: list[Decision] = []
        enough = self.recent_bytes - (self.recent_bytes >> SPARE_SHIFT)
        while self._taken_bytes > enough:
            queue = self._deadlines.alone("close")
            first = self._first_open() if queue is None else None
            if queue is None:
                if first is None:
                    break
                queue = self._deadlines.queue_of("close", first.rule.window_s)

            # All of it is older than what other windows have, or there are no others.
            while self._taken_bytes > enough and queue:
                decision = self._open.pop(queue.popleft()[3])
                record = decision.record
                assert record is not None  # noqa: S101 - it is open, and no older one
                if type(record) is EncodedDecision:
                    self._taken_bytes -= ENCODED_BYTES + len(record.data)
                else:
                    self._taken_bytes -= weight_of(record)
                made.append(decision)
                records.append(record)
                if first is not None:
                    break

        hashes = None if self.behind is None else self.behind.put_by(made, records)
        self._older.extend(records, made, chosen_hashes(records) if hashes is None else hashes)
        for decision in made:
            decision.record = None

    def _join_early(self, decision: RememberedDecision, event_id: str, now_ms: int) -> None:
        """Join what waited for a decision."""
        if waiting := self._activations.pop(event_id, None):
            self.counts["early_activation"] -= len(waiting)
        parked = self._early.pop(event_id, {})
        if parked:
            self.counts["early"] -= len(parked)

        rewards = [reward for _, reward in parked.values()]
        self._notes.attach(decision.position, rewards, activated=bool(waiting))
        for reward, slot in self._attach(decision, rewards, activated=bool(waiting)):
            self._tell(decision, reward, slot, now_ms)

    def _attach(
        self, decision: RememberedDecision, rewards: list[RewardRecord], *, activated: bool
    ) -> list[tuple[RewardRecord, int | None]]:
        """Join rewards, and an activation, that came before their decision; return their slots."""
        decision.activated = decision.activated or activated
        return [(reward, self._join(decision, reward, "joined")) for reward in rewards]

    def _tell(
        self, decision: RememberedDecision, reward: RewardRecord, slot: int | None, now_ms: int
    ) -> None:
        """Tell of a reward that counts."""
        if self.on_reward is None or slot is None or not (decision.activated or slot < 0):
            return

        rule, worth = decision.rule, reward.value
        if isinstance(rule, SignalledRule):
            worth *= rule.signals[reward.signal or UNNAMED].weight
        if worth > 0 or self.tells_all:
            record = decision.record or self._record_of(decision)
            self.on_reward(record, slot, now_ms, reward, worth)

    def _tell_of_waiting(self, decision: RememberedDecision, now_ms: int) -> None:
        """Tell of what waited for a decision's activation: of each slot and signal once."""
        if self.on_reward is None:
            return
        record, is_signalled = decision.record or self._record_of(decision), bool(decision.parts)
        for slot, value in sorted(decision.values.items()):
            parts = (decision.parts or {}).get(slot, {}) if is_signalled else {UNNAMED: value}
            for name, part in sorted(parts.items()):
                reward = RewardRecord(record.event_id, part, slot=slot, signal=name or None)
                self.on_reward(record, slot, now_ms, reward, 0.0)

    def _begin(self, decision: RememberedDecision, out: Lessons) -> None:
        """Teach what can be taught of a decision that has just been opened, or activated."""
        if decision.rule.learn == "as_it_arrives":
            waits = self.waits(decision.spec)
            slots = sorted(decision.values) if waits else range(decision.slots)
            teach_slots(decision, slots, out, self._record_of)

    def _reward(self, now_ms: int, record: RewardRecord, out: Lessons) -> None:
        """Join a reward with its decision: open, closed, or not there yet."""
        decision = self._find(record.event_id)
        if decision is None:
            # Before its decision, for which it then waits.
            record = record if record.signal is None else as_read(record, self.fold)
            self.counts["early"] += 1
            until = now_ms + self.rule.window_ms
            number = self._remind(until, "orphan", self.rule, record.event_id)
            self._early.setdefault(record.event_id, {})[number] = (until, record)
        else:
            self._reward_of(decision, record, now_ms, out)

    def _reward_of(
        self, decision: RememberedDecision, record: RewardRecord, now_ms: int, out: Lessons
    ) -> None:
        record = record if record.signal is None else as_read(record, self.fold)
        rule = decision.rule
        late = decision.forgotten_ms > 0
        if type(rule) is SignalledRule and not late:
            late = rule.is_past(record.signal, now_ms - position_ms(decision.position))

        # In time: it is taught now, or when the window closes.
        if not late:
            slot = self._join(decision, record, "joined")
            if out is not None:
                self._tell(decision, record, slot, now_ms)
            is_taught = decision.activated and rule.learn == "as_it_arrives"
            if is_taught and slot is not None and slot >= 0:
                teach_slots(decision, decision.taught_by(slot), out, self._record_of)

        # Too late, but for a correction.
        elif not decision.slots or rule.late == "ignore":
            self.counts["late"] += 1
            return
        else:
            slot = self._join(decision, record, "late")
            if slot is not None and slot in decision.taught:
                teach_slots(decision, decision.taught_by(slot), out, self._record_of)
        self._keep(decision)

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

    def _join(self, decision: RememberedDecision, reward: RewardRecord, outcome: str) -> int | None:
        """Count a reward as ``outcome``; return the slot whose aggregate it entered, if it did.

        Or the slot of a placed item (see ``slot_of``), of which nothing is aggregated.
        """
        record = decision.record
        slot = slot_by_hash(decision, reward) if record is None else slot_of(record, reward)
        if slot is None:
            self.counts["invalid"] += 1
            return None

        rule, signal = decision.rule, reward.signal
        signalled = rule if type(rule) is SignalledRule else None
        if signal is not None and (signalled is None or signal not in signalled.signals):
            self.counts["unknown_signal"] += 1
            return None

        if slot < 0:
            return self._placed(decision, reward, slot, outcome)

        # A reward without an id of its own is the one reward of its slot, or of its signal there.
        identity: Identity | None = reward.reward_id
        if identity is None:
            identity = slot if signal is None else (slot, signal)
        if identity in decision.seen:
            self.counts["duplicate"] += 1
            return None
        decision.see(identity)

        # Fold 1 counted a reward at once, also where its decision was not activated yet.
        if decision.activated or self.fold == 1:
            self.counts[outcome] += 1
        else:
            self.counts["early"] += 1
            decision.waiting += 1

        if signalled is not None:
            name = signal or UNNAMED
            count, total = self.signals.get(name, (0, 0.0))
            self.signals[name] = count + 1, total + reward.value
            decision.add_reward(slot, name, reward.value)
        elif slot in decision.values or rule.aggregation in OF_ALL:
            decision.add_reward(slot, UNNAMED, reward.value)
        elif decision.values is NOTHING:
            decision.values = {slot: reward.value}
        else:
            decision.values[slot] = reward.value
        return slot

    def _placed(
        self, decision: RememberedDecision, reward: RewardRecord, slot: int, outcome: str
    ) -> int | None:
        """Count a reward of an item that was placed on the page: nothing is learned of it."""
        name = f"={reward.reward_id}" if reward.reward_id is not None else reward.signal or ""
        if (slot, name) in decision.seen:
            self.counts["duplicate"] += 1
            return None
        decision.see((slot, name))
        self.counts["placed" if outcome == "joined" else outcome] += 1
        return slot

    def _activation(self, now_ms: int, record: ActivationRecord, out: Lessons) -> None:
        """Activate a deferred decision, or let the activation wait for it."""
        decision = self._find(record.event_id)
        if decision is not None and not decision.forgotten_ms:
            self._activate(decision, now_ms, out)

        # Fold 1 knew no activation that waits.
        elif decision is not None or self.fold == 1:
            self.counts["orphan_activation"] += 1
        else:
            self.counts["early_activation"] += 1
            until = now_ms + self.rule.window_ms
            number = self._remind(until, "activation", self.rule, record.event_id)
            self._activations.setdefault(record.event_id, {})[number] = until

    def _activate(self, decision: RememberedDecision, now_ms: int, out: Lessons) -> None:
        if not decision.activated:
            decision.activated = True
            if decision.waiting and out is not None and self.tells_all:
                self._tell_of_waiting(decision, now_ms)
            self._settle(decision, "joined")
            self._begin(decision, out)
            self._keep(decision)

    def _settle(self, decision: RememberedDecision, outcome: str) -> None:
        """Count the rewards that waited for a decision's activation as ``outcome``."""
        if decision.waiting:
            self.counts["early"] -= decision.waiting
            self.counts[outcome] += decision.waiting
            decision.waiting = 0

    def _adopt_fold(self, position: str, version: int, first_row: int = 0) -> None:
        """Fold entries by another version from here on.

        Args:
            position: of the entry that says so.
            version: the one from here on.
            first_row: older decisions before this row are as they are to be.
        """
        # An older build goes on: by its fold nothing waits for an activation.
        if version == 1 and self.fold > 1:
            for decision in self._teachable():
                is_new = not 0 <= decision.row < first_row
                if decision.waiting and is_new and not decision.forgotten_ms:
                    self._settle(decision, "joined")
                    self._keep(decision)
            waiting = [
                (event_id, number)
                for event_id, parked in self._activations.items()
                for number in parked
            ]
            for event_id, number in waiting:
                self._orphan_activation(event_id, number)

        self.fold = version
        self._notes.version(position, version)

    def _remind(self, at_ms: int, kind: str, rule: JoinRule, event_id: str) -> int:
        """Set a deadline; return its number, by which two of one moment are in order."""
        self._sequence += 1
        self._deadlines.add((at_ms, self._sequence, kind, event_id), rule.window_s)
        return self._sequence


def weight_of(record: Decision) -> int:
    """Return about how many bytes of memory a record takes."""
    if isinstance(record, EncodedDecision):
        return ENCODED_BYTES + len(record.data)
    actions = len(record.action_ids)
    own = 0 if record.features is None else 300 * actions
    return 1000 + len(record.pmf) + actions * (60 + 4 * len(record.scores)) + own
