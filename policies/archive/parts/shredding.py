"""Compiled: the parts of decisions, from the bytes of their records, without a Python object each.

It takes records exactly as this build writes them, or as those before it did, whose decisions named
no artifact, no profile, no rules or no apprentice. Of any other it says so, and codec.py decodes
it: whether a record is valid is decided there, and here only that this one surely is.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.actions import SLACK
from bandits.kernels.apprentices import past_apprentice
from bandits.kernels.compiled import borrowed, compiled, i8, i8s, inlined, read_only, spliced
from bandits.kernels.ruled import past_rules
from bandits.values import MAX_EVENT_ID_BYTES, MAX_FEATURE
from policies.archive.parts.assembling import (
    BEFORE_APPRENTICE,
    BEFORE_ARTIFACT,
    BEFORE_PROFILE,
    BEFORE_RULES,
)

TAKEN, REFUSED, FULL = 0, 1, 2
"""The outcomes; FULL: there are more distinct texts than there is place for."""
ACTIONS, SOURCES, KEYS, TEXTS, LISTED = 0, 1, 2, 4, 6
"""Vocabularies; the last three are of the context, and one further of the actions' features."""
POLICY, SPEC, SNAPSHOT, CATALOGUE, USER, ARTIFACT, PROFILE = range(8, 15)
VOCABULARIES = 15
SIZES = 10
"""How many there are: actions, slots, probabilities, sources over all decisions, scores, maps of
actions' features; entries of the context's maps, and of the others; texts in lists of either.
"""
N_ACTIONS, N_SLOTS, N_PMF, N_SOURCES, N_SCORES, N_MAPS = range(6)
N_ENTRIES, N_LISTED = 6, 8
NUMBER, FLAG, TEXT, LIST = 0, 1, 2, 3
_LARGEST = int(np.float64(MAX_FEATURE).view(np.int64))
_MAGNITUDE = 2**63 - 1
_INFINITE = 0x7F800000


@spliced
def _text(data: Any, at: Any, end: Any) -> Any:
    """Return where a text begins and its bytes; -1 where none is, or not as msgspec writes it."""
    head, start, size = data[at], -1, np.int64(0)
    if 0xA0 <= head <= 0xBF:
        start, size = at + 1, np.int64(head & 0x1F)
    elif head == 0xD9:
        size = np.int64(data[at + 1])
        start = at + 2 if size > 0x1F else -1
    elif head == 0xDA:
        size = (np.int64(data[at + 1]) << 8) | data[at + 2]
        start = at + 3 if size > 0xFF else -1
    return (start, size) if start >= 0 and start + size <= end else (-1, np.int64(0))


@inlined
def _bytes(data: Any, at: Any, end: Any) -> Any:
    """Return where bytes begin and how many they are; -1 as above."""
    head, start, size = data[at], -1, np.int64(0)
    if head == 0xC4:
        start, size = at + 2, np.int64(data[at + 1])
    elif head == 0xC5:
        size = (np.int64(data[at + 1]) << 8) | data[at + 2]
        start = at + 3 if size > 0xFF else -1
    elif head == 0xC6:
        size = (
            (np.int64(data[at + 1]) << 24)
            | (np.int64(data[at + 2]) << 16)
            | (np.int64(data[at + 3]) << 8)
            | data[at + 4]
        )
        start = at + 5 if size > 0xFFFF else -1
    return (start, size) if start >= 0 and start + size <= end else (-1, np.int64(0))


@spliced
def _count(data: Any, at: Any, fixed: Any, wide: Any) -> Any:
    """Return where the elements of an array or map begin and how many they are; -1 as above."""
    head = data[at]
    if fixed <= head <= fixed + 15:
        return at + 1, np.int64(head - fixed)
    if head == wide:
        size = (np.int64(data[at + 1]) << 8) | data[at + 2]
        return (at + 3 if size > 15 else -1), size
    return -1, np.int64(0)


