"""Compiled: the bytes of decisions, from their parts, as msgspec writes them."""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64, borrowed, compiled, i8s, inlined, read_only, truths
from bandits.kernels.packed import put_array, put_bytes, put_index, put_map, put_text

EVENT_ID, POLICY, SPEC, SNAPSHOT, CATALOGUE, USER, ARTIFACT, PROFILE = range(8)
"""Columns of ``texts``."""
BEFORE_ARTIFACT, BEFORE_PROFILE, BEFORE_RULES, BEFORE_APPRENTICE, ELEMENTS = range(18, 23)
"""Elements of a decision's array: of builds that knew no artifact, no profile, no rules or no
apprentice in it; of this one."""
NUMBER, FLAG, TEXT, LIST = 0, 1, 2, 3
_HEAD = np.frombuffer(b"\xa8decision", np.uint8)
_NIL = 0xC0


@inlined
def _text_or_nil(out: Any, at: Any, words: Any, starts: Any, word: Any) -> Any:
    if word < 0:
        out[at] = _NIL
        return at + 1
    return put_text(out, at, words, starts, word)


@inlined
def _features(
    out: Any, at: Any, words: Any, starts: Any, entries: Any, listed: Any, bounds: Any, number: Any
) -> Any:
    """Write the map of features whose entries and listed texts begin at the bounds of a number."""
    at = put_map(out, at, bounds[0, number + 1] - bounds[0, number])
    text = bounds[1, number]

    for entry in range(bounds[0, number], bounds[0, number + 1]):
        at = put_text(out, at, words, starts, entries[entry, 0])
        kind, value = entries[entry, 1], entries[entry, 2]
        if kind == NUMBER:
            out[at] = 0xCB
            for k in range(8):
                out[at + 1 + k] = (value >> (56 - 8 * k)) & 0xFF
            at += 9
        elif kind == FLAG:
            out[at] = 0xC2 + value
            at += 1
        elif kind == TEXT:
            at = put_text(out, at, words, starts, value)
        else:
            at = put_array(out, at, value)
            for k in range(text, text + value):
                at = put_text(out, at, words, starts, listed[k])
            text += value
    return at


u1s = read_only(types.uint8)
i8ss = read_only(types.int64, 2)


@compiled(
    *(types.uint8[::1], u1s, i8s, i8ss, i8ss, i8ss, i8s, i8ss, i8ss, i8s, i8ss),
    *(truths, i8s, i8s, u1s, u1s, i8s, u1s, i8s),
    returns=types.int64[::1],
)
def assemble(  # noqa: C901, PLR0912 - one part after the other
    out: NDArray[np.uint8],
    words: NDArray[np.uint8],
    starts: Int64,
    texts: Int64,
    numbers: Int64,
    context: Int64,
    context_listed: Int64,
    context_bounds: Int64,
    entries: Int64,
    listed: Int64,
    bounds: Int64,
    has_map: NDArray[np.bool_],
    action_ids: Int64,
    sources: Int64,
    scores: NDArray[np.uint8],
    pmf: NDArray[np.uint8],
    chosen: Int64,
    rules: NDArray[np.uint8],
    rules_begin: Int64,
) -> Int64:
    """Write n decisions, without credits and failures. Returns where each ends, int64[n].

    Args:
        out: what is written to; large enough.
        words: all texts that are named by number, one after the other.
        starts: where each begins, and the last ends.
        texts: [n, 8]: see EVENT_ID to PROFILE; -1 for no user, no artifact and no profile.
        numbers: [n, 9]: actions, slots, sources, whether actions have features; deferred, holdout,
            unserved; ELEMENTS or fewer, see there; how many probabilities there are.
        context: [entries, 3]: name, kind and value of the contexts' features; a number's bits, a
            truth, a text, or how many texts are listed.
        context_listed: the texts of lists.
        context_bounds: [2, n + 1]: where the entries and listed texts of each begin.
        entries: as ``context``, of actions.
        listed: as ``context_listed``.
        bounds: as ``context_bounds``, by action of those decisions whose actions have features.
        has_map: whether the action has any; by action likewise.
        action_ids: of all decisions, one after the other; likewise the following.
        sources: of scores.
        scores: bytes of float32[actions] by source.
        pmf: bytes of float64: slots x actions, or fewer.
        chosen: by slot.
        rules: the bytes of what the rules of each depended on, and of its apprentice.
        rules_begin: [n + 1]: where those of each begin, and the last end.
    """
    out, words, starts = borrowed(out), borrowed(words), borrowed(starts)
    ends = np.empty(len(texts), np.int64)
    at = action = source = score = slot = mass = number = 0
    for row in range(len(texts)):
        actions, slots, count, has_features = numbers[row, :4]
        out[at], out[at + 1], out[at + 2], out[at + 3] = 1, 0xDC, 0, numbers[row, 7]
        at += 4
        for k in range(_HEAD.size):
            out[at + k] = _HEAD[k]
        at += _HEAD.size
        for k in range(USER):
            at = put_text(out, at, words, starts, texts[row, k])
        at = _features(out, at, words, starts, context, context_listed, context_bounds, row)

        at = put_array(out, at, actions)
        for k in range(action, action + actions):
            at = put_text(out, at, words, starts, action_ids[k])
        action += actions

        if has_features:
            at = put_array(out, at, actions)
            for _ in range(actions):
                if has_map[number]:
                    at = _features(out, at, words, starts, entries, listed, bounds, number)
                else:
                    out[at] = _NIL
                    at += 1
                number += 1
        else:
            out[at] = _NIL
            at += 1

        at = put_map(out, at, count)
        for k in range(source, source + count):
            at = put_text(out, at, words, starts, sources[k])
            at = put_bytes(out, at, scores, score, score + 4 * actions)
            score += 4 * actions
        source += count

        at = put_bytes(out, at, pmf, mass, mass + 8 * numbers[row, 8])
        mass += 8 * numbers[row, 8]
        at = put_array(out, at, slots)
        for k in range(slot, slot + slots):
            at = put_index(out, at, chosen[k])
        slot += slots

        at = _text_or_nil(out, at, words, starts, texts[row, USER])
        out[at], out[at + 1], out[at + 2] = 0xC2 + numbers[row, 4], 0xC2 + numbers[row, 5], _NIL
        out[at + 3], out[at + 4] = 0xC2 + numbers[row, 6], _NIL
        at += 5
        if numbers[row, 7] > BEFORE_ARTIFACT:
            at = _text_or_nil(out, at, words, starts, texts[row, ARTIFACT])
        if numbers[row, 7] > BEFORE_PROFILE:
            at = _text_or_nil(out, at, words, starts, texts[row, PROFILE])
        if numbers[row, 7] > BEFORE_RULES:
            for k in range(rules_begin[row], rules_begin[row + 1]):
                out[at] = rules[k]
                at += 1
        ends[row] = at
    return ends
