"""Compiled: what stands at a place in bytes of msgpack, what it says, and how it gets there.

And bytes eight at a time: the compiler makes one load of it.
"""

from typing import Any

import numpy as np

from bandits.kernels.compiled import inlined, spliced

TEXT, BYTES, ARRAY, MAP = 1, 2, 3, 4
"""What may stand at a place, of what has a size."""
NIL, FALSE, TRUE, DOUBLE = 0xC0, 0xC2, 0xC3, 0xCB

WORD = 8
"""Bytes of a word."""


@spliced
def word_at(data: Any, at: Any) -> Any:
    """Return 8 bytes as one number, the first of them the lowest."""
    # A place without a sign is not looked at for one below 0: only then it is one load.
    first, word = np.uint64(at), np.uint64(0)
    for i in range(WORD):
        word |= np.uint64(data[first + np.uint64(i)]) << np.uint64(8 * i)
    return word


@spliced
def word_before(data: Any, at: Any, end: Any) -> Any:
    """Return the same of the bytes before an end: where fewer are left, the others are 0."""
    if at + WORD <= end:
        return word_at(data, at)
    word = np.uint64(0)
    for i in range(end - at):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@spliced
def are_same(one: Any, first: Any, other: Any, second: Any, size: Any) -> Any:
    """Return whether two texts of one size have the same bytes."""
    k = size - size
    if size >= WORD:
        while k + WORD <= size:
            if word_at(one, first + k) != word_at(other, second + k):
                return False
            k += WORD
        # The last word may have begun in the one before.
        return word_at(one, first + size - WORD) == word_at(other, second + size - WORD)
    if first + WORD <= one.size and second + WORD <= other.size:
        differs = word_at(one, first) ^ word_at(other, second)
        return differs << np.uint64(8 * (WORD - size)) == np.uint64(0) if size > 0 else True
    while k < size and one[first + k] == other[second + k]:
        k += 1
    return k == size


@inlined
def big_at(data: Any, at: Any, size: Any) -> Any:
    """Return the whole number in some bytes, the highest first."""
    number = np.int64(0)
    for i in range(size):
        number = (number << 8) | np.int64(data[at + i])
    return number


@inlined
def head_at(data: Any, at: Any, end: Any) -> Any:  # noqa: C901 - all forms
    """Return what stands at a place, its size, and where its content begins; kind 0: unknown."""
    if at >= end:
        return 0, np.int64(0), at
    first: Any = np.int64(data[at])
    kind, wide = 0, 0
    size: Any = np.int64(0)

    if 0xA0 <= first < 0xC0:
        kind, size = TEXT, first & 31
    elif 0x80 <= first < 0x90:
        kind, size = MAP, first & 15
    elif 0x90 <= first < 0xA0:
        kind, size = ARRAY, first & 15
    elif 0xD9 <= first <= 0xDB:
        kind, wide = TEXT, 1 << (first - 0xD9)
    elif 0xC4 <= first <= 0xC6:
        kind, wide = BYTES, 1 << (first - 0xC4)
    elif 0xDC <= first <= 0xDD:
        kind, wide = ARRAY, 2 << (first - 0xDC)
    elif 0xDE <= first <= 0xDF:
        kind, wide = MAP, 2 << (first - 0xDE)

    at += 1
    if wide:
        if at + wide > end:
            return 0, np.int64(0), at
        size = big_at(data, at, wide)
        at += wide
    if kind <= BYTES and at + size > end:
        return 0, np.int64(0), at
    return kind, size, at


@inlined
def is_utf8(data: Any, at: Any, end: Any) -> Any:
    """Return whether the bytes between two places are UTF-8."""
    while at < end:
        first = data[at]
        at += 1
        if first < 0x80:
            continue

        # How many bytes follow, and what the first of them may be: nothing overlong, no surrogate.
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            low = 0xA0 if first == 0xE0 else 0x80
            high = 0x9F if first == 0xED else 0xBF
        elif 0xF0 <= first <= 0xF4:
            more = 3
            low = 0x90 if first == 0xF0 else 0x80
            high = 0x8F if first == 0xF4 else 0xBF
        else:
            return False
        if at + more > end or not low <= data[at] <= high:
            return False
        for i in range(1, more):
            if not 0x80 <= data[at + i] <= 0xBF:
                return False
        at += more
    return True