@inlined
def _index(data: Any, at: Any) -> Any:
    """Return what follows an index, and the index; -1 as above."""
    head = np.int64(data[at])
    if head <= 0x7F:
        return at + 1, head
    if head == 0xCC:
        return (at + 2 if data[at + 1] > 0x7F else -1), np.int64(data[at + 1])
    if head == 0xCD:
        value = (np.int64(data[at + 1]) << 8) | data[at + 2]
        return (at + 3 if value > 0xFF else -1), value
    return -1, np.int64(0)


@spliced
def _bits(data: Any, at: Any) -> Any:
    """Return the eight bytes of a msgpack float, as an integer."""
    value = np.int64(0)
    for k in range(8):
        value = (value << 8) | data[at + k]
    return value


@inlined
def _truth(data: Any, at: Any) -> Any:
    return data[at] in (0xC2, 0xC3)


@spliced
def _is_word(data: Any, start: Any, size: Any, word: Any, words: Any) -> Any:
    if words[word, 1] != size:
        return False
    first = words[word, 0]
    for k in range(size):  # noqa: SIM110 - a loop, to be compiled
        if data[first + k] != data[start + k]:
            return False
    return True


@spliced
def _word(
    data: Any, start: Any, size: Any, vocabulary: Any, table: Any, words: Any, known: Any
) -> Any:
    """Return a text's number among all words, a new one if need be; -1 if there is no place."""
    # Eight bytes at a time, each a round of multiplication.
    hashed = np.uint64(vocabulary + 1) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(size)
    eight = np.uint64(0)
    for k in range(size):
        eight = (eight << np.uint64(8)) | np.uint64(data[start + k])
        if k & 7 == 7:
            hashed = (hashed ^ eight) * np.uint64(0xFF51AFD7ED558CCD)
            hashed ^= hashed >> np.uint64(32)
            eight = np.uint64(0)
    hashed = (hashed ^ eight) * np.uint64(0xFF51AFD7ED558CCD)
    mask = np.uint64(table.size - 1)
    slot = (hashed ^ (hashed >> np.uint64(32))) & mask

    while table[slot] >= 0:
        word = table[slot]
        if words[word, 2] == vocabulary and _is_word(data, start, size, word, words):
            return np.int64(word)
        slot = (slot + np.uint64(1)) & mask

    word = known[VOCABULARIES]
    if word >= words.shape[0]:
        return np.int64(-1)
    table[slot] = word
    words[word, 0], words[word, 1], words[word, 2] = start, size, vocabulary
    words[word, 3], words[word, 4], words[word, 5] = known[vocabulary], -1, -1
    known[vocabulary] += 1
    known[VOCABULARIES] += 1
    return np.int64(word)


@inlined
def _word_or_nil(
    data: Any, at: Any, end: Any, vocabulary: Any, table: Any, words: Any, known: Any
) -> Any:
    """Take a text or nil. Returns what follows it and its word, -1 for nil; or as ``_map``."""
    if data[at] == 0xC0:
        return at + 1, np.int64(-1)
    start, size = _text(data, at, end)
    if start < 0:
        return np.int64(-1), np.int64(REFUSED)
    word = _word(data, start, size, vocabulary, table, words, known)
    if word < 0:
        return np.int64(-1), np.int64(FULL)
    return start + size, words[word, 3]


