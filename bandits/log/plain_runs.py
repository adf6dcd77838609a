"""Runs of plain entries, joined in one loop: nearly all of a log is of one kind.

Plain are encoded decisions for which nothing waits and whose spec teaches when a window closes,
rewards of decisions that are remembered, and ticks; older decisions close and are forgotten in
between. What they leave behind is what ``Join.apply``
of each makes; the loop saves the calls, which take longer than the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from msgspec import UNSET

from bandits.log.deadlines import NEVER, Deadline
from bandits.log.encoded_decisions import Decision
from bandits.log.join_rule import JoinRule
from bandits.log.older_decisions import Closing
from bandits.log.records import EncodedDecision, LogEntry, RewardRecord, TickRecord
from bandits.log.remembered_decisions import NOTHING, JoinedDecision, RememberedDecision
from bandits.log.windows import ENCODED_BYTES, Windows, weight_of

_NO_DEADLINE: Deadline = (NEVER, 0, "", "")
_NO_DEADLINES = (_NO_DEADLINE,)
_PLAIN = frozenset([EncodedDecision, RewardRecord, TickRecord])
_FIRST_SLOT: tuple[int, ...] = (0,)
_NO_REWARDS: tuple[float, ...] = ()
_UNREWARDED = (NOTHING, NOTHING, NOTHING)
"""The fields of a decision that depend on rewards, before it has any."""


class RunStoppedError(Exception):
    """Raised where an entry of a run cannot be applied; the cause says why.

    ``place``: which one of the entries it is.
    """

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class _OlderClosing:
    """Closes and forgets older decisions in a run, many at a time.

    ``times``: of the run's entries so far.

    Args:
        windows: the join.
        first: the place of the run's first entry.
        out: gets what is to be taught, appended.
        causes: gets, for each of that, the place of the entry that closed its window.
    """

    def __init__(
        self, windows: "PlainRuns", first: int, out: list[JoinedDecision], causes: list[int]
    ) -> None:
        self.times: list[int] = []
        self._windows, self._first, self._out, self._causes = windows, first, out, causes
        self._at = 0

    def until(self, now_ms: int) -> None:
        """Close and forget what is due by now, in the order in which it is.

        Raises:
            RunStoppedError: what an entry makes due cannot be done.
        """
        try:
            self._until(now_ms)
        except Exception as error:
            raise RunStoppedError(self._first + self._at) from error

    def _until(self, now_ms: int) -> None:
        windows, out, causes, times = self._windows, self._out, self._causes, self.times
        older = windows.older
        if (queue := older.closing_alone()) is None:
            while (at_ms := older.next_ms) <= now_ms:
                self._reach(at_ms)
                windows.pop_older(at_ms, out)
                causes.extend([self._first + self._at] * (len(out) - len(causes)))
            return

        ended, reached = 0, np.array(times)
        for closing in older.close_due(queue, now_ms):
            if closing.slots:
                self._teach(closing, np.searchsorted(reached, closing.at_ms).tolist())
                ended += len(closing.positions)
                continue
            at_ms = int(closing.at_ms[0])
            self._reach(at_ms)
            windows.end_older(older.decision(closing.rows.start), at_ms, out)
            causes.extend([self._first + self._at] * (len(out) - len(causes)))
        if ended:
            windows.counts["closed"] += ended
        older.forget_due(now_ms)

    def _reach(self, at_ms: int) -> None:
        while self.times[self._at] < at_ms:
            self._at += 1

    def _teach(self, closing: Closing, places: list[int]) -> None:
        """Teach decisions that close.

        Args:
            closing: usual ones.
            places: of the run's entries that close each.
        """
        windows, positions = self._windows, closing.positions
        spec, rule = closing.spec, closing.rule
        found: Sequence[Decision] | None = ()
        records: list[Decision] = []
        while len(records) < len(positions):
            if found is not None:
                found = windows.records_at_hand(positions[len(records) :], rule, spec)
            if found:
                records.extend(found)
            else:
                self._at = places[len(records)]
                records.append(windows.closing_record(positions[len(records)], rule, spec))
        self._at = places[-1]

        slots = tuple(range(closing.slots))
        rewards = [_rewards_of(closing, slots, NOTHING)] * len(positions)
        for place, values in closing.values.items():
            rewards[place] = _rewards_of(closing, slots, values)
        self._out.extend(map(JoinedDecision, positions, records, repeat(slots), rewards))
        self._causes.extend([self._first + place for place in places])


def _rewards_of(
    closing: Closing, slots: tuple[int, ...], values: dict[int, float]
) -> tuple[float, ...]:
    """Return what a decision that closes is to be taught, of the aggregates of its rewards."""
    spec, rule, count = closing.spec, closing.rule, closing.slots
    decision = RememberedDecision("", spec, rule, None, activated=True, slots=count, values=values)
    return decision.rewards_of(slots)


@dataclass(slots=True, eq=False)
class PlainRuns(Windows):
    """Windows that take plain entries many at a time."""

    def apply_run(  # noqa: C901, PLR0912, PLR0915 - one loop: calls for its steps are what it saves
        self,
        entries: Sequence[LogEntry],
        first: int,
        holds_spec: Callable[[str], bool],
        out: list[JoinedDecision],
        causes: list[int],
    ) -> int:
        """Apply entries from ``first`` on as long as they are plain; return where they end.

        Args:
            entries: a part of the log.
            first: the place of the first one to apply.
            holds_spec: whether the rule of a spec is at hand.
            out: gets what is to be taught, appended.
            causes: gets, for each of that, the place of the entry that closed its window.

        Raises:
            RunStoppedError: what an entry makes due cannot be done; this join is of no further use.
        """
        window_s, window_ms = self.rule.window_s, self.rule.window_ms
        closes, forgets, others_ms = self._deadlines.of_window(window_s)
        opened, closed, early, older = self._open, self._closed, self._early, self._older
        activations, weighs, most = self._activations, self.behind is not None, self.recent_bytes
        rules: dict[str, JoinRule | None] = {}
        sequence, decisions, ended, due_ms, end = self._sequence, 0, 0, 0, len(entries)
        closing = _OlderClosing(self, first, out, causes)
        times = closing.times

        for place in range(first, end):
            entry = entries[place]
            record, position = entry.record, entry.id
            now_ms = int(position.partition("-")[0])
            if type(record) not in _PLAIN or now_ms >= others_ms:
                end = place
                break

            # A window closes before the entry that closes it is applied. Those of older decisions
            # may wait as long as nobody asks for one of them, and nothing else is taught.
            if now_ms >= due_ms and older.next_ms <= now_ms:
                due_ms = min(each[0][0] for each in (closes, forgets, _NO_DEADLINES) if each)
                if due_ms <= now_ms:
                    end = place
                    break
            times.append(now_ms)
            while now_ms >= due_ms:
                close = closes[0] if closes else _NO_DEADLINE
                forget = forgets[0] if forgets else _NO_DEADLINE
                due_ms = close[0] if close < forget else forget[0]
                if due_ms > now_ms:
                    break
                if forget < close:
                    gone = closed.pop(forgets.popleft()[3]).record
                    if weighs and gone is not None:
                        self._taken_bytes -= weight_of(gone)
                    continue

                event_id = closes.popleft()[3]
                decision = opened[event_id]
                chosen, rule = decision.record, decision.rule
                if (
                    chosen is None
                    or not decision.activated
                    or decision.taught
                    or rule.late != "ignore"
                ):
                    self._sequence = sequence
                    self._close(event_id, due_ms, out)
                    sequence = self._sequence
                    causes.extend([place] * (len(out) - len(causes)))
                else:
                    slots, rewards = _FIRST_SLOT, _NO_REWARDS
                    if decision.slots == 1 and rule.page_reward is UNSET:
                        rewards = (decision.values.get(0, rule.default_reward),)
                    else:
                        slots = tuple(range(decision.slots))
                        rewards = decision.rewards_of(slots)
                    out.append(JoinedDecision(decision.position, chosen, slots, rewards))
                    causes.append(place)

                    # For one more window it is known that it was there.
                    del opened[event_id]
                    closed[event_id] = decision
                    decision.record, decision.slots = None, 0
                    if decision.seen is not NOTHING:
                        decision.values = decision.seen = decision.taught = NOTHING
                        decision.parts = decision.came = None
                    decision.forgotten_ms = due_ms + window_ms
                    ended += 1
                    sequence += 1
                    forgets.append((due_ms + window_ms, sequence, "forget", event_id))
                    if weighs:
                        self._taken_bytes -= weight_of(chosen)

            if type(record) is RewardRecord:
                known = opened.get(record.event_id) or closed.get(record.event_id)
                if known is None and older.next_ms < NEVER:
                    known = older.find(record.event_id)
                if known is not None and older.next_ms <= now_ms:
                    rule = known.rule
                    if known.row >= 0 or rule.late != "ignore" or rule.learn != "at_close":
                        closing.until(now_ms)
                        known = older.find(record.event_id) if known.row >= 0 else known
                if known is None:
                    end = place
                    break
                try:
                    self._reward_of(known, record, now_ms, out)
                except Exception as error:
                    raise RunStoppedError(place) from error
                causes.extend([place] * (len(out) - len(causes)))
                continue
            if type(record) is not EncodedDecision:
                continue

            event_id, spec = record.event_id, record.spec
            if spec not in rules:
                rules[spec] = self._plain_rule(spec, window_s) if holds_spec(spec) else None
            rule_now, weight = rules[spec], ENCODED_BYTES + len(record.data)
            # A name may be free again by now.
            is_older = older.next_ms < NEVER and older.holds(event_id)
            if is_older and older.next_ms <= now_ms:
                closing.until(now_ms)
                is_older = older.holds(event_id)
            if (
                rule_now is None
                or event_id in opened
                or event_id in closed
                or event_id in early
                or event_id in activations
                or is_older
            ):
                end = place
                break

            is_activated = not record.deferred
            opened[event_id] = RememberedDecision(
                position, spec, rule_now, record, is_activated, record.slots, *_UNREWARDED
            )
            decisions += 1
            sequence += 1
            closes.append((now_ms + window_ms, sequence, "close", event_id))
            if now_ms + window_ms < due_ms:  # noqa: PLR1730 - a call costs more
                due_ms = now_ms + window_ms
            if weighs:
                self._taken_bytes += weight
                if self._taken_bytes > most:
                    self._make_room()

        if end > first and older.next_ms <= times[end - first - 1]:
            closing.until(times[end - first - 1])

        # A count that is nought is no count.
        self._sequence = sequence
        self._deadlines.look_again()
        if decisions:
            self.counts["decisions"] += decisions
        if ended:
            self.counts["closed"] += ended
        return end

    def _plain_rule(self, spec: str, window_s: float) -> JoinRule | None:
        """Return the rule of a spec; None: its decisions are not plain."""
        rule = self.rule_of(spec)
        return rule if rule.learn == "at_close" and rule.window_s == window_s else None
