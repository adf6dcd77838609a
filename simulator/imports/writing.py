"""The second pass: events by user and time, without what is seen only so, written as Parquet.

Memory holds what is known of each distinct id, and the parts at work.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from policies.data.data_set import EVENT_SCHEMA
from policies.data.manifest import EVENTS, Counts, StoredFile
from policies.data.writer import CODED_SCHEMA, ROW_GROUP, event_writer, synced
from simulator.imports import cleaning as reasons
from simulator.imports.arrange import (
    BOT,
    EVENT,
    EXACT_DUPLICATE,
    KEPT,
    NO_TIME,
    REPEATED,
    count_users,
    kept_columns,
    put_by_user,
    put_in_order,
    recode,
)
from simulator.imports.events import EventColumns
from simulator.imports.ids import IdTable
from simulator.imports.spill import SpilledEvents

Number = TypeVar("Number", bound=np.generic)

WRITERS = 3
"""Parts that are put in order and written at a time: one of them may wait for the disk."""

_REASONS = {EXACT_DUPLICATE: reasons.EXACT, REPEATED: reasons.REPEAT, BOT: reasons.ROBOT}


@dataclass(slots=True)
class WrittenEvents:
    """A finished writing: ``stored``, each file; ``items``, the numbers with events."""

    counts: Counts
    stored: dict[str, StoredFile]
    items: NDArray[np.intp]


@dataclass(slots=True)
class _Part:
    """Counts and dropped rows of one part; they are added up in the order of the parts."""

    rows: int = 0
    stored: StoredFile | None = None
    users: int = 0
    types: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    untimed: int = 0
    first: int | None = None
    last: int | None = None
    items: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    dropped: list[tuple[str, int, np.void]] = field(default_factory=list)


class _Room:
    """The arrays of whoever works on a part, used again for the next: memory that was touched."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._places = np.full(0, -1, np.int32)

    def array(self, name: str, size: int, kind: "type[Number]") -> NDArray[Number]:
        """Return an array of whatever was in it before.

        Args:
            name: what it is for.
            size: how long it is.
            kind: of what.
        """
        return self._sized(name, size, np.dtype(kind))

    def events(self, size: int) -> NDArray[np.void]:
        """Return an array of so many events."""
        return self._sized("events", size, EVENT)

    def _sized(self, name: str, size: int, kind: "np.dtype[Any]") -> NDArray[Any]:
        held = self._arrays.get(name)
        if held is None or len(held) < size:
            held = self._arrays[name] = np.empty(size + size // 8, kind)
        return held[:size]

    def coded(self, name: str, codes: NDArray[np.int32], table: IdTable) -> "pa.DictionaryArray":
        """Return texts by their numbers, which are changed, with a dictionary of those that occur.

        Args:
            name: what they are.
            codes: the numbers.
            table: the texts of all numbers.
        """
        if len(self._places) < len(table):
            self._places = np.full(len(table), -1, np.int32)
        used = self.array(f"{name} used", len(codes), np.int32)
        count = recode(codes, self._places, used)
        return pa.DictionaryArray.from_arrays(pa.array(codes), table.texts(used[:count]))


class EventWriting:
    """The second pass over the events of an import.

    ``columns``: what the first pass found; ``spilled``: the events; ``scratch``: the folder of the
    data set; ``progress``: told how many events are done.
    """

    def __init__(
        self,
        columns: EventColumns,
        spilled: SpilledEvents,
        scratch: Path,
        progress: Callable[[int], None],
    ) -> None:
        self._columns = columns
        self._spilled = spilled
        self._scratch = scratch
        self._progress = progress
        self._rooms: SimpleQueue[_Room] = SimpleQueue()

    def run(self) -> WrittenEvents:
        """Write all parts; say what was written, and count what was left out."""
        cleaning = self._columns.cleaning
        has_core = cleaning.min_user_events > 1 or cleaning.min_item_events > 1
        if has_core:
            self._keep_core()

        total = _Part(types=np.zeros(len(self._columns.types), np.int64))
        stored: dict[str, StoredFile] = {}
        with_events = np.zeros(len(self._columns.items), np.bool_)
        for number, part in enumerate(self._parts(is_arranged=has_core)):
            self._count(part)
            if part.stored is None:
                continue
            stored[self._name(number)] = part.stored
            total.rows, total.users = total.rows + part.rows, total.users + part.users
            total.types = total.types + part.types
            total.untimed += part.untimed
            with_events[part.items] = True
            total.first = min((t for t in (total.first, part.first) if t is not None), default=None)
            total.last = max((t for t in (total.last, part.last) if t is not None), default=None)

        items = np.flatnonzero(with_events)
        names = {
            name: int(total.types[code])
            for name, code in self._columns.types.items()
            if total.types[code]
        }
        counts = Counts(
            events=total.rows,
            users=total.users,
            items=items.size,
            types=dict(sorted(names.items())),
            untimed=total.untimed,
            first_ms=total.first,
            last_ms=total.last,
        )
        return WrittenEvents(counts, stored, items)

    def _parts(self, *, is_arranged: bool) -> Iterator[_Part]:
        """Yield what is written of each part, in order; several are written at a time."""

        def work(number: int) -> _Part:
            pieces = self._spilled.take(number)
            with self._room() as room:
                if not is_arranged:
                    return self._write(number, *self._in_order(number, pieces, room), room)
                events = _joined(pieces)
                fate = np.full(len(events), KEPT, np.uint8)
                return self._write(number, events, fate, _Part(), room)

        waiting: list[Future[_Part]] = []
        with ThreadPoolExecutor(WRITERS) as pool:
            for number in range(self._spilled.parts):
                waiting.append(pool.submit(work, number))
                if len(waiting) > WRITERS:
                    yield waiting.pop(0).result()
            for job in waiting:
                yield job.result()

    @contextmanager
    def _room(self) -> Iterator[_Room]:
        try:
            room = self._rooms.get_nowait()
        except Empty:
            room = _Room()
        yield room
        self._rooms.put(room)

    def _in_order(
        self, number: int, pieces: list[NDArray[np.void]], room: _Room
    ) -> tuple[NDArray[np.void], NDArray[np.uint8], _Part]:
        """Return a part's events by user and time, what becomes of each, and what is left out."""
        cleaning, bits = self._columns.cleaning, self._spilled.bits
        users = (len(self._columns.users) - number + self._spilled.parts - 1) >> bits
        starts = np.zeros(users + 1, np.int64)
        for piece in pieces:
            count_users(piece, bits, starts[1:])
        np.cumsum(starts, out=starts)

        events, ends = room.events(int(starts[-1])), starts[:-1].copy()
        for piece in pieces:
            put_by_user(piece, bits, ends, events)
        fate = room.array("fate", len(events), np.uint8)
        put_in_order(
            events,
            starts,
            int(cleaning.duplicates == "drop"),
            -1 if cleaning.window_s is None else round(cleaning.window_s * 1000),
            0 if self._columns.whole_days else cleaning.most_a_minute,
            fate,
        )

        part = _Part()
        if fate.any():
            for code, reason in _REASONS.items():
                left = events[fate == code]
                if left.size:
                    part.dropped.append((reason, left.size, left[left["row"].argmin()]))
        return events, fate, part

    def _write(
        self,
        number: int,
        events: NDArray[np.void],
        fate: NDArray[np.uint8],
        part: _Part,
        room: _Room,
    ) -> _Part:
        """Write the events of a part that are kept, in order."""
        n = len(fate) - int(np.count_nonzero(fate))
        if not n:
            return part
        columns = self._columns
        user, item, kind = (room.array(name, n, np.int32) for name in ("user", "item", "kind"))
        time, value = room.array("time", n, np.int64), room.array("value", n, np.float64)
        present = np.zeros(len(columns.items), np.bool_)
        part.types = np.zeros(len(columns.types), np.int64)
        part.users, timed, valued, first, last = kept_columns(
            events, fate, user, item, kind, time, value, present, part.types
        )
        types = pa.array(list(columns.types), pa.string())

        with event_writer(self._scratch / self._name(number), CODED_SCHEMA) as writer:
            for start in range(0, n, ROW_GROUP):
                rows = slice(start, start + ROW_GROUP)
                no_time = None if timed == n else time[rows] == NO_TIME
                no_value = None if valued == n else np.isnan(value[rows])
                batch = pa.record_batch(
                    [
                        room.coded("user", user[rows], columns.users),
                        room.coded("item", item[rows], columns.items),
                        pa.DictionaryArray.from_arrays(pa.array(kind[rows]), types),
                        pa.array(time[rows], mask=no_time).view(EVENT_SCHEMA.field("time").type),
                        pa.array(value[rows], mask=no_value),
                    ],
                    schema=CODED_SCHEMA,
                )
                writer.write_batch(batch, row_group_size=ROW_GROUP)
                self._progress(batch.num_rows)

        part.rows, part.stored = n, synced(self._scratch / self._name(number), n)
        part.untimed = n - timed
        if timed:
            part.first, part.last = first, last
        part.items = np.flatnonzero(present)
        return part

    def _keep_core(self) -> None:
        """Leave out users and items with too few events, until none has too few."""
        columns, spilled = self._columns, self._spilled
        with self._room() as room:
            for number in range(spilled.parts):
                events, fate, part = self._in_order(number, spilled.take(number), room)
                self._count(part)
                spilled.put(number, events[fate == KEPT])

        while True:
            users = np.zeros(len(columns.users), np.int64)
            items = np.zeros(len(columns.items), np.int64)
            for number in range(spilled.parts):
                for events in spilled.peek(number):
                    np.add.at(users, events["user"], 1)
                    np.add.at(items, events["item"], 1)

            rare_users = (users > 0) & (users < columns.cleaning.min_user_events)
            rare_items = (items > 0) & (items < columns.cleaning.min_item_events)
            if not rare_users.any() and not rare_items.any():
                return
            for number in range(spilled.parts):
                events = _joined(spilled.take(number))
                spilled.put(number, self._without(events, rare_users, rare_items))

    def _without(
        self,
        events: NDArray[np.void],
        rare_users: NDArray[np.bool_],
        rare_items: NDArray[np.bool_],
    ) -> NDArray[np.void]:
        of_user = rare_users[events["user"]]
        of_item = rare_items[events["item"]] & ~of_user
        part = _Part()
        for bad, reason in ((of_user, reasons.RARE_USER), (of_item, reasons.RARE_ITEM)):
            if bad.any():
                part.dropped.append((reason, int(bad.sum()), events[bad.argmax()]))
        self._count(part)
        kept: NDArray[np.void] = events[~(of_user | of_item)]
        return kept

    def _count(self, part: _Part) -> None:
        for reason, rows, event in part.dropped:
            self._columns.left_out.add(
                reason, rows, self._columns.files[event["file"]], int(event["row"])
            )

    @staticmethod
    def _name(number: int) -> str:
        return f"{EVENTS}/part-{number:05d}.parquet"


def _joined(pieces: list[NDArray[np.void]]) -> NDArray[np.void]:
    return np.concatenate(pieces) if pieces else np.empty(0, EVENT)