@inlined
def _map(  # noqa: C901, PLR0911, PLR0912 - each of them says why
    data: Any,
    at: Any,
    end: Any,
    kind: Any,
    table: Any,
    words: Any,
    known: Any,
    sizes: Any,
    entries: Any,
    listed: Any,
    serial: Any,
) -> Any:
    """Take a map of features. Returns what follows it and how many it has, or -1 and the outcome.

    ``kind``: 0 the context's, 1 an action's. ``entries``: names, kinds and values. ``serial``: the
    number of this map.
    """
    # Too large to become a part of its caller, so it does not know that they are borrowed.
    data, table, words = borrowed(data), borrowed(table), borrowed(words)
    known, sizes, listed = borrowed(known), borrowed(sizes), borrowed(listed)
    names, kinds, values = entries
    entries = borrowed(names), borrowed(kinds), borrowed(values)
    at, count = _count(data, at, 0x80, 0xDE)
    if at < 0:
        return np.int64(-1), np.int64(REFUSED)

    last = np.int64(-1)
    for _ in range(count):
        start, size = _text(data, at, end)
        if start < 0:
            return np.int64(-1), np.int64(REFUSED)
        at = start + size
        entry = sizes[N_ENTRIES + kind]
        sizes[N_ENTRIES + kind] += 1

        # No name twice: a dict would keep one.
        # Names mostly come in the order of the map before.
        word = words[last, 5] if last >= 0 else np.int64(-1)
        if word < 0 or not _is_word(data, start, size, word, words):
            word = _word(data, start, size, KEYS + kind, table, words, known)
            if word < 0:
                return np.int64(-1), np.int64(FULL)
            if last >= 0:
                words[last, 5] = word
        if words[word, 4] == serial:
            return np.int64(-1), np.int64(REFUSED)
        words[word, 4] = serial
        last = word
        entries[0][kind, entry] = words[word, 3]

        head = data[at]
        if head == 0xCB:
            bits = _bits(data, at + 1)
            if bits & _MAGNITUDE > _LARGEST:
                return np.int64(-1), np.int64(REFUSED)
            entries[1][kind, entry], entries[2][kind, entry] = NUMBER, bits
            at += 9
        elif _truth(data, at):
            entries[1][kind, entry], entries[2][kind, entry] = FLAG, head - 0xC2
            at += 1
        elif 0x90 <= head <= 0x9F or head == 0xDC:
            at, texts = _count(data, at, 0x90, 0xDC)
            if at < 0:
                return np.int64(-1), np.int64(REFUSED)
            entries[1][kind, entry], entries[2][kind, entry] = LIST, texts
            for _ in range(texts):
                start, size = _text(data, at, end)
                if start < 0:
                    return np.int64(-1), np.int64(REFUSED)
                word = _word(data, start, size, LISTED + kind, table, words, known)
                if word < 0:
                    return np.int64(-1), np.int64(FULL)
                listed[kind, sizes[N_LISTED + kind]] = words[word, 3]
                sizes[N_LISTED + kind] += 1
                at = start + size
        else:
            start, size = _text(data, at, end)
            if start < 0:
                return np.int64(-1), np.int64(REFUSED)
            word = _word(data, start, size, TEXTS + kind, table, words, known)
            if word < 0:
                return np.int64(-1), np.int64(FULL)
            entries[1][kind, entry], entries[2][kind, entry] = TEXT, words[word, 3]
            at = start + size
    return at, count


@inlined
def _scores(  # noqa: PLR0911 - likewise
    data: Any,
    at: Any,
    end: Any,
    actions: Any,
    table: Any,
    words: Any,
    known: Any,
    sizes: Any,
    sources: Any,
    scores: Any,
    serial: Any,
) -> Any:
    """Take scores by source. Returns what follows them and of how many sources, as ``_map``."""
    at, count = _count(data, at, 0x80, 0xDE)
    if at < 0:
        return np.int64(-1), np.int64(REFUSED)

    for _ in range(count):
        start, size = _text(data, at, end)
        if start < 0:
            return np.int64(-1), np.int64(REFUSED)
        at = start + size
        word = _word(data, start, size, SOURCES, table, words, known)
        if word < 0:
            return np.int64(-1), np.int64(FULL)
        if words[word, 4] == serial:
            return np.int64(-1), np.int64(REFUSED)
        words[word, 4] = serial
        sources[sizes[N_SOURCES]] = words[word, 3]
        sizes[N_SOURCES] += 1

        start, size = _bytes(data, at, end)
        if start < 0 or size != 4 * actions:
            return np.int64(-1), np.int64(REFUSED)
        out = 4 * sizes[N_SCORES]
        for k in range(size):
            scores[out + k] = data[start + k]
        for k in range(actions):
            high = (np.int64(data[start + 4 * k + 3]) & 0x7F) << 24
            bits = high | (np.int64(data[start + 4 * k + 2]) << 16)
            bits |= (np.int64(data[start + 4 * k + 1]) << 8) | data[start + 4 * k]
            if bits == _INFINITE:
                return np.int64(-1), np.int64(REFUSED)
        sizes[N_SCORES] += actions
        at = start + size
    return at, count


