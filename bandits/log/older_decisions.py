"""The older of the remembered decisions: without their records, in some hundred bytes each.

What is kept is what finds a decision again: its position, two hashes of its event_id (128 bits),
and, as long as something can be taught of it, a hash of each action it chose. Rewards that came are
kept of those that have any. Where records are needed they are read from the log.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.kernels.joins import ROW_BITS, enter_rows, remove_rows
from bandits.log.deadlines import NEVER
from bandits.log.encoded_decisions import (
    DECISIONS,
    Decision,
    action_hash,
    choice_of,
    placed_of,
)
from bandits.log.join_rule import JoinRule
from bandits.log.join_state import Identity
from bandits.log.positions import log_order
from bandits.log.records import EncodedDecision, LogEntry, LogRecord, Placed, UnknownRecord
from bandits.log.remembered_decisions import RememberedDecision

SHIFT = 12
ROWS = 1 << SHIFT
"""Rows of a block, which is freed as a whole."""
BITS, _ROW = (1 << 64) - 1, (1 << ROW_BITS) - 1

ACTIVATED, CLOSED, BARE, GONE, DEFAULT, MORE = 1, 2, 4, 8, 16, 32
"""The flags of a row.

It was activated; its window is closed; nothing can be taught of it any more; it is forgotten; the
model holds the default reward of all its slots; there is more in ``_more``.
"""
_ENDED = ACTIVATED | CLOSED | BARE


class Opening(NamedTuple):
    """The part of a decision's record that a join keeps."""

    event_id: str
    spec: str
    catalogue: str
    deferred: bool
    chosen: list[str]
    placed: Sequence[Placed] = ()

    @classmethod
    def of(cls, decision: Decision) -> "Opening":
        """Return what is kept of a record."""
        ids, chosen = choice_of(decision)
        named = decision.event_id, decision.spec, decision.catalogue, decision.deferred
        return cls(*named, [ids[index] for index in chosen], placed_of(decision))


class Closing(NamedTuple):
    """Decisions whose windows close one after the other, and what they have in common.

    ``at_ms``: when each closes, int64[n]. ``slots``: how many each has; 0: it is one, and an
    unusual one, for whoever closes it to end and to ``keep``. ``values``: by place among them, the
    aggregates of those that have rewards.
    """

    at_ms: NDArray[np.int64]
    positions: list[str]
    spec: str
    rule: JoinRule
    rows: range
    slots: int
    values: dict[int, dict[int, float]]


Opened = tuple[str, Opening | LogRecord | UnknownRecord | EncodedDecision]
"""A position, and what a join that goes through the log again wants to know of its entry."""


def opened_of(entries: Iterable[LogEntry]) -> Iterator[Opened]:
    """Yield what is wanted of entries."""
    for entry in entries:
        record = entry.record
        yield entry.id, Opening.of(record) if isinstance(record, DECISIONS) else record


class _More(msgspec.Struct, array_like=True, gc=False):
    """The rest of a row that was rewarded, or whose rewards in the model are no defaults."""

    values: dict[int, float]
    seen: list[Identity]
    taught: dict[int, float]
    waiting: int
    parts: dict[int, dict[str, float]] | None = None
    came: dict[int, dict[str, list[float]]] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_More).decode


class _Block:
    """ROWS rows: each array has an item of every row that was added."""

    __slots__ = ("actions", "ends", "flags", "high", "low", "ms", "named", "seq", "taught", "there")

    def __init__(self) -> None:
        self.low, self.high = array("Q"), array("Q")
        self.ms, self.seq = array("Q"), array("Q")
        self.named, self.flags = array("I"), bytearray()
        # The hashes of all rows' actions, and where those of each row end.
        self.actions, self.ends = array("q"), array("I")
        # Rows that are not forgotten, and those of which something can be taught.
        self.there = self.taught = 0


