"""The bytes of many users' parts, made at once of what lies side by side."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bandits.kernels.compiled import Int64
from policies.profiles import part
from policies.profiles.part import CutRule, encode_part
from policies.profiles.part_loops import DONE_BYTES, SHOWN_BYTES, USER_BYTES, put_parts

_ERASED = encode_part(part.ERASED)


def encode_parts(
    done: Sequence[list[Any]], seen: Sequence[list[Any]], erased: Iterable[str], rule: CutRule
) -> Iterator[tuple[str, bytes]]:
    """Yield each user with the bytes of a part that says it all.

    They are those of ``encode_part(join_parts([...], rule))``.

    Args:
        done: the users, and each field of a ProfileEvent, [6] of [E].
        seen: the users, and each field of a Showing, [4] of [S].
        erased: users of whom nothing is known any more.
        rule: what cuts the parts.

    Raises:
        OverflowError: a number takes more than 64 bits; nothing was yielded.
    """
    users: dict[str, int] = {}
    doers, seers = _numbered(done[0], users), _numbered(seen[0], users)
    types: dict[str, int] = {}
    kinds = _numbered(done[5], types)
    items: dict[str, int] = {}
    done_with, shown = (_numbered(column, items) + len(types) for column in (done[4], seen[3]))
    words = [text.encode() for text in (*types, *items)]
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    # By user, the newest first.
    times, entries, seqs = (np.array(column, np.int64) for column in done[1:4])
    order = np.lexsort((-seqs, -entries, -times, doers))
    events = np.stack([times, entries, seqs, done_with, kinds])[:, order]
    shown_entries, shown_seqs = (np.array(column, np.int64) for column in seen[1:3])
    shown_order = np.lexsort((-shown_seqs, -shown_entries, seers))
    showings = np.stack([shown_entries, shown_seqs, shown])[:, shown_order]

    room = USER_BYTES * len(users) + DONE_BYTES * len(doers) + SHOWN_BYTES * len(seers)
    room += int(sizes[done_with].sum() + sizes[kinds].sum() + sizes[shown].sum())
    out = np.empty(room, np.uint8)
    ends = put_parts(
        out,
        np.frombuffer(b"".join(words), np.uint8),
        starts,
        np.ascontiguousarray(events),
        _bounds(doers, len(users)),
        np.ascontiguousarray(showings),
        _bounds(seers, len(users)),
        rule.items,
        np.array([part.MOST_KEPT * (kind in rule.kept) for kind in types], np.int64),
        part.MOST_SHOWN,
    )

    gone = dict.fromkeys(erased, _ERASED)
    data, bounds = out[: ends[-1] if len(ends) else 0].tobytes(), [0, *ends.tolist()]
    for user, (first, last) in zip(users, pairwise(bounds), strict=True):
        if user not in gone:
            yield user, data[first:last]
    yield from gone.items()


def _numbered(texts: list[str], known: dict[str, int]) -> Int64:
    """Return the number of each text, int64[n]; what is new gets the next one."""
    number = known.setdefault
    return np.fromiter((number(text, len(known)) for text in texts), np.int64, len(texts))


def _bounds(users: Int64, count: int) -> Int64:
    """Return where the rows of each user begin, sorted by user, and the last end."""
    bounds = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=count), out=bounds[1:])
    return bounds
