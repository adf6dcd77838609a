"""Runs of plain entries, joined in one loop: nearly all of a log is of one kind.

Plain are encoded decisions for which nothing waits and whose spec teaches when a window closes,
rewards of decisions that are remembered, and ticks; older decisions close and are forgotten in
between. What they leave behind is what ``Join.apply``
of each makes; the loop saves the calls, which take longer than the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandits.log.deadlines import NEVER, Deadline
from bandits.log.join_rule import JoinRule
from bandits.log.records import EncodedDecision, LogEntry, RewardRecord, TickRecord
from bandits.log.remembered_decisions import NOTHING, JoinedDecision, RememberedDecision
from bandits.log.windows import ENCODED_BYTES, Windows, weight_of

_NO_DEADLINE: Deadline = (NEVER, 0, "", "")
_NO_DEADLINES = (_NO_DEADLINE,)
_PLAIN = frozenset([EncodedDecision, RewardRecord, TickRecord])
_FIRST_SLOT: tuple[int, ...] = (0,)


class RunStoppedError(Exception):
    """Raised where an entry of a run cannot be applied; the cause says why.

    ``place``: which one of the entries it is.
    """

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


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

        for place in range(first, end):
            entry = entries[place]
            record, position = entry.record, entry.id
            now_ms = int(position.partition("-")[0])
            if type(record) not in _PLAIN or now_ms >= others_ms:
                end = place
                break

            # A window closes before the entry that closes it is applied.
            if older.next_ms <= now_ms:
                nearest = min(each[0][0] for each in (closes, forgets, _NO_DEADLINES) if each)
                if nearest <= now_ms:
                    end = place
                    break
                self._advance_older(place, now_ms, out)
                while len(causes) < len(out):
                    causes.append(place)
            while now_ms >= due_ms:
                close = closes[0] if closes else _NO_DEADLINE
                forget = forgets[0] if forgets else _NO_DEADLINE
                due_ms = close[0] if close < forget else forget[0]
                if due_ms > now_ms:
                    break
                if forget < close:
                    self._forget(forgets.popleft()[3])
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
                else:
                    slots = _FIRST_SLOT if decision.slots == 1 else tuple(range(decision.slots))
                    rewards = decision.rewards_of(slots)
                    out.append(JoinedDecision(decision.position, chosen, slots, rewards))

                    # For one more window it is known that it was there.
                    del opened[event_id]
                    closed[event_id] = decision
                    decision.record, decision.slots, decision.values = None, 0, NOTHING
                    decision.seen = decision.taught = NOTHING
                    decision.parts = decision.came = None
                    decision.forgotten_ms = due_ms + window_ms
                    ended += 1
                    sequence += 1
                    forgets.append((due_ms + window_ms, sequence, "forget", event_id))
                    if weighs:
                        self._taken_bytes -= weight_of(chosen)
                while len(causes) < len(out):
                    causes.append(place)

            if type(record) is RewardRecord:
                known = opened.get(record.event_id) or closed.get(record.event_id)
                if known is None and older.next_ms < NEVER:
                    known = older.find(record.event_id)
                if known is None:
                    end = place
                    break
                try:
                    self._reward_of(known, record, now_ms, out)
                except Exception as error:
                    raise RunStoppedError(place) from error
                while len(causes) < len(out):
                    causes.append(place)
                continue
            if type(record) is not EncodedDecision:
                continue

            event_id, spec = record.event_id, record.spec
            if spec not in rules:
                rules[spec] = self._plain_rule(spec, window_s) if holds_spec(spec) else None
            rule_now, weight = rules[spec], ENCODED_BYTES + len(record.data)
            if (
                rule_now is None
                or event_id in opened
                or event_id in closed
                or event_id in early
                or event_id in activations
                or (older.next_ms < NEVER and older.find(event_id) is not None)
            ):
                end = place
                break

            opened[event_id] = RememberedDecision(
                position, spec, rule_now, record, not record.deferred, record.slots
            )
            decisions += 1
            sequence += 1
            closes.append((now_ms + window_ms, sequence, "close", event_id))
            due_ms = min(due_ms, now_ms + window_ms)
            if weighs:
                self._taken_bytes += weight
                if self._taken_bytes > most:
                    self._make_room()

        # A count that is nought is no count.
        self._sequence = sequence
        self._deadlines.look_again()
        if decisions:
            self.counts["decisions"] += decisions
        if ended:
            self.counts["closed"] += ended
        return end

    def _advance_older(self, place: int, now_ms: int, out: list[JoinedDecision]) -> None:
        """Close and forget the older decisions that are due by now, before others are.

        Args:
            place: which of the entries makes them due.
            now_ms: its time.
            out: gets what is to be taught, appended.
        """
        older = self._older
        try:
            while (at_ms := older.next_ms) <= now_ms:
                decision = older.pop_due()
                if decision is not None:
                    self._end(decision, at_ms, out)
                    older.keep(decision)
        except Exception as error:
            raise RunStoppedError(place) from error

    def _plain_rule(self, spec: str, window_s: float) -> JoinRule | None:
        """Return the rule of a spec; None: its decisions are not plain."""
        rule = self.rule_of(spec)
        return rule if rule.learn == "at_close" and rule.window_s == window_s else None