class _Rows:
    """A queue of rows, each of which is due ``after_ms`` after its time.

    ``first`` is due at ``due_ms``, which is NEVER where there is none.
    """

    __slots__ = ("_begin", "_rows", "after_ms", "closes", "due_ms", "first", "window_ms")

    def __init__(self, window_ms: int, *, closes: bool) -> None:
        self.window_ms, self.closes = window_ms, closes
        self.after_ms = window_ms if closes else 2 * window_ms
        self.first, self.due_ms = 0, NEVER
        self._rows, self._begin = array("Q"), 0

    def __len__(self) -> int:
        return len(self._rows) - self._begin

    def add(self, row: int, ms: int) -> bool:
        """Add a row of the time ``ms``; return whether it is the first."""
        self._rows.append(row)
        if self.due_ms != NEVER:
            return False
        self.first, self.due_ms = row, ms + self.after_ms
        return True

    def extend(self, rows: range, blocks: dict[int, _Block]) -> None:
        """Add rows that follow each other in a block, behind others."""
        first = rows.start
        self.add(first, blocks[first >> SHIFT].ms[first & (ROWS - 1)])
        self._rows.extend(rows[1:])

    def due(self, blocks: dict[int, _Block], now_ms: int) -> range:
        """Return the first rows that are due by now, as far as they follow each other in a block.

        At least the first one is due.
        """
        first, rows, begin = self.first, self._rows, self._begin
        times, offset = blocks[first >> SHIFT].ms, first & (ROWS - 1)
        most = min(len(self), len(times) - offset)
        count = bisect_right(times, now_ms - self.after_ms, offset, offset + most) - offset
        # Rows go upwards: none is left out where the last one is as far as there are rows.
        if rows[begin + count - 1] != first + count - 1:
            count = 1
            while rows[begin + count] == first + count:
                count += 1
        return range(first, first + count)

    def take(self, rows: range, blocks: dict[int, _Block]) -> None:
        """Take the first ones, which ``due`` has returned, or some of these."""
        self._begin += len(rows) - 1
        self.pop(blocks)

    def pop(self, blocks: dict[int, _Block]) -> int:
        """Take the first one."""
        row = self.first
        self._begin += 1
        if self._begin < len(self._rows):
            first = self.first = self._rows[self._begin]
            self.due_ms = blocks[first >> SHIFT].ms[first & (ROWS - 1)] + self.after_ms
        else:
            self.due_ms = NEVER
        if self._begin >= ROWS and 2 * self._begin > len(self._rows):
            del self._rows[: self._begin]
            self._begin = 0
        return row


