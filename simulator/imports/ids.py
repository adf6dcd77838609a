"""Ids to numbers: each distinct text is kept once, and counted from 0 as it first appears."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import compiled, i4s, i8, inlined, read_only, u4s
from simulator.imports.files.whole_ids import MOST_IDS, WHOLE_ID

MISSING = -1
"""The number of an id that is empty, not there, or a text that stands for none."""
TOO_LONG = -2
"""The number of an id that is longer than a table takes."""

u1s, u8s = read_only(types.uint8), read_only(types.uint64)
_FIRST, _SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _BYTE, _HALF = np.uint64(33), np.uint64(8), np.uint64(32)
_ONE, _WORD = np.uint64(1), np.uint64(64)
_CODE = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint64(0)

SLOT = 4
"""Numbers that a slot of the hash table takes, half a line of the processor's cache: two of the
key, and the length with the code plus one; 0 there is an empty slot."""
SHORT = 16
"""Bytes of a text that are its own key; of a longer one the key is a hash."""
BLOCK = 64
"""Texts whose slots are fetched from memory at once."""


@inlined
def _mixed(word: Any) -> Any:
    """Return a number whose every bit depends on every bit of another, as in MurmurHash3."""
    word = (word ^ (word >> _SHIFT)) * _FIRST
    word = (word ^ (word >> _SHIFT)) * _SECOND
    return word ^ (word >> _SHIFT)


@inlined
def _word(data: Any, words: Any, start: Any, length: Any) -> Any:
    """Return up to eight bytes of a text as a number: two loads, but where the buffer ends."""
    place, held = start >> 3, min(length, 8)
    if place + 1 >= words.size:
        word = _EMPTY
        for at in range(start + held - 1, start - 1, -1):
            word = (word << _BYTE) | np.uint64(data[at])
        return word

    shift = np.uint64((start & 7) << 3)
    word = words[place] >> shift
    if shift:
        word |= words[place + 1] << (_WORD - shift)
    return word if held == 8 else word & ((_ONE << np.uint64(held << 3)) - _ONE)


@inlined
def _key(data: Any, words: Any, start: Any, length: Any) -> Any:
    """Return two numbers that stand for a text: its bytes, or a hash of more than 16 of them."""
    first, second = _EMPTY, _EMPTY
    if length <= SHORT:
        first = _word(data, words, start, length)
        if length > 8:
            second = _word(data, words, start + 8, length - 8)
        return first, second

    word, stop = _EMPTY, start + length
    for at in range(start, stop, 8):
        word = _word(data, words, at, stop - at)
        first, second = _mixed(first ^ word), _mixed(second + word * _FIRST)
    return first, second


@inlined
def _same(data: Any, start: Any, length: Any, kept: Any, at: Any) -> bool:
    for i in range(length):  # noqa: SIM110 - numba compiles no generator
        if data[start + i] != kept[at + i]:
            return False
    return True


@compiled(
    types.int32[::1],
    i8,
    i8,
    i4s,
    u1s,
    u8s,
    types.uint64[::1],
    types.int64[::1],
    types.uint8[::1],
    types.int64[::1],
    returns=i8,
)
def _number(  # noqa: C901, PLR0912 - one loop, as every call of a part would cost
    codes: Any,
    row: int,
    longest: int,
    offsets: Any,
    data: Any,
    words: Any,
    slots: Any,
    starts: Any,
    kept: Any,
    count: Any,
) -> Any:
    """Number texts from ``row`` on; return the first row for which there is no more room."""
    room = slots.size // SLOT
    mask = np.uint64(room - 1)
    firsts, seconds = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    places: Any = np.empty(BLOCK, np.int64)

    for begin in range(row, codes.size, BLOCK):
        end = min(begin + BLOCK, codes.size)
        for at in range(begin, end):
            start, length = np.int64(offsets[at]), np.int64(offsets[at + 1] - offsets[at])
            if 0 < length <= longest:
                first, second = _key(data, words, start, length)
                hashed = _mixed(first ^ _mixed(second + np.uint64(length)))
                firsts[at - begin], seconds[at - begin] = first, second
                places[at - begin] = np.int64(hashed & mask) * SLOT
            else:
                codes[at] = MISSING if length == 0 else TOO_LONG
                places[at - begin] = -1

        # A key that is not there yet starts a slot of its own: memory is asked for all of them
        # before the first is waited for.
        touched = _EMPTY
        for at in range(end - begin):
            if places[at] >= 0:
                touched ^= slots[places[at] + 2]
        count[1] = np.int64(touched & np.uint64(1))

        for at in range(begin, end):
            place = places[at - begin]
            if place < 0:
                continue
            first, second = firsts[at - begin], seconds[at - begin]
            start, length = np.int64(offsets[at]), np.int64(offsets[at + 1] - offsets[at])
            while True:
                held = slots[place + 2]
                if held == _EMPTY:
                    known = count[0]
                    stop = starts[known]
                    if (
                        2 * (known + 1) > room
                        or known + 2 > starts.size
                        or stop + length > kept.size
                    ):
                        return at
                    for i in range(length):
                        kept[stop + i] = data[start + i]
                    starts[known + 1] = stop + length
                    count[0] = known + 1
                    slots[place], slots[place + 1] = first, second
                    slots[place + 2] = (np.uint64(length) << _HALF) | np.uint64(known + 1)
                    codes[at] = known
                    break
                if (
                    slots[place] == first
                    and slots[place + 1] == second
                    and held >> _HALF == np.uint64(length)
                ):
                    code = np.int64(held & _CODE) - 1
                    if length <= SHORT or _same(data, start, length, kept, starts[code]):
                        codes[at] = code
                        break
                place += SLOT
                if place == slots.size:
                    place = 0
    return codes.size


@compiled(types.uint64[::1], types.uint64[::1])
def _move_slots(slots: Any, old: Any) -> None:
    """Enter all keys of a hash table into an empty one."""
    mask = np.uint64(slots.size // SLOT - 1)
    for at in range(0, old.size, SLOT):
        held = old[at + 2]
        if held != _EMPTY:
            hashed = _mixed(old[at] ^ _mixed(old[at + 1] + (held >> _HALF)))
            place: Any = np.int64(hashed & mask) * SLOT
            while slots[place + 2] != _EMPTY:
                place += SLOT
                if place == slots.size:
                    place = 0
            slots[place : place + SLOT] = old[at : at + SLOT]


_KNOWN = 3
"""What is added to a text's number in the table of whole numbers: 0 there is one never seen."""