@inlined
def text_at(data: Any, at: Any, end: Any) -> Any:
    """Return where a text begins and ends; an end of -1: there is none."""
    kind, size, at = head_at(data, at, end)
    if kind != TEXT or not is_utf8(data, at, at + size):
        return at, np.int64(-1)
    return at, at + size


@inlined
def past_text(data: Any, at: Any, end: Any) -> Any:
    """Return where a text ends; -1: there is none."""
    return text_at(data, at, end)[1]


@inlined
def past_text_or_nil(data: Any, at: Any, end: Any) -> Any:
    """Return where a text or nil ends; -1: there is neither."""
    if at < end and data[at] == NIL:
        return at + 1
    return text_at(data, at, end)[1]


@inlined
def past_truth(data: Any, at: Any, end: Any) -> Any:
    """Return where a truth ends; -1: there is none."""
    return at + 1 if at < end and (data[at] == FALSE or data[at] == TRUE) else np.int64(-1)


@inlined
def whole_at(data: Any, at: Any, end: Any) -> Any:
    """Return a whole number from 0 on, and where it ends; -1: there is none."""
    if at >= end:
        return np.int64(0), np.int64(-1)
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + 1
    wide = 1 << (first - 0xCC) if 0xCC <= first <= 0xCE else 0
    if wide == 0 or at + 1 + wide > end:
        return np.int64(0), np.int64(-1)
    return big_at(data, at + 1, wide), at + 1 + wide


@inlined
def double_at(data: Any, at: Any, cell: Any) -> Any:
    """Return the float64 in 8 bytes, the highest first. ``cell``: see ``scan_records``."""
    bits = np.uint64(0)
    for i in range(8):
        bits = (bits << np.uint64(8)) | np.uint64(data[at + i])
    cell[0][0] = bits
    return cell[1][0]


@inlined
def little_double_at(data: Any, at: Any, cell: Any) -> Any:
    """Return the float64 in 8 bytes, the lowest first."""
    cell[0][0] = word_at(data, at)
    return cell[1][0]


@inlined
def little_single_at(data: Any, at: Any, cell: Any) -> Any:
    """Return the float32 in 4 bytes, the lowest first."""
    bits = np.uint64(0)
    for i in range(4):
        bits |= np.uint64(data[at + i]) << np.uint64(8 * i)
    cell[0][0] = bits
    return cell[2][0]


@inlined
def past_texts(data: Any, at: Any, end: Any) -> Any:
    """Return where an array of texts ends; -1: there is none."""
    kind, count, at = head_at(data, at, end)
    if kind != ARRAY:
        return np.int64(-1)
    for _ in range(count):
        at = past_text(data, at, end)
        if at < 0:
            break
    return at


@inlined
def says(data: Any, at: Any, end: Any, word: Any) -> Any:
    """Return whether the bytes between two places are a word."""
    if end - at != word.size:
        return False
    same = True
    for i in range(word.size):
        same &= data[at + i] == word[i]
    return same


@spliced
def sized(data: Any, at: Any) -> Any:
    """Return the size of what stands at a place of valid bytes, and where its content begins."""
    first = np.int64(data[at])
    if first < 0xC0:
        return first & (31 if first >= 0xA0 else 15), at + 1

    if first <= 0xC6:
        wide = 1 << (first - 0xC4)
    elif first <= 0xDB:
        wide = 1 << (first - 0xD9)
    else:
        wide = 2 << ((first - 0xDC) & 1)
    size = np.int64(0)
    for i in range(wide):
        size = (size << 8) | np.int64(data[at + 1 + i])
    return size, at + 1 + wide


@spliced
def index_at(data: Any, at: Any) -> Any:
    """Return the number at a place of valid bytes, whole and not below 0, and where it ends."""
    index = np.int64(data[at])
    at += 1
    if index >= 0x80:
        size = 1 << (index - 0xCC)
        index = np.int64(0)
        for _ in range(size):
            index = (index << 8) | np.int64(data[at])
            at += 1
    return index, at


