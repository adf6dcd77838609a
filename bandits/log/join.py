"""The join: decisions and rewards of the log become what a learner is taught. Pure, incremental.

A decision is taught when its window closes, or, ``as_it_arrives``, at once with the default reward
and then corrected by each reward that counts. What the model holds of a remembered decision is kept
beside it (``taught``), so that a correction is always the difference to it, whatever happened to
the model in between.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from bandits.errors import CodecError
from bandits.log.deadlines import NEVER, Deadline
from bandits.log.encoded_decisions import DECISIONS, Decision, action_hash
from bandits.log.join_rule import JoinRule
from bandits.log.join_state import (
    Attached,
    ClosedState,
    EarlyActivation,
    EarlyState,
    Inherited,
    JoinState,
    OpenState,
    Reset,
)
from bandits.log.older_decisions import Opened, Opening
from bandits.log.plain_runs import PlainRuns
from bandits.log.positions import START, has_reached, log_order, position_ms
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    LogEntry,
    RerankedRecord,
    RewardRecord,
)
from bandits.log.remembered_decisions import JoinedDecision, RememberedDecision
from bandits.log.versions import fold_version

__all__ = ["Join", "JoinRule", "JoinState", "JoinedDecision"]


_MEMORY = (
    *("counts", "signals", "fold", "_open", "_closed", "_older", "_taken_bytes", "_early"),
    *("_activations", "_deadlines", "_sequence", "_notes", "_inherited", "_inherited_rows"),
)
"""All that a join holds of the log; the rest is what it was made with."""


@dataclass(slots=True, eq=False)
class Join(PlainRuns):
    """Feed it the log's entries in order; it returns what is to be taught."""

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

        if isinstance(record, DECISIONS):
            self._decision(entry.id, now_ms, record, out)
        elif isinstance(record, RewardRecord):
            self._reward(now_ms, record, out)
        elif isinstance(record, ActivationRecord):
            self._activation(now_ms, record, out)
        elif isinstance(record, RerankedRecord):
            self.counts["reranked"] += 1
        elif version != self.fold:
            self._adopt_fold(entry.id, version)
        return out

    def skip(self, position: str) -> None:
        """Note that the decision there opens no window, for it is refused."""
        self._notes.skip(position)

    def oldest_open(self) -> str | None:
        """Return the position of the oldest open decision."""
        return next((position for position, _ in self.open_windows()), None)

    def open_windows(self) -> Iterator[tuple[str, int]]:
        """Yield the position of each open decision, and when its window closes, in log time."""
        for decision in chain(self._older.open(), self._open.values()):
            yield decision.position, position_ms(decision.position) + decision.rule.window_ms

    def next_deadline_ms(self) -> int | None:
        """Return when the next window closes, in log time."""
        due = min(self._deadlines.next_ms(), self._older.next_ms)
        return None if due == NEVER else due

    @property
    def reads_again(self) -> bool:
        """Whether there are decisions whose records a reward may have to be read again."""
        older = self._older
        return len(older) > 0 and (self.on_reward is not None or older.are_corrected())

    def remembered(self, event_id: str) -> RememberedDecision | None:
        """Return what is remembered of a decision; None: nothing, for it was long ago."""
        return self._find(event_id)

    def names(self) -> set[tuple[str, str]]:
        """Return the spec and the catalogue of each decision that may still be learned."""
        recent = chain(self._open.values(), self._closed.values())
        records = [decision.record for decision in recent if decision.record is not None]
        return self._older.names() | {(record.spec, record.catalogue) for record in records}

    def catalogues(self) -> set[str]:
        """Return the catalogue of each decision of which something can still be taught."""
        recent = chain(self._open.values(), self._closed.values())
        records = [decision.record for decision in recent if decision.record is not None]
        return self._older.catalogues() | {record.catalogue for record in records}

    def read_again(self, event_ids: Iterable[str]) -> list[str]:
        """Return the positions of the decisions of which a reward, now, reads the record again.

        Args:
            event_ids: the decisions that are rewarded.
        """
        found = {each: self._older.find(each) for each in event_ids}
        return [
            decision.position
            for decision in found.values()
            if decision is not None
            and decision.slots
            and (
                decision.forgotten_ms
                or decision.rule.learn == "as_it_arrives"
                or self.on_reward is not None
            )
        ]

    # When the model is replaced

    def forget_taught(self, position: str) -> None:
        """Note that the entry at ``position`` replaced the model by an untaught one."""
        self._replace(Reset(position, START, {}))

    def adopt_taught(self, other: "Join", position: str, through: str) -> None:
        """Note that the model was replaced by the one that ``other`` has taught.

        Args:
            other: a join of a prefix of the same log.
            position: that of the entry that replaced it.
            through: where the prefix ends.
        """
        teachable = other._teachable()  # noqa: SLF001 - a join of the same log
        taught = {each.position: each.taught for each in teachable if each.taught}

        # Most of what came before is held as it was, and most of what came since is not held.
        differing: dict[str, dict[int, float]] = {}
        for decision in self._teachable():
            held = taught.get(decision.position, {})
            kept = has_reached(through, decision.position)
            if held != (decision.taught if kept else {}):
                differing[decision.position] = held
        in_order = sorted(differing.items(), key=lambda each: log_order(each[0]))
        self._replace(Reset(position, through, dict(in_order)))

    def become(self, other: "Join") -> None:
        """Go on as another join of the same log, which has come as far.

        Args:
            other: of no use afterwards.
        """
        for name in _MEMORY:
            setattr(self, name, getattr(other, name))
        self._older.ruled_by(self.rule_of)
        self._notes.asks(self._oldest)

    def _replace(self, made: Reset) -> None:
        self._take(made)
        self._notes.reset(made)

    def _take(self, made: Reset, first_row: int = 0) -> None:
        """Have each decision hold what the model holds that has replaced the one before.

        Args:
            made: how it was replaced.
            first_row: older decisions before this row are as they are to be.
        """
        for decision in self._teachable():
            held = made.taught.get(decision.position)
            kept = held is None and has_reached(made.through, decision.position)
            if not kept and not 0 <= decision.row < first_row:
                decision.taught = dict(held or {})
                self._keep(decision)

    # Checkpoints

    def state(self) -> JoinState:
        """Return what a checkpoint holds of this join."""
        early = [
            EarlyState(0, until, reward)
            for parked in self._early.values()
            for until, reward in parked.values()
        ]
        activations = [
            EarlyActivation(0, until, event_id)
            for event_id, parked in self._activations.items()
            for until in parked.values()
        ]

        inherited = self._inherited = self._still_inherited()
        oldest = self._oldest()
        fold, skipped, attached, resets = self._notes.of(oldest, self.fold)
        return JoinState(
            "log",
            dict(sorted(self.counts.items())),
            self._remembered(),
            oldest,
            fold,
            skipped,
            attached,
            resets,
            early,
            activations,
            inherited,
        )

    def restore(
        self, state: JoinState, entries: Iterable[Opened], records: Mapping[str, Decision]
    ) -> None:
        """Go on from a state; ``fold`` is to be the version in force there.

        Args:
            state: a checkpoint's.
            entries: the log from the oldest decision that is remembered to the checkpoint.
            records: by position, those of the decisions that are inherited.

        Raises:
            CodecError: the log no longer holds all the decisions that are remembered.
        """
        fold, self.fold = self.fold, state.fold
        deadlines = self._inherit(state.inherited, records)
        self._notes.restore(state)
        self._refold(state, entries)
        self.fold, self.counts, self.signals = fold, Counter(state.counts), {}

        if self._remembered() != tuple(state.remembered):
            raise CodecError(
                f"the log no longer holds the decisions that are remembered, {state.remembered}"
                f" (open, closed), but {self._remembered()}: it holds no decision at some position",
                "position",
            )

        for early in state.early:
            event_id, self._sequence = early.reward.event_id, self._sequence + 1
            until = early.orphan_ms
            self._early.setdefault(event_id, {})[self._sequence] = (until, early.reward)
            deadlines.append((until, self._sequence, "orphan", event_id))
        for activation in state.activations:
            event_id, self._sequence = activation.event_id, self._sequence + 1
            until = activation.orphan_ms
            self._activations.setdefault(event_id, {})[self._sequence] = until
            deadlines.append((until, self._sequence, "activation", event_id))
        self._deadlines.restore(deadlines)

    def _refold(self, state: JoinState, entries: Iterable[Opened]) -> None:
        """Fold the entries from the oldest decision on once more, and teach nothing."""
        inherited = len(self._older)
        skipped = set(state.skipped)
        attached = {each.position: each for each in state.attached}
        resets = {made.position: made for made in state.resets}

        for position, record in entries:
            self._advance(position_ms(position), None)
            if isinstance(record, Opening):
                if position not in skipped:
                    self._reopen(position, record, attached.get(position))
            elif isinstance(record, RewardRecord | ActivationRecord):
                self._repeat(position_ms(position), record, inherited)
            elif isinstance(record, BuildRecord) and fold_version(record.build) != self.fold:
                self._adopt_fold(position, fold_version(record.build), inherited)
            if position in resets:
                self._take(resets[position], inherited)

    def _repeat(self, now_ms: int, record: RewardRecord | ActivationRecord, inherited: int) -> None:
        """Join a reward or an activation once more.

        What has no decision here is parked, or of one that is forgotten.
        """
        decision = self._older.find(record.event_id)
        if decision is None or decision.row < inherited:
            return
        if isinstance(record, RewardRecord):
            self._reward_of(decision, record, now_ms, None)
        elif not decision.forgotten_ms:
            self._activate(decision, now_ms, None)

    def _reopen(self, position: str, opening: Opening, attached: Attached | None) -> None:
        """Remember a decision whose window was opened before."""
        spec, chosen = opening.spec, list(map(action_hash, opening.chosen))
        decision = RememberedDecision(
            position,
            spec,
            self.rule_of(spec),
            None,
            not opening.deferred,
            len(chosen),
            chosen=chosen,
            placed=[(each.slot, action_hash(each.action_id)) for each in opening.placed],
        )
        self._older.add(opening, decision)

        if attached is not None:
            self._attach(decision, attached.rewards, activated=attached.activated)
        if decision.activated:
            self._begin(decision, None)
        self._older.keep(decision)

    # What an earlier build's checkpoint remembered

    def _inherit(
        self, inherited: Inherited | None, records: Mapping[str, Decision]
    ) -> list[Deadline]:
        """Remember what is inherited; return the deadlines of what has no place in the log."""
        self._inherited = inherited
        if inherited is None:
            return []

        states = [*inherited.open, *inherited.correctable]
        for state in sorted(states, key=lambda state: log_order(state.position)):
            record = records.get(state.position)
            if record is None or record.event_id != state.event_id:
                raise CodecError(
                    f"the log holds no decision {state.event_id!r} at {state.position}", "position"
                )
            opening, rule = Opening.of(record), self.rule_of(record.spec)
            decision = RememberedDecision(
                state.position,
                record.spec,
                rule,
                None,
                state.activated,
                record.slots,
                dict(state.values),
                dict.fromkeys(state.seen),
                dict(state.taught),
                state.forgotten_ms,
                state.waiting,
            )
            self._inherited_rows[state.event_id] = self._older.add(opening, decision)

        deadlines: list[Deadline] = []
        for number, closed in enumerate(inherited.closed):
            event_id, forgotten_ms = closed.event_id, closed.forgotten_ms
            self._closed[event_id] = RememberedDecision(
                "", "", self.rule, None, activated=True, slots=0, forgotten_ms=forgotten_ms
            )
            deadlines.append((forgotten_ms, number, "forget", event_id))
            self._inherited_rows[event_id] = -1
        return deadlines

    def _still_inherited(self) -> Inherited | None:
        """Return what is still remembered of what was inherited, as it is now."""
        if self._inherited is None:
            return None

        left = Inherited(self._inherited.through, [], [], [])
        for event_id, row in self._inherited_rows.items():
            decision = self._closed.get(event_id)
            if row >= 0:
                decision = self._older.decision(row) if self._older.is_here(row) else None
            if decision is None or (row < 0 and decision.position):
                continue
            if not decision.slots:
                left.closed.append(ClosedState(event_id, 0, decision.forgotten_ms))
                continue

            states = left.correctable if decision.forgotten_ms else left.open
            states.append(_state_of(event_id, decision))
        left.closed.sort(key=lambda closed: (closed.forgotten_ms, closed.event_id))
        return left if left.open or left.correctable or left.closed else None


def _state_of(event_id: str, decision: RememberedDecision) -> OpenState:
    return OpenState(
        event_id,
        decision.position,
        0,
        decision.activated,
        decision.values,
        list(decision.seen),
        decision.taught,
        decision.forgotten_ms,
        decision.waiting,
    )