@compiled(types.int32[::1], u4s, types.int32[::1], types.uint32[::1], returns=i8)
def _look_up(codes: Any, whole: Any, known: Any, fresh: Any) -> Any:
    """Write the numbers of ids that are whole numbers; return how many have none yet.

    Args:
        codes: int32[n]; below ``TOO_LONG`` for those of ``fresh``, one less for each.
        whole: the ids, uint32[n].
        known: by id, its number with ``_KNOWN`` added; 0 for one that was never seen.
        fresh: filled with those that were never seen, as they first appear.
    """
    count = 0
    for at in range(whole.size):
        held = known[whole[at]]
        if held == 0:
            fresh[count] = whole[at]
            count += 1
            held = -count
            known[whole[at]] = held
        codes[at] = held - _KNOWN
    return count


class IdTable:
    """The distinct texts of a column, by number: some 100 bytes each beside the text itself.

    Ids that are whole numbers are texts, too; their numbers are looked up by what they are.
    ``absent``: texts that stand for no id, unless they have a number already.
    """

    absent: frozenset[str] = frozenset()

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._slots = np.zeros(SLOT << 12, np.uint64)
        self._starts = np.zeros(1 << 11, np.int64)
        self._kept = np.zeros(1 << 15, np.uint8)
        self._count = np.zeros(2, np.int64)
        self._stand_for_none: list[int] = []
        self._whole = np.zeros(1 << 10, np.int32)

    def __len__(self) -> int:
        return int(self._count[0])

    def numbers(self, ids: "pa.Array") -> NDArray[np.int32]:
        """Return the number of each id, int32[n]; MISSING and TOO_LONG are negative.

        Args:
            ids: an array of strings or whole numbers, nulls among them.
        """
        if pa.types.is_string(ids.type):
            return self._of_texts(ids)
        if len(ids) and not ids.null_count:
            bounds = pc.min_max(ids)
            if bounds["min"].as_py() >= 0 and bounds["max"].as_py() < MOST_IDS:
                return self._of_whole(np.asarray(ids.cast(WHOLE_ID)))
        return self._of_texts(ids.cast(pa.string()))

    def _of_whole(self, whole: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Return the numbers of ids by a table of them; what is new goes by its text."""
        largest = int(whole.max())
        if largest >= len(self._whole):
            old, self._whole = self._whole, np.zeros(1 << largest.bit_length(), np.int32)
            self._whole[: len(old)] = old

        codes, fresh = np.empty(len(whole), np.int32), np.empty(len(whole), np.uint32)
        count = _look_up(codes, whole, self._whole, fresh)
        if count:
            fresh = fresh[:count]
            digits = any(text.isdigit() for text in self.absent)
            numbers = self._of_texts(pa.array(fresh).cast(pa.string()), look_for_absent=digits)
            self._whole[fresh] = numbers + _KNOWN
            is_fresh = codes < TOO_LONG
            codes[is_fresh] = numbers[-1 - _KNOWN - codes[is_fresh]]
        return codes

    def _of_texts(self, texts: "pa.Array", *, look_for_absent: bool = True) -> NDArray[np.int32]:
        codes = np.empty(len(texts), np.int32)
        if not len(texts):
            return codes
        _, where, held = texts.buffers()
        offsets = np.frombuffer(where, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(held, np.uint8) if held is not None else np.zeros(0, np.uint8)
        words = data[: len(data) & ~7].view(np.uint64)
        if not words.flags.aligned:
            words = words.copy()

        row, known = 0, len(self)
        while True:
            row = _number(
                codes,
                row,
                self._longest,
                offsets,
                data,
                words,
                self._slots,
                self._starts,
                self._kept,
                self._count,
            )
            if row == len(codes):
                break
            self._grow(int(offsets[row + 1] - offsets[row]))

        if look_for_absent and self.absent and len(self) > known:
            fresh = np.arange(known, len(self))
            none = pc.is_in(self.texts(fresh), value_set=pa.array(sorted(self.absent)))
            self._stand_for_none += fresh[np.asarray(none)].tolist()
        if self._stand_for_none:
            codes[np.isin(codes, self._stand_for_none)] = MISSING
        if texts.null_count:
            codes[np.asarray(texts.is_null())] = MISSING
        return codes

    def texts(self, codes: NDArray[np.integer[Any]] | None = None) -> "pa.Array":
        """Return the texts of some numbers, or of all, as an array of strings."""
        count = len(self)
        every = pa.LargeStringArray.from_buffers(
            count, pa.py_buffer(self._starts[: count + 1]), pa.py_buffer(self._kept)
        )
        return (every if codes is None else every.take(pa.array(codes))).cast(pa.string())

    def _grow(self, length: int) -> None:
        known = len(self)
        if 2 * (known + 1) > self._slots.size // SLOT:
            old, self._slots = self._slots, np.zeros(2 * self._slots.size, np.uint64)
            _move_slots(self._slots, old)
        if known + 2 > self._starts.size:
            self._starts = np.concatenate([self._starts, np.zeros_like(self._starts)])
        if int(self._starts[known]) + length > self._kept.size:
            more = np.zeros(max(self._kept.size, length), np.uint8)
            self._kept = np.concatenate([self._kept, more])