@spliced
def past(data: Any, at: Any) -> Any:
    """Return where the text or the bytes at a place end."""
    size, at = sized(data, at)
    return at + size


@inlined
def past_map(data: Any, at: Any) -> Any:
    """Return where a map of features ends, and how many features it means."""
    count, at = sized(data, at)
    several = np.int64(0)
    for _ in range(count):
        at = past(data, at)
        first = data[at]
        if FALSE <= first <= TRUE or first == DOUBLE:
            at += 9 if first == DOUBLE else 1
            several += 1
        elif 0x90 <= first < 0xA0 or first >= 0xDC:
            size, at = sized(data, at)
            several += size
            for _ in range(size):
                at = past(data, at)
        else:
            at = past(data, at)
            several += 1
    return at, several


@inlined
def past_decision_head(data: Any, at: Any) -> Any:
    """Return where the context of a decision begins that begins here."""
    # The version; how many fields; the kind, event, policy, spec, snapshot, catalogue.
    _, at = sized(data, at + 1)
    for _ in range(6):
        at = past(data, at)
    return at


@inlined
def put_size(out: Any, at: Any, size: Any, small: Any, most: Any, byte: Any) -> Any:
    """Write how long something is: within one byte up to ``most``, or behind one; return its end.

    ``byte``: the one before sizes of 8 bits, or 0 where there are none; those of 16 and 32 follow.
    """
    if size <= most:
        out[at] = small + size
        return at + 1
    if byte > 0 and size <= 0xFF:
        out[at], out[at + 1] = byte, size
        return at + 2
    wide = byte + 1 if byte > 0 else -byte
    if size <= 0xFFFF:
        out[at], out[at + 1], out[at + 2] = wide, size >> 8, size & 0xFF
        return at + 3
    out[at] = wide + 1
    for k in range(4):
        out[at + 1 + k] = (size >> (24 - 8 * k)) & 0xFF
    return at + 5


@inlined
def put_array(out: Any, at: Any, size: Any) -> Any:
    """Write the size of an array; return where it ends."""
    return put_size(out, at, size, 0x90, 15, -0xDC)


@inlined
def put_map(out: Any, at: Any, size: Any) -> Any:
    """Write the size of a map; return where it ends."""
    return put_size(out, at, size, 0x80, 15, -0xDE)


@inlined
def put_text(out: Any, at: Any, words: Any, starts: Any, word: Any) -> Any:
    """Write the text of a number, which lies between two starts; return where it ends."""
    first, last = starts[word], starts[word + 1]
    at = put_size(out, at, last - first, 0xA0, 31, 0xD9)
    for k in range(first, last):
        out[at] = words[k]
        at += 1
    return at


@inlined
def put_bytes(out: Any, at: Any, data: Any, first: Any, last: Any) -> Any:
    """Write the bytes between two places; return where they end."""
    at = put_size(out, at, last - first, 0, -1, 0xC4)
    for k in range(first, last):
        out[at] = data[k]
        at += 1
    return at


@inlined
def put_index(out: Any, at: Any, value: Any) -> Any:
    """Write a whole number from 0 on, below 2^32; return where it ends."""
    return put_size(out, at, value, 0, 0x7F, 0xCC)


@inlined
def put_whole(out: Any, at: Any, value: Any) -> Any:
    """Write a whole number; return where it ends."""
    if 0 <= value < 1 << 32:
        return put_index(out, at, value)
    if -32 <= value < 0:
        out[at] = 256 + value
        return at + 1

    wide, byte = 8, 0xCF if value > 0 else 0xD3
    if -(1 << 31) <= value < 0:
        wide, byte = (1, 0xD0) if value >= -128 else (2, 0xD1) if value >= -32768 else (4, 0xD2)
    out[at] = byte
    for k in range(wide):
        out[at + 1 + k] = (value >> (8 * (wide - 1 - k))) & 0xFF
    return at + 1 + wide
