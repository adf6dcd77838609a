"""Hashes of rows that are columns: those of ``simulator.replay.leakage``, many rows at once."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from bandits.features.hashing import UInt64
from bandits.kernels.hashes import hash_contents
from bandits.types import Float64
from bandits.values import Value
from simulator.logs.actions.columns import (
    FeatureColumns,
    Int32,
    Int64,
    Term,
    distinct_codes,
    spread,
)
from simulator.logs.actions.records import RecordColumns

_encode = msgspec.msgpack.Encoder().encode


def row_hashes(
    records: RecordColumns, propensity: Float64, times_ms: Int64
) -> tuple[UInt64, UInt64]:
    """Hash n rows of an archive, so that they are known again; see ``hashes_of``.

    Args:
        records: What the rows are slots of.
        propensity: float64[n].
        times_ms: int64[n], not negative.

    Returns:
        uint64[n] of each row's event id and slot with what it says, and uint64[n] of what it says.
    """
    pool, actions = _Pool(), records.actions
    first, pieces = _context_pieces(records.context, pool)

    # Whose context each row has; then its chosen action.
    starts, counts = first[:-1][records.records], np.diff(first)[records.records]
    chosen, which = distinct_codes(actions.codes, len(actions.names))
    ids = np.array([pool.add(_encode(actions.names[code])) for code in chosen.tolist()], np.int32)
    begins = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(counts + 1, out=begins[1:])
    own = np.empty(begins[-1], np.int32)
    own[spread(begins[:-1], counts)] = pieces[spread(starts, counts)]
    own[begins[1:] - 1] = ids[which]

    slots, slot = distinct_codes(records.slots, int(records.slots.max(initial=0)) + 1)
    places = np.array([pool.add(b"\0%d\0" % number) for number in slots.tolist()], np.int32)
    data, bounds = pool.bytes()
    hashes: tuple[UInt64, UInt64] = hash_contents(
        records.ids.data,
        records.ids.offsets,
        data,
        bounds,
        places[slot],
        begins,
        own,
        actions.available,
        np.ascontiguousarray(propensity, np.float64).view(np.uint64),
        records.slots,
        times_ms,
    )
    return hashes


def number_or_text(value: Any) -> Any:
    """Return one thing for a number and its text.

    A table decides for each file which of them its column holds.
    """
    if isinstance(value, list):
        return [number_or_text(member) for member in value]
    try:
        return format(float(value), ".15g")
    except ValueError:
        return value


class _Pool:
    """Pieces of bytes, by number."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> int:
        """Return the number of a new piece."""
        self._parts.append(part)
        return len(self._parts) - 1

    def bytes(self) -> tuple[Any, Int64]:
        """Return the bytes of all, uint8[...], and where each starts, int64[P + 1]."""
        bounds = np.zeros(len(self._parts) + 1, np.int64)
        np.cumsum([len(part) for part in self._parts], out=bounds[1:])
        return np.frombuffer(b"".join(self._parts), np.uint8), bounds


def _context_pieces(maps: FeatureColumns, pool: _Pool) -> tuple[Int64, Int32]:
    """Return where the pieces of each map start, and the pieces: a head, and each name and value.

    They are in the order of the names, as maps are when they are hashed.
    """
    pieces, rank, counts = _entry_pieces(maps, pool)

    # A head says how many entries follow.
    heads = np.zeros(int(counts.max(initial=0)) + 1, np.int32)
    for count in np.flatnonzero(np.bincount(counts)).tolist():
        heads[count] = pool.add(b"\x96" + _map_head(count))
    begins = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts + 1, out=begins[1:])

    of = np.repeat(np.arange(len(counts)), counts)
    key = of * (int(rank.max(initial=0)) + 1) + rank
    if (np.diff(key) < 0).any():
        pieces = pieces[np.argsort(key, kind="stable")]
    out = np.empty(begins[-1], np.int32)
    out[begins[:-1]] = heads[counts]
    out[spread(begins[:-1] + 1, counts)] = pieces
    return begins, out


def _entry_pieces(maps: FeatureColumns, pool: _Pool) -> tuple[Int32, Int64, Int64]:
    """Return of each entry its piece and its name's rank, then how many each map has."""
    terms, codes = maps.terms, maps.codes
    names = sorted({term.name for term in terms})
    ranks = {name: at for at, name in enumerate(names)}
    rank_of = np.array([ranks[term.name] for term in terms], np.int64)
    is_list = np.array([term.kind in {"texts", "empty"} for term in terms], np.bool_)
    has_number = np.array([term.kind in {"number", "flag"} for term in terms], np.bool_)

    # A number has a piece for each of its values; a text has one.
    of_number = has_number[codes]
    bits = np.where(of_number, maps.values.view(np.int64), 0)
    value, distinct = _coded(bits)
    which, pairs = _coded(codes * np.int64(max(1, len(distinct))) + value)
    entry, at = np.divmod(pairs, max(1, len(distinct)))
    numbers = distinct[at].view(np.float64).tolist()
    made = [
        -1 if is_list[code] else pool.add(_piece(terms[code], number))
        for code, number in zip(entry.tolist(), numbers, strict=True)
    ]
    pieces = np.array(made, np.int32)[which]
    if not is_list[codes].any():
        return pieces, rank_of[codes], np.diff(maps.offsets)
    return _with_lists(maps, pool, pieces, rank_of, is_list)


def _with_lists(
    maps: FeatureColumns, pool: _Pool, pieces: Int32, rank_of: Int64, is_list: Any
) -> tuple[Int32, Int64, Int64]:
    """Return the same of maps with lists: the texts of one are several entries, and one piece."""
    codes, offsets = maps.codes, maps.offsets
    ranks, of = rank_of[codes], np.repeat(np.arange(len(maps)), np.diff(offsets))
    begins = np.ones(len(codes), np.bool_)
    begins[1:] = (of[1:] != of[:-1]) | (ranks[1:] != ranks[:-1])
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(codes))

    known: dict[tuple[int, ...], int] = {}
    out = pieces[starts]
    for at in np.flatnonzero(is_list[codes[starts]]).tolist():
        texts = tuple(codes[starts[at] : ends[at]].tolist())
        if texts not in known:
            listed = [maps.terms[code] for code in texts if maps.terms[code].kind == "texts"]
            said = number_or_text([term.text for term in listed])
            known[texts] = pool.add(_encode(maps.terms[texts[0]].name) + _encode(said))
        out[at] = known[texts]

    counts = np.bincount(of[starts], minlength=len(maps)).astype(np.int64)
    return out, ranks[starts], counts


def _piece(term: Term, number: float) -> bytes:
    value: Value = term.text if term.kind == "text" else number
    return _encode(term.name) + _encode(number_or_text(value))


def _coded(numbers: Int64) -> tuple[Int64, Int64]:
    """Return the code of each number, and the distinct ones, in the order in which they are met."""
    coded = pa.array(numbers).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_numpy()


def _map_head(count: int) -> bytes:
    """Return how msgpack heads a map."""
    head = _encode(dict.fromkeys(map(str, range(count)), 0))
    return head[: 1 if count < 16 else 3 if count < 1 << 16 else 5]
