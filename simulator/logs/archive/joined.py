"""An archive's decisions joined with their rewards, without decoding a record.

Of the entries only light columns are read, a span at a time. What a span leaves open goes on into
the next, so that in memory are the entries of the windows, not those of the piece. A span is as
long as what goes on into it, or longer, so that on average an entry is looked at twice at most,
however long the windows are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import BanditloopError
from bandits.kernels import joins
from bandits.log.positions import START, is_after
from bandits.types import Float64
from policies.archive.archive import ArchiveReader
from policies.archive.row_groups import RowGroup
from simulator.logs.archive.entries import (
    UNKNOWN_ACTION,
    Int32,
    Int64,
    JoinEntries,
    join_entries_of,
    offsets_of,
)
from simulator.logs.archive.features import coded
from simulator.logs.archive.light import EntryReader, Ids, PieceBounds
from simulator.logs.archive.settled import (
    EVERYTHING,
    NOTHING_SETTLED,
    Settled,
    keys_of,
    numbered_texts,
)
from simulator.logs.archive.signals import WeighedSignals
from simulator.logs.rows import NO_WAITING, Waiting

SPAN_ENTRIES = 1 << 17
"""Entries that are joined at once, at least, but for the first."""
READ_ENTRIES = 1 << 14
"""Entries that are looked at together, or a row group more."""
CHOSEN = ["id", "chosen", "action_ids"]
"""The columns that say what was chosen, read only where a reward names an action."""


class _Span(NamedTuple):
    """Entries of a piece that were read together: the first one's number, and past which id."""

    first: int
    after: str