u1s = read_only(types.uint8)
_i8, _i8s, _u1s = types.int64[::1], types.int64[:, ::1], types.uint8[:, ::1]
_i4, _i4s, _u1, _f8 = types.int32[::1], types.int32[:, ::1], types.uint8[::1], types.float64[::1]


@compiled(
    *(u1s, i8s, _i4, _i8s, _i8, _i8, _i4s, _u1s, _i8s, _i4s, _i8s, _i8s),
    *(_i4, _i4, _u1, _f8, _i4, _u1, _i4),
    returns=i8,
)
def shred(  # noqa: C901, PLR0911, PLR0912, PLR0915 - one pass over one record after the other
    data: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    table: NDArray[np.int32],
    words: NDArray[np.int64],
    known: NDArray[np.int64],
    sizes: NDArray[np.int64],
    names: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    values: NDArray[np.int64],
    listed: NDArray[np.int32],
    rows: NDArray[np.int64],
    heads: NDArray[np.int64],
    action_ids: NDArray[np.int32],
    chosen: NDArray[np.int32],
    pmf_bytes: NDArray[np.uint8],
    pmf: NDArray[np.float64],
    sources: NDArray[np.int32],
    scores: NDArray[np.uint8],
    maps: NDArray[np.int32],
) -> int:
    """Take the parts of n decisions; each part has bytes of its own, so what holds these suffices.

    Args:
        data: the records one after the other, and 16 bytes more.
        bounds: where each begins, and the last ends, [n + 1].
        table: of hashes, -1 where it is empty; its size is a power of two.
        words: [most, 6]: where a word begins, its bytes, vocabulary, code in it, who had it last,
            and as a name the one that followed it.
        known: words by vocabulary, and of all.
        sizes: [SIZES], see there; from 0.
        names: [2, entries]: the words of names, of entries of the context and of the actions.
        kinds: [2, entries]: NUMBER, FLAG, TEXT or LIST.
        values: [2, entries]: a number's bits, a truth, a word, how many texts.
        listed: [2, texts]: the words of lists.
        rows: [n, 5]: actions, slots, sources, entries of the context, and whether it has features.
        heads: [n, 15]: where the event_id begins and its bytes; words of policy, spec, snapshot,
            catalogue, user, artifact and profile, -1 for none; whether deferred, held out,
            unserved; where what its rules depended on begins, where what its apprentice would have
            chosen does, and where that ends.
        action_ids: the word of each action.
        chosen: by slot.
        pmf_bytes: the bytes of ``pmf``, which is the same memory.
        pmf: slots x actions of each.
        sources: the word of each source of each decision.
        scores: bytes of float32[actions] of each.
        maps: how many entries an action's features have, -1 for none.

    Returns:
        TAKEN, REFUSED or FULL.
    """
    data, bounds, table, words = borrowed(data), borrowed(bounds), borrowed(table), borrowed(words)
    known, sizes, listed = borrowed(known), borrowed(sizes), borrowed(listed)
    sources, scores = borrowed(sources), borrowed(scores)
    entries = (borrowed(names), borrowed(kinds), borrowed(values))
    bits = np.zeros(1, np.uint64)
    cell = (bits, bits.view(np.float64), bits.view(np.float32))
    for row in range(bounds.size - 1):
        at, end = bounds[row] + 13, bounds[row + 1]

        start, size = _text(data, at, end)
        if start < 0 or not 0 < size <= MAX_EVENT_ID_BYTES:
            return REFUSED
        heads[row, 0], heads[row, 1] = start, size
        for k in range(4):
            start, size = _text(data, start + size, end)
            if start < 0:
                return REFUSED
            word = _word(data, start, size, POLICY + k, table, words, known)
            if word < 0:
                return FULL
            heads[row, 2 + k] = words[word, 3]

        at, context = _map(
            data, start + size, end, 0, table, words, known, sizes, entries, listed, row
        )
        if at < 0:
            return int(context)

        at, actions = _count(data, at, 0x90, 0xDC)
        if at < 0 or actions == 0:
            return REFUSED
        for _ in range(actions):
            start, size = _text(data, at, end)
            if start < 0:
                return REFUSED
            at = start + size
            word = _word(data, start, size, ACTIONS, table, words, known)
            if word < 0:
                return FULL
            if words[word, 4] == row:
                return REFUSED
            words[word, 4] = row
            action_ids[sizes[N_ACTIONS]] = words[word, 3]
            sizes[N_ACTIONS] += 1

        has_features = data[at] != 0xC0
        if has_features:
            at, size = _count(data, at, 0x90, 0xDC)
            if at < 0 or size != actions:
                return REFUSED
            for _ in range(actions):
                taken = np.int64(-1)
                number = sizes[N_MAPS]
                sizes[N_MAPS] += 1
                if data[at] == 0xC0:
                    at += 1
                else:
                    at, taken = _map(
                        data, at, end, 1, table, words, known, sizes, entries, listed, number
                    )
                    if at < 0:
                        return int(taken)
                maps[number] = taken
        else:
            at += 1

        at, count = _scores(
            data, at, end, actions, table, words, known, sizes, sources, scores, row
        )
        if at < 0:
            return int(count)

        first, mass = _bytes(data, at, end)
        if first < 0:
            return REFUSED
        at, slots = _count(data, first + mass, 0x90, 0xDC)
        if at < 0 or not 0 < slots <= 64 or mass != 8 * slots * actions:
            return REFUSED
        begins = sizes[N_SLOTS]
        for k in range(mass):
            pmf_bytes[8 * sizes[N_PMF] + k] = data[first + k]
        for slot in range(slots):
            at, index = _index(data, at)
            if at < 0 or index >= actions:
                return REFUSED
            chosen[begins + slot] = index
            for before in range(slot):
                if chosen[begins + before] == index:
                    return REFUSED
            total, least = 0.0, np.inf
            for k in range(actions):
                mass_of = pmf[sizes[N_PMF] + slot * actions + k]
                total += mass_of
                least = min(least, mass_of)
            if not abs(total - 1.0) <= SLACK or least < 0.0:
                return REFUSED
            if not pmf[sizes[N_PMF] + slot * actions + index] > 0.0:
                return REFUSED
        sizes[N_SLOTS] += slots
        sizes[N_PMF] += slots * actions

        at, user = _word_or_nil(data, at, end, USER, table, words, known)
        if at < 0:
            return int(user)
        # Deferred, holdout, no credit, unserved, nothing failed.
        truths = at
        if not (_truth(data, at) and _truth(data, at + 1) and data[at + 2] == 0xC0):
            return REFUSED
        if not (_truth(data, at + 3) and data[at + 4] == 0xC0):
            return REFUSED
        at, artifact, profile = at + 5, np.int64(-1), np.int64(-1)
        if data[bounds[row] + 3] > BEFORE_ARTIFACT:
            at, artifact = _word_or_nil(data, at, end, ARTIFACT, table, words, known)
            if at < 0:
                return int(artifact)
        if data[bounds[row] + 3] > BEFORE_PROFILE:
            at, profile = _word_or_nil(data, at, end, PROFILE, table, words, known)
            if at < 0:
                return int(profile)
        rules = at
        if data[bounds[row] + 3] > BEFORE_RULES:
            at, _ = past_rules(data, at, end, slots, actions, cell)
        own = at
        if at >= 0 and data[bounds[row] + 3] > BEFORE_APPRENTICE:
            at = past_apprentice(data, at, end, slots, actions, cell)
        if at != end:
            return REFUSED
        rows[row, 0], rows[row, 1], rows[row, 2] = actions, slots, count
        rows[row, 3], rows[row, 4] = context, has_features
        heads[row, 6], heads[row, 7], heads[row, 8] = user, artifact, profile
        heads[row, 9], heads[row, 10] = data[truths] - 0xC2, data[truths + 1] - 0xC2
        heads[row, 11] = data[truths + 3] - 0xC2
        heads[row, 12], heads[row, 13], heads[row, 14] = rules, own, end
    return TAKEN