class OlderDecisions:
    """Decisions in the order of their positions; each has a row, a number that only grows.

    ``next_ms``: when the next of them closes or is forgotten. Results do not depend on which
    decisions are here.
    """

    def __init__(self, rule_of: Callable[[str], JoinRule]) -> None:
        self.next_ms = NEVER
        self._rule_of = rule_of
        self._blocks: dict[int, _Block] = {}
        self._more: dict[int, bytes] = {}
        # Of the few that placed items on their page: slots, and hashes of what stood there.
        self._placed: dict[int, tuple[tuple[int, int], ...]] = {}
        self._count = self._first = self._end = 0

        # By number: spec and catalogue, its rule, and how many rows name it; of how many of them
        # something can be taught.
        self._numbers: dict[tuple[str, str], int] = {}
        self._named: dict[int, tuple[str, str]] = {}
        self._rules: dict[int, JoinRule] = {}
        self._uses: dict[int, int] = {}
        self._taught_of: dict[int, int] = {}
        self._numbered = 0

        # Open addressing: see ``enter_rows``. A hash looks first at the place that is left of it
        # when it is moved down, then up.
        self._table, self._mask = array("Q", bytes(8 * 1024)), 1023
        self._down, self._up = _moves(1024)
        # By whether they close or are forgotten, and by window.
        self._queues: dict[tuple[bool, int], _Rows] = {}
        self._all: list[_Rows] = []

    def __len__(self) -> int:
        return self._count

    def ruled_by(self, rule_of: Callable[[str], JoinRule]) -> None:
        """Ask someone else for the rules of decisions to come."""
        self._rule_of = rule_of

    def add(self, opening: Opening, decision: RememberedDecision) -> int:
        """Add a decision, which is later than all others; return its row.

        Args:
            opening: what is kept of its record.
            decision: what has become of it so far.
        """
        row, self._end = self._end, self._end + 1
        block = self._blocks.get(row >> SHIFT)
        if block is None:
            block = self._blocks[row >> SHIFT] = _Block()

        low, high = _hashes(opening.event_id)
        ms, sequence = log_order(decision.position)
        block.low.append(low)
        block.high.append(high)
        block.ms.append(ms)
        block.seq.append(sequence)
        block.named.append(self._number(opening.spec, opening.catalogue))
        block.flags.append(ACTIVATED if decision.activated else 0)
        block.actions.extend(map(action_hash, opening.chosen))
        block.ends.append(len(block.actions))
        if opening.placed:
            self._placed[row] = tuple(
                (each.slot, action_hash(each.action_id)) for each in opening.placed
            )
        block.there += 1
        block.taught += 1

        self._count += 1
        if 5 * self._count > 3 * self._mask:
            self._grow()
        else:
            self._enter(row, row + 1)
        decision.row = row
        if decision.seen or decision.taught or decision.forgotten_ms:
            self.keep(decision)
        self._remind(row, ms, decision.rule.window_ms, closes=not decision.forgotten_ms)
        return row

    def extend(
        self,
        records: Sequence[Decision],
        decisions: Sequence[RememberedDecision],
        hashes: NDArray[np.int64],
    ) -> None:
        """Add decisions, which are later than all others.

        Args:
            records: those of n decisions.
            decisions: what has become of each so far.
            hashes: of what they chose, slot by slot, one after the other.
        """
        first = slot = 0
        while first < len(records):
            end = self._alike(records, decisions, first)
            if end == first:
                self.add(Opening.of(records[first]), decisions[first])
                slot += records[first].slots
                end += 1
            else:
                alike = decisions[first:end]
                drawn = slot + sum([each.slots for each in alike])
                ids = [each.event_id for each in records[first:end]]
                self._add_alike(records[first], ids, alike, hashes[slot:drawn])
                slot = drawn
            first = end

    def _alike(
        self, records: Sequence[Decision], decisions: Sequence[RememberedDecision], first: int
    ) -> int:
        """Return up to where, from ``first`` on, decisions are open, of one spec and catalogue.

        All of these fit into the block that is being filled.
        """
        spec, catalogue = records[first].spec, records[first].catalogue
        rule = decisions[first].rule
        most = min(len(records), first + ROWS - (self._end & (ROWS - 1)))
        pairs = zip(records[first:most], decisions[first:most], strict=True)
        for end, (record, decision) in enumerate(pairs, first):
            if (
                type(record) is not EncodedDecision
                or record.spec != spec
                or record.catalogue != catalogue
                or record.has_placed
                or decision.forgotten_ms
                or decision.rule is not rule
            ):
                return end
        return most

    def _add_alike(
        self,
        named: Decision,
        event_ids: list[str],
        decisions: Sequence[RememberedDecision],
        hashes: NDArray[np.int64],
    ) -> None:
        """Add decisions of ``_alike`` at once; all have the spec and the catalogue of one."""
        count, begin = len(decisions), self._end
        rows = range(begin, begin + count)
        self._end += count
        block = self._blocks.get(begin >> SHIFT)
        if block is None:
            block = self._blocks[begin >> SHIFT] = _Block()

        # The milliseconds of each, and its number among those of that millisecond.
        parts = array("Q", map(int, "-".join([each.position for each in decisions]).split("-")))
        number = self._number(named.spec, named.catalogue, count)
        block.low.frombytes(array("q", map(hash, event_ids)).tobytes())
        high = map(hash, [f"{event_id}\0" for event_id in event_ids])
        block.high.frombytes(array("q", high).tobytes())
        block.ms.extend(parts[::2])
        block.seq.extend(parts[1::2])
        block.named.extend([number] * count)
        block.flags.extend([ACTIVATED if each.activated else 0 for each in decisions])
        ends = len(block.actions) + np.cumsum([each.slots for each in decisions])
        block.actions.frombytes(hashes.tobytes())
        block.ends.frombytes(ends.astype(np.uint32).tobytes())
        block.there += count
        block.taught += count

        self._count += count
        if 5 * self._count > 3 * self._mask:
            self._grow()
        else:
            self._enter(begin, begin + count)
        for row, decision in zip(rows, decisions, strict=True):
            decision.row = row
            if decision.seen or decision.taught:
                self.keep(decision)
        self._queue(decisions[0].rule.window_ms, closes=True).extend(rows, self._blocks)
        self._set_next()

    def find(self, event_id: str) -> RememberedDecision | None:
        """Return the decision of a name, if one is here; ``keep`` it when it has been changed."""
        row = self._row_of(event_id)
        return None if row < 0 else self.decision(row)

    def holds(self, event_id: str) -> bool:
        """Return whether a decision of this name is here."""
        return self._count > 0 and self._row_of(event_id) >= 0

    def _row_of(self, event_id: str) -> int:
        """Return the row of a name, -1 if it has none."""
        table, mask = self._table, self._mask
        low = hash(event_id) & BITS
        highest, at = low >> ROW_BITS, low >> self._down << self._up
        while found := table[at]:
            if found >> ROW_BITS == highest:
                row = (found & _ROW) - 1
                block, offset = self._blocks[row >> SHIFT], row & (ROWS - 1)
                if block.low[offset] == low and block.high[offset] == _high(event_id):
                    return row
            at = (at + 1) & mask
        return -1

    def decision(self, row: int) -> RememberedDecision:
        """Return the decision of a row."""
        block, offset = self._blocks[row >> SHIFT], row & (ROWS - 1)
        flags, number, ms = block.flags[offset], block.named[offset], block.ms[offset]
        spec, rule = self._named[number][0], self._rules[number]
        position, activated = f"{ms}-{block.seq[offset]}", bool(flags & ACTIVATED)
        decision = RememberedDecision(position, spec, rule, None, activated, 0, row=row)
        if flags & CLOSED:
            decision.forgotten_ms = ms + 2 * rule.window_ms
        if flags & BARE:
            return decision

        begin = block.ends[offset - 1] if offset else 0
        decision.chosen = block.actions[begin : block.ends[offset]]
        decision.slots = len(decision.chosen)
        decision.placed = self._placed.get(row, ())
        if flags & MORE:
            more = _decode(self._more[row])
            decision.values, decision.taught = more.values, more.taught
            decision.seen, decision.waiting = dict.fromkeys(more.seen), more.waiting
            decision.parts, decision.came = more.parts, more.came
        elif flags & DEFAULT:
            decision.taught = dict.fromkeys(range(decision.slots), rule.default_reward)
        return decision

    def keep(self, decision: RememberedDecision) -> None:
        """Keep what has become of a decision that is here."""
        row, slots = decision.row, decision.slots
        block, offset = self._blocks[row >> SHIFT], row & (ROWS - 1)
        before = block.flags[offset]
        flags = before & BARE
        flags |= ACTIVATED if decision.activated else 0
        flags |= CLOSED if decision.forgotten_ms else 0

        taught, default = decision.taught, decision.rule.default_reward
        if decision.seen:
            flags |= MORE
        elif taught:
            plain = len(taught) == slots and all(each == default for each in taught.values())
            flags |= DEFAULT if plain else MORE
        if flags & MORE:
            self._more[row] = _encode(
                _More(
                    decision.values,
                    list(decision.seen),
                    taught,
                    decision.waiting,
                    decision.parts,
                    decision.came,
                )
            )
        elif before & MORE:
            del self._more[row]

        # A page on which all is placed has none to teach, and is still to know its rewards.
        known = decision.forgotten_ms or row not in self._placed
        if not slots and known and not flags & BARE:
            flags |= BARE
            self._placed.pop(row, None)
            block.taught -= 1
            self._taught_of[block.named[offset]] -= 1
            if not block.taught and len(block.flags) == ROWS:
                block.actions = array("q")
        block.flags[offset] = flags

    def pop_due(self) -> RememberedDecision | None:
        """Return the next decision to close, or forget one; see ``next_ms``."""
        queue = self._all[0]
        for each in self._all:
            if (each.due_ms, each.first) < (queue.due_ms, queue.first):
                queue = each

        row = queue.pop(self._blocks)
        if queue.closes:
            ms = self._blocks[row >> SHIFT].ms[row & (ROWS - 1)]
            self._remind(row, ms, queue.window_ms, closes=False)
        self._set_next()
        if queue.closes:
            return self.decision(row)
        self._forget(row)
        return None

    def closing_alone(self) -> "_Rows | None":
        """Return the queue of what closes, where all windows are of one length; else None."""
        found = [queue for queue in self._all if queue.closes and queue.due_ms < NEVER]
        return found[0] if len(found) == 1 else None

    def close_due(self, queue: _Rows, now_ms: int) -> Iterator[Closing]:
        """Yield the decisions of a queue that are due to close, in order.

        Of those that were activated, have taught nothing and are corrected by no reward, nothing
        can be taught any more once they were yielded.

        Args:
            queue: that of ``closing_alone``.
            now_ms: all that are due by then.
        """
        blocks, window_ms = self._blocks, queue.window_ms
        forgets = self._queue(window_ms, closes=False)
        while queue.due_ms <= now_ms:
            due = queue.due(blocks, now_ms)
            block = blocks[due.start >> SHIFT]
            while due:
                count, values = self._usual(block, due)
                rows = due[: max(1, count)]
                due = due[len(rows) :]
                queue.take(rows, blocks)
                forgets.extend(rows, blocks)
                slots = self._end_usual(block, rows, values) if count else 0
                yield self._closing(block, rows, window_ms, slots, values)
        self._set_next()

    def _usual(self, block: _Block, rows: range) -> tuple[int, dict[int, dict[int, float]]]:
        """Return how many rows from the first on end without another look, and are alike.

        Also, by place among them, the aggregates of those that have rewards.
        """
        begin, end = rows.start & (ROWS - 1), (rows.start & (ROWS - 1)) + len(rows)
        number, slots = block.named[begin], self._slots(block, begin)
        if not slots or self._rules[number].late != "ignore":
            return 0, {}

        flags = np.frombuffer(block.flags[begin:end], np.uint8)
        ends = np.frombuffer(block.ends[begin:end], np.uint32)
        differs = flags & ~np.uint8(MORE) != ACTIVATED
        differs |= np.frombuffer(block.named[begin:end], np.uint32) != number
        differs[1:] |= np.diff(ends) != slots
        if self._placed:
            differs |= [row in self._placed for row in rows]
        count = int(differs.argmax()) if differs.any() else len(rows)

        values: dict[int, dict[int, float]] = {}
        for place in np.flatnonzero(flags[:count] & MORE).tolist():
            more = _decode(self._more[rows[place]])
            if more.taught or more.waiting:
                return place, values
            values[place] = more.values
        return count, values

    def _end_usual(self, block: _Block, rows: range, values: dict[int, dict[int, float]]) -> int:
        """Note that of rows of ``_usual`` nothing can be taught any more; return their slots."""
        begin, count = rows.start & (ROWS - 1), len(rows)
        number, slots = block.named[begin], self._slots(block, begin)
        block.flags[begin : begin + count] = bytes([_ENDED]) * count
        for place in values:
            del self._more[rows[place]]

        self._taught_of[number] -= count
        block.taught -= count
        if not block.taught and len(block.flags) == ROWS:
            block.actions = array("q")
        return slots

    def _closing(
        self,
        block: _Block,
        rows: range,
        window_ms: int,
        slots: int,
        values: dict[int, dict[int, float]],
    ) -> Closing:
        """Return rows that are closed; see ``close_due``."""
        begin, end = rows.start & (ROWS - 1), (rows.start & (ROWS - 1)) + len(rows)
        times, number = block.ms[begin:end], block.named[begin]
        positions = [f"{ms}-{seq}" for ms, seq in zip(times, block.seq[begin:end], strict=True)]
        at_ms = np.frombuffer(times, np.int64) + window_ms
        return Closing(
            at_ms, positions, self._named[number][0], self._rules[number], rows, slots, values
        )

    def _slots(self, block: _Block, offset: int) -> int:
        """Return how many slots a row has."""
        return block.ends[offset] - (block.ends[offset - 1] if offset else 0)

    def forget_due(self, now_ms: int) -> None:
        """Forget what is due to be forgotten by now."""
        for queue in self._all:
            while not queue.closes and queue.due_ms <= now_ms:
                rows = queue.due(self._blocks, now_ms)
                queue.take(rows, self._blocks)
                self._forget_rows(rows)
        self._set_next()

    def _forget_rows(self, rows: range) -> None:
        """Forget rows that follow each other in a block."""
        block, begin = self._blocks[rows.start >> SHIFT], rows.start & (ROWS - 1)
        number, count, end = block.named[begin], len(rows), begin + len(rows)
        alike = block.named[begin:end].count(number) == count
        if not alike or block.flags[begin:end].count(_ENDED) < count:
            for row in rows:
                self._forget(row)
            return

        self._remove(block, rows)
        block.flags[begin:end] = bytes([GONE | BARE]) * count
        self._gone(block, rows, number)

    def first(self) -> str | None:
        """Return the position of the oldest decision."""
        while self._first < self._end and self._is_gone(self._first):
            self._first += 1
        return self._position(self._first) if self._first < self._end else None

    def rows(self) -> Iterator[int]:
        """Yield the rows that are not forgotten, in order."""
        for number, block in self._blocks.items():
            for offset, flags in enumerate(block.flags):
                if not flags & GONE:
                    yield (number << SHIFT) + offset

    def teachable(self) -> Iterator[RememberedDecision]:
        """Yield the decisions of which something can be taught, in order."""
        for number, block in self._blocks.items():
            for offset, flags in enumerate(block.flags):
                if not flags & BARE:
                    yield self.decision((number << SHIFT) + offset)

    def open(self) -> Iterator[RememberedDecision]:
        """Yield the open ones, in order."""
        for row in self.rows():
            if not self._blocks[row >> SHIFT].flags[row & (ROWS - 1)] & CLOSED:
                yield self.decision(row)

    def count_open(self) -> int:
        """Return how many are open."""
        return sum(len(queue) for (closes, _), queue in self._queues.items() if closes)

    def is_here(self, row: int) -> bool:
        """Return whether a row is not forgotten."""
        return not self._is_gone(row)

    def are_corrected(self) -> bool:
        """Return whether a reward may correct what one of them has taught."""
        rules = self._rules.values()
        return any(each.learn == "as_it_arrives" or each.late == "correct" for each in rules)

    def names(self) -> set[tuple[str, str]]:
        """Return the spec and catalogue of every decision."""
        return set(self._numbers)

    def catalogues(self) -> set[str]:
        """Return the catalogues of the decisions of which something can be taught."""
        return {self._named[number][1] for number, count in self._taught_of.items() if count}

    # Rows

    def _is_gone(self, row: int) -> bool:
        block = self._blocks.get(row >> SHIFT)
        return block is None or bool(block.flags[row & (ROWS - 1)] & GONE)

    def _position(self, row: int) -> str:
        block, offset = self._blocks[row >> SHIFT], row & (ROWS - 1)
        return f"{block.ms[offset]}-{block.seq[offset]}"

    def _number(self, spec: str, catalogue: str, rows: int = 1) -> int:
        """Return the number of some rows' spec and catalogue."""
        name = spec, catalogue
        number = self._numbers.get(name)
        if number is None:
            number = self._numbered = self._numbered + 1
            self._numbers[name], self._named[number] = number, name
            self._rules[number], self._uses[number] = self._rule_of(spec), 0
            self._taught_of[number] = 0
        self._uses[number] += rows
        self._taught_of[number] += rows
        return number

    def _forget(self, row: int) -> None:
        block, offset = self._blocks[row >> SHIFT], row & (ROWS - 1)
        self._remove(block, range(row, row + 1))
        if block.flags[offset] & MORE:
            del self._more[row]
        self._placed.pop(row, None)
        number = block.named[offset]
        if not block.flags[offset] & BARE:
            block.taught -= 1
            self._taught_of[number] -= 1
        block.flags[offset] = GONE | BARE
        self._gone(block, range(row, row + 1), number)

    def _gone(self, block: _Block, rows: range, number: int) -> None:
        """Count rows of a block, which all name one spec and catalogue, no longer."""
        block.there -= len(rows)
        self._count -= len(rows)
        if not block.there and len(block.flags) == ROWS:
            del self._blocks[rows.start >> SHIFT]

        self._uses[number] -= len(rows)
        if not self._uses[number]:
            del self._uses[number], self._taught_of[number], self._rules[number]
            del self._numbers[self._named.pop(number)]

    # Deadlines

    def _remind(self, row: int, ms: int, window_ms: int, *, closes: bool) -> None:
        if self._queue(window_ms, closes=closes).add(row, ms):
            self._set_next()

    def _queue(self, window_ms: int, *, closes: bool) -> _Rows:
        queue = self._queues.get((closes, window_ms))
        if queue is None:
            queue = self._queues[closes, window_ms] = _Rows(window_ms, closes=closes)
            self._all.append(queue)
        return queue

    def _set_next(self) -> None:
        self.next_ms = min([queue.due_ms for queue in self._all])

    # Hashes

    def _enter(self, first: int, end: int) -> None:
        """Enter rows of a block in the table."""
        block, begin = self._blocks[first >> SHIFT], first & (ROWS - 1)
        lows = np.frombuffer(block.low[begin : begin + end - first], np.uint64)
        enter_rows(np.frombuffer(self._table, np.uint64), lows, first)

    def _remove(self, block: _Block, rows: range) -> None:
        """Remove rows of a block from the table."""
        begin = rows.start & (ROWS - 1)
        lows = np.frombuffer(block.low[begin : begin + len(rows)], np.uint64)
        remove_rows(np.frombuffer(self._table, np.uint64), lows, rows.start)

    def _grow(self) -> None:
        """Make room for twice as many, or more, all at once."""
        size = 2 * (self._mask + 1)
        while 5 * self._count > 3 * (size - 1):
            size *= 2
        self._mask = size - 1
        self._down, self._up = _moves(size)

        # In the order of where they look first, each takes the first place behind the one before.
        rows = np.fromiter(self.rows(), np.uint64, self._count)
        lows = np.concatenate(
            [
                np.frombuffer(block.low, np.uint64)[
                    (np.frombuffer(block.flags, np.uint8) & GONE) == 0
                ]
                for block in self._blocks.values()
            ]
        )
        own = (lows >> np.uint64(self._down) << np.uint64(self._up)).astype(np.int64)
        order = np.argsort(own, kind="stable")
        steps = np.arange(len(order))
        places = np.maximum.accumulate(own[order] - steps) + steps

        table = np.zeros(size, np.uint64)
        fits, entries = places < size, lows & np.uint64(BITS ^ _ROW) | rows + np.uint64(1)
        table[places[fits]] = entries[order[fits]]
        self._table = array("Q", table.tobytes())
        for row in rows[order[~fits]].tolist():
            self._enter(row, row + 1)


def _moves(size: int) -> tuple[int, int]:
    """Return by how many bits a hash is moved down, then up, to the first of ``size`` places."""
    bits = size.bit_length() - 1
    return 64 - min(bits, 64 - ROW_BITS), max(0, bits - (64 - ROW_BITS))


def _hashes(event_id: str) -> tuple[int, int]:
    """Return 128 bits of a name: two keyed hashes, whose key is this process's own."""
    return hash(event_id) & BITS, _high(event_id)


def _high(event_id: str) -> int:
    return hash(f"{event_id}\0") & BITS
