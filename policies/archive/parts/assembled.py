"""The bytes of decisions from columns, by compiled code."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64
from bandits.log.encoded_decisions import starts_of
from bandits.log.records import Apprentice, Ruled
from policies.archive.columns import FEATURE
from policies.archive.parts.assembling import (
    BEFORE_APPRENTICE,
    BEFORE_ARTIFACT,
    ELEMENTS,
    FLAG,
    LIST,
    NUMBER,
    POLICY,
    TEXT,
    USER,
    assemble,
)
from policies.archive.parts.shapes import bounds_of, elements_of

ASSEMBLED = frozenset(range(BEFORE_ARTIFACT, ELEMENTS + 1))
NAMED = ("spec", "snapshot_id", "catalogue", "user", "artifact", "profile")
"""How many elements the array of a decision may have that compiled code writes."""
NIL = b"\xc0"
HEAD_BYTES = 64
"""More than the parts of a record take that are there in every one; 5 are the most of a size."""

encode_part = msgspec.msgpack.Encoder().encode


class _Words:
    """The texts of several columns, by number, one after the other."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._sizes: list[Int64] = []
        self._count = 0
        self.used = 0

    def numbers(self, column: pa.Array) -> Int64:
        """Return a column of texts as numbers, -1 where it is null."""
        if pa.types.is_dictionary(column.type):
            indices, texts = column.indices, column.dictionary
            codes = (indices.fill_null(-1) if indices.null_count else indices).to_numpy()
        else:
            codes, texts = np.arange(len(column)), column

        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
        data = texts.buffers()[2]
        first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        self._data.append(b"" if data is None else data[first:last].to_pybytes())
        sizes = np.diff(offsets).astype(np.int64)
        self._sizes.append(sizes)

        # The last of these is of no text.
        self.used += int(np.append(sizes, 0)[codes].sum()) + 5 * len(codes)
        numbers = np.append(np.arange(self._count, self._count + len(sizes)), -1)
        self._count += len(sizes)
        found: Int64 = numbers[codes]
        return found

    def all(self) -> tuple[NDArray[np.uint8], Int64]:
        """Return their bytes, and where each begins, and the last ends."""
        starts = np.zeros(self._count + 1, np.int64)
        if self._sizes:
            np.cumsum(np.concatenate(self._sizes), out=starts[1:])
        return np.frombuffer(b"".join(self._data) + b"\0", np.uint8), starts


def assembled(
    batch: pa.RecordBatch,
    rows: Int64,
    policies: Sequence[str],
    elements: Sequence[int],
    rules: Sequence[Ruled | None],
    apprentices: Sequence[Apprentice | None],
) -> list[bytes]:
    """Return the bytes of n decisions.

    Args:
        batch: columns of them, and of entries that are none; no credits, nothing failed.
        rows: where they are, [n].
        policies: the policy of each, [n].
        elements: how many elements the array of each has, of ASSEMBLED, [n].
        rules: what the rules of each depended on, [n].
        apprentices: what each would have chosen, [n].
    """
    words, places = _Words(), rows
    texts = np.stack(
        [
            words.numbers(column)
            for column in (
                batch["event_id"],
                *(batch[name] for name in NAMED),
            )
        ],
        axis=1,
    )[places]
    policy = words.numbers(pa.array(policies, pa.string()).dictionary_encode())
    texts = np.insert(texts, POLICY, policy, axis=1)
    lists, scores = batch["features"], batch["scores"]
    maps, has_features = elements_of(lists, lists.values), _truths(lists.is_valid())
    context, own = _features(words, batch["context"]), _features(words, maps)
    # Between two of the decisions there are no features of others.
    between = np.ascontiguousarray(context[2][:, np.append(places, len(batch))])

    deferred, unserved = _truths(batch["deferred"]), _truths(batch["unserved"])
    # Of an unserved decision the column does not say: it was to be held out.
    holdout = _truths(batch["holdout"]) | unserved
    columns = [
        *(batch[name].fill_null(0).to_numpy() for name in ("actions", "slots")),
        np.diff(bounds_of(scores)),
        *(has_features, deferred, holdout, unserved),
    ]
    of_each = [*(column[places] for column in columns), elements]
    of_each.append(of_each[0] * of_each[1])
    numbers = np.stack(of_each, axis=1).astype(np.int64)
    action_ids = words.numbers(_flat(batch["action_ids"]))
    sources = words.numbers(elements_of(scores, scores.keys))
    of_sources = _flat(elements_of(scores, scores.items)).to_numpy().view(np.uint8)
    masses = _flat(batch["pmf"]).to_numpy().view(np.uint8)
    chosen = _flat(batch["chosen"]).to_numpy().astype(np.int64)

    entries = len(context[0]) + len(own[0])
    most = words.used + len(of_sources) + len(masses) + 14 * entries + HEAD_BYTES * len(batch)
    most += 5 * (len(chosen) + len(maps) + len(sources))
    of_rules = _encoded_rules(elements, rules, apprentices)
    most += sum(map(len, of_rules))
    out = np.empty(most, np.uint8)
    data, starts = words.all()
    arguments: list[Any] = [
        *(out, data, starts, np.ascontiguousarray(texts), np.ascontiguousarray(numbers)),
        *(*context[:2], between, *own, _truths(maps.is_valid()), action_ids, sources),
        *(of_sources, masses, chosen),
        *(np.frombuffer(b"".join(of_rules) + b"\0", np.uint8), starts_of(of_rules)),
    ]
    return _cut(out, assemble(*arguments))