class ArchiveJoin:
    """Joins the decisions of a piece; see Settled.

    ``refuse`` is told the position and the error of each entry that is no valid row. ``waiting``
    are, once all is read, the decisions whose windows the log does not close.
    """

    def __init__(
        self,
        reader: ArchiveReader,
        piece: PieceBounds,
        refuse: Callable[[str, BanditloopError], None],
    ) -> None:
        self.waiting, self.refuse = NO_WAITING, refuse
        self._reader, self._start, self._through = reader, piece.start, piece.through
        self._log = EntryReader(reader, piece, refuse)
        self._carried: JoinEntries | None = None
        self._spans: list[_Span] = []

    @property
    def came(self) -> Mapping[str, tuple[int, float]]:
        """By signal, of the piece's rewards that were read: how many, and the sum of values."""
        counts, totals = self._log.came.tolist()
        named = zip(self._log.signals, counts, totals, strict=False)
        return {name: (int(count), total) for name, count, total in named if count}

    def spans(self) -> Iterator[Settled]:
        """Yield what is settled, span by span; no entry is left before the last one's frontier."""
        log, at, size = self._log, self._start, 0

        # Whoever looks at the first rows only does not wait long.
        enough = min(READ_ENTRIES, SPAN_ENTRIES)
        fresh: list[JoinEntries] = []

        groups, before = self._reader.columns(log.light, at), at
        for batch, last in _together(groups, self._through):
            if not fresh:
                self._spans.append(_Span(log.next, at))
            fresh.append(log.read(batch, self._ids_of(batch, before, last)))
            size, before = size + len(fresh[-1]), last

            # Past the piece's end, entries are read only to close the windows of its decisions.
            ended = log.end < EVERYTHING and log.now >= log.last_close
            carried = 0 if self._carried is None else len(self._carried)
            if ended or size >= max(enough, carried):
                at = last
                yield self._join(fresh, at)
                fresh, size, enough = [], 0, SPAN_ENTRIES
            if ended:
                return

        yield self._join(fresh, None)

    def _ids_of(self, batch: pa.RecordBatch, after: str, last: str) -> Ids:
        """Return what gives the positions of a batch, which lie past one position up to another."""

        @cache
        def ids() -> pa.StringArray:
            if "id" in batch.schema.names:
                return batch["id"]
            groups = self._reader.columns(["id"], after, last)
            return pa.concat_arrays([group.batch["id"] for group in groups])

        return ids

    def _join(self, fresh: list[JoinEntries], through: str | None) -> Settled:
        """Join the entries up to ``through``, or to the log's end, and keep what may still matter.

        What is kept gives the same when it is joined again.
        """
        if self._carried is not None:
            self._carried.key = keys_of(self._carried.event)
        parts = fresh if self._carried is None else [self._carried, *fresh]
        if not parts:
            return NOTHING_SETTLED._replace(frontier=EVERYTHING)
        entries, self._carried, log = join_entries_of(parts), None, self._log
        window = log.windows()[entries.rule]
        state, owner, rewards = self._run(entries, window, through)

        # A window closes before the first entry at or past its end: that is one after its decision.
        closes, counted = entries.ms + window, state > joins.UNCOUNTED
        closed = (closes <= log.now) & ((window > 0) | (entries.sequence < log.next - 1))
        mine = counted & (entries.sequence >= 0) & (entries.sequence < log.end)
        drawn = (state == joins.ACTIVE) & (entries.slots > 0)
        fresh_rows = np.flatnonzero(mine & closed & ~entries.done & drawn)

        still = mine & ~closed
        if through is None:
            ends = closes[still]
            if len(ends):
                self.waiting = Waiting(len(ends), int(ends.min()), int(ends.max()))
            return self._settled(entries, fresh_rows, rewards, EVERYTHING)
        frontier = int(entries.sequence[still].min(initial=min(log.next, log.end)))

        # A decision is remembered for two windows, its rewards while they can be added to.
        waits = (owner == joins.WAITING) & (closes > log.now)
        waits &= (entries.kind == joins.REWARD) | (entries.era == log.era)
        joined = (owner >= 0) & (entries.kind == joins.REWARD) & ~closed[np.maximum(owner, 0)]
        remembered = counted & (~closed | (closes + window > log.now))
        settled = self._settled(entries, fresh_rows, rewards, frontier)

        entries.deferred &= state != joins.ACTIVE
        entries.done |= counted & closed
        # What is open for days is many: a hash is made again sooner than it is kept.
        self._carried = entries.take(waits | joined | remembered)
        self._carried.key = np.zeros(0, np.uint64)
        return settled

    def _run(
        self, entries: JoinEntries, window: Int64, through: str | None
    ) -> tuple[NDArray[np.int8], Int32, Float64]:
        """Return each decision's state, each other's owner, and the reward of each slot."""
        events, count = numbered_texts(entries.event, entries.key)
        identity, identities = _identities(events, entries.reward)
        self._find_chosen(entries, events, through)

        n, weighed = len(entries), WeighedSignals(self._log.rules, self._log.signals)
        shape = len(entries.chosen), len(weighed.names)
        values, has_value = np.zeros(shape), np.zeros(shape, np.bool_)
        state, owner, cell = np.zeros(n, np.int8), np.zeros(n, np.int32), np.zeros(n, np.int64)
        joins.join_entries(
            entries.kind,
            entries.ms,
            events,
            window,
            entries.era,
            entries.rule,
            weighed.aggregations,
            weighed.windows,
            entries.deferred,
            entries.value,
            weighed.columns[entries.signal],
            identity,
            entries.slot.astype(np.int64),
            entries.action,
            entries.begins,
            entries.chosen,
            entries.page_slots,
            np.empty(count, np.int32),
            np.empty(count, np.int32),
            np.empty(n, np.int32),
            np.empty(identities, np.int32),
            values,
            has_value,
            np.zeros(shape, np.bool_),
            state,
            owner,
            cell,
        )

        rule = np.repeat(entries.rule, entries.slots)
        weighed.settle(values, rule, cell, entries.value)
        return state, owner, weighed.rewards(rule, values, has_value)

    def _settled(
        self, entries: JoinEntries, rows: NDArray[np.intp], rewards: Float64, frontier: int
    ) -> Settled:
        return Settled(
            entries.sequence, entries.ms, entries.key, entries.begins, rewards, frontier
        ).take(rows)

    def _find_chosen(self, entries: JoinEntries, events: Int32, through: str | None) -> None:
        """Look up what was chosen in decisions that have rewards which name an action."""
        named = np.zeros(int(events.max(initial=-1)) + 1, np.bool_)
        named[events[entries.action >= 0]] = True
        begins = entries.begins
        wanted = np.flatnonzero(entries.decisions & (entries.slots > 0) & named[events])
        wanted = wanted[entries.chosen[begins[wanted]] == UNKNOWN_ACTION]
        if not len(wanted):
            return

        # All of a span are looked up at once, so that it is read for this only once.
        firsts = np.array([span.first for span in self._spans])
        spans = np.searchsorted(firsts, entries.sequence, side="right") - 1
        for number in np.unique(spans[wanted]).tolist():
            rows = np.flatnonzero(entries.decisions & (spans == number))
            last = self._spans[number + 1].after if number + 1 < len(self._spans) else through
            self._read_chosen(self._spans[number], last, entries, rows)

    def _read_chosen(
        self, span: _Span, last: str | None, entries: JoinEntries, rows: NDArray[np.intp]
    ) -> None:
        """Look up what was chosen in a span's decisions: ``rows`` of the entries."""
        begins, first = entries.begins, span.first
        wanted = entries.sequence[rows]
        for group in self._reader.columns(CHOSEN, span.after, last):
            batch = group.batch
            sequence = self._log.sequence(first, len(batch), partial(batch.column, "id"))
            first = int(sequence[-1]) + 1
            here = rows[(wanted >= sequence[0]) & (wanted <= sequence[-1])]
            places = np.searchsorted(sequence, entries.sequence[here])

            picked = batch.take(pa.array(places))
            actions, chosen = picked["action_ids"], picked["chosen"]
            counts = np.diff(chosen.offsets.to_numpy())
            at = np.repeat(actions.offsets.to_numpy()[:-1] - actions.offsets[0].as_py(), counts)
            names = actions.flatten().take(pa.array(at + chosen.flatten().to_numpy()))
            numbers = self._log.actions_of(coded(names))

            to = np.repeat(begins[here], counts) + np.arange(len(numbers))
            entries.chosen[to - np.repeat(offsets_of(counts)[:-1], counts)] = numbers


def _together(
    groups: Iterable[RowGroup], through: str | None
) -> Iterator[tuple[pa.RecordBatch, str]]:
    """Yield several row groups as one, with its last id; past ``through`` each by itself."""
    held: list[pa.RecordBatch] = []
    last = START
    for group in groups:
        held.append(group.batch)
        last = group.last
        past = through is not None and is_after(last, through)
        if past or sum(map(len, held)) >= READ_ENTRIES:
            yield _combined(held), last
            held = []
    if held:
        yield _combined(held), last


def _combined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def _identities(events: Int32, rewards: pa.StringArray) -> tuple[Int32, int]:
    """Number the pairs of event and reward id, -1 where there is no id; return how many."""
    out, named = np.full(len(events), -1, np.int32), rewards.is_valid()
    where = named.to_numpy(zero_copy_only=False)
    ids = pc.dictionary_encode(rewards.filter(named))
    pairs = events[where].astype(np.int64) * max(len(ids.dictionary), 1) + ids.indices.to_numpy()
    numbered = pc.dictionary_encode(pa.array(pairs))
    out[where] = numbered.indices.to_numpy()
    return out, len(numbered.dictionary)