def taught(batch: pa.RecordBatch, rows: Int64) -> list[bytes]:
    """Return the bytes of n decisions with no more than what their chosen actions teach.

    ``bandits.kernels.lessons`` reads them as it does whole ones: an action that was not chosen has
    no name and no features, and each slot's propensity is said to be 1. The event, what decided and
    the user are left out.

    Args:
        batch: columns of them, and of entries that are none; no credits.
        rows: where they are, int64[n].
    """
    words = _Words()
    nothing = int(words.numbers(pa.array([""]))[0])
    texts = np.full((len(rows), 8), nothing, np.int64)
    texts[:, USER:] = -1

    lists, scores = batch["features"], batch["scores"]
    maps, has_features = elements_of(lists, lists.values), _truths(lists.is_valid())
    actions, slots = (batch[name].fill_null(0).to_numpy() for name in ("actions", "slots"))
    chosen = _flat(batch["chosen"]).to_numpy().astype(np.int64)
    begins = bounds_of(batch["action_ids"])[:-1].astype(np.int64)
    at = np.repeat(begins, slots) + chosen

    # What was not chosen has no name, and no features.
    action_ids = np.full(int(actions.sum()), nothing, np.int64)
    action_ids[at] = words.numbers(_flat(batch["action_ids"]).take(pa.array(at)))
    has_map = np.zeros(len(maps), np.bool_)
    if len(maps):
        own = bounds_of(lists)[:-1].astype(np.int64)
        with_features = np.repeat(has_features, slots)
        has_map[(np.repeat(own, slots) + chosen)[with_features]] = True
        has_map &= _truths(maps.is_valid())
    context, own_features = _features(words, batch["context"]), _features(words, maps)
    between = np.ascontiguousarray(context[2][:, np.append(rows, len(batch))])

    of_each = [
        *(column[rows] for column in (actions, slots, np.diff(bounds_of(scores)), has_features)),
        *[np.zeros(len(rows), np.int64)] * 3,
        np.full(len(rows), BEFORE_ARTIFACT),
        slots[rows],
    ]
    numbers = np.stack(of_each, axis=1).astype(np.int64)
    sources = words.numbers(elements_of(scores, scores.keys))
    of_sources = _flat(elements_of(scores, scores.items)).to_numpy().view(np.uint8)
    masses = np.ones(len(chosen)).view(np.uint8)

    entries = len(context[0]) + len(own_features[0])
    most = words.used + len(of_sources) + len(masses) + 14 * entries + HEAD_BYTES * len(batch)
    most += 5 * (len(chosen) + len(maps) + len(sources)) + len(action_ids)
    data, starts = words.all()
    arguments: list[Any] = [
        *(np.empty(most, np.uint8), data, starts, texts, numbers),
        *(*context[:2], between, *own_features, has_map, action_ids, sources),
        *(of_sources, masses, chosen),
        *(np.zeros(1, np.uint8), np.zeros(len(rows) + 1, np.int64)),
    ]
    return _cut(arguments[0], assemble(*arguments))


def _cut(out: NDArray[np.uint8], ends: Int64) -> list[bytes]:
    """Return the records that were written one after the other."""
    whole, bounds = out[: int(ends[-1])].tobytes(), [0, *ends.tolist()]
    return [whole[first:last] for first, last in pairwise(bounds)]


def _encoded_rules(
    elements: Sequence[int],
    rules: Sequence[Ruled | None],
    apprentices: Sequence[Apprentice | None],
) -> list[bytes]:
    """Return the bytes of what the rules of each depended on, and of its apprentice."""
    # Most logs have none of either.
    if not any(rules) and not any(apprentices):
        return [2 * NIL if count > BEFORE_APPRENTICE else NIL for count in elements]
    found = []
    for ruled, own, count in zip(rules, apprentices, elements, strict=True):
        data = NIL if ruled is None else encode_part(ruled)
        if count > BEFORE_APPRENTICE:
            data += NIL if own is None else encode_part(own)
        found.append(data)
    return found


def _flat(column: pa.Array) -> pa.Array:
    return elements_of(column, column.values)


def _truths(column: pa.Array) -> NDArray[np.bool_]:
    if column.null_count:
        column = column.fill_null(False)
    found: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return found


def _features(words: _Words, maps: pa.Array) -> tuple[Int64, Int64, Int64]:
    """Return features as ``assemble`` takes them: entries, listed texts, where a map's begin.

    Raises:
        ValueError: a feature has no value, or several.
    """
    values = elements_of(maps, maps.items)
    entries = np.zeros((len(values), 3), np.int64)
    entries[:, 0] = words.numbers(elements_of(maps, maps.keys))
    listed, lengths = np.zeros(0, np.int64), np.zeros(len(values), np.int64)
    held = np.zeros(len(values), np.int64)

    for field, kind in zip(FEATURE, (NUMBER, FLAG, TEXT, LIST), strict=True):
        part = values.field(field.name)
        if part.null_count == len(part):
            continue
        # The value of another kind is 0 here.
        is_own = _truths(part.is_valid())
        held += is_own
        entries[:, 1] += kind * is_own
        if kind == NUMBER:
            entries[:, 2] += part.fill_null(0.0).to_numpy().view(np.int64)
        elif kind == FLAG:
            entries[:, 2] += _truths(part)
        elif kind == TEXT:
            entries[:, 2] += np.maximum(words.numbers(part), 0)
        else:
            lengths = np.diff(bounds_of(part)).astype(np.int64)
            entries[:, 2] += lengths
            listed = words.numbers(_flat(part))

    # Compiled code goes by these numbers.
    if (held != 1).any():
        raise ValueError("a feature is a number, a flag, a text or texts, and one of them")
    by_map = bounds_of(maps).astype(np.int64)
    texts = np.concatenate([[0], np.cumsum(lengths)])
    return entries, listed, np.ascontiguousarray(np.stack([by_map, texts[by_map]]))
