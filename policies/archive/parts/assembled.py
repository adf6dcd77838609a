"""The bytes of decisions from columns, by compiled code."""

from collections.abc import Sequence
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
    numbers = np.stack(of_each, axis=1).astype(np.int64)
    action_ids = words.numbers(_flat(batch["action_ids"]))
    sources = words.numbers(elements_of(scores, scores.keys))
    of_sources = _flat(elements_of(scores, scores.items)).to_numpy().view(np.uint8)
    masses = _flat(batch["pmf"]).to_numpy().view(np.uint8)
    chosen = _flat(batch["chosen"]).to_numpy().astype(np.int64)

    entries = len(context[0]) + len(own[0])
    most = words.used + len(of_sources) + len(masses) + 14 * entries + HEAD_BYTES * len(batch)
    most += 5 * (len(chosen) + len(maps) + len(sources))
    of_rules = [NIL if each is None else encode_part(each) for each in rules]
    of_rules = [
        rules + (NIL if own is None else encode_part(own)) if count > BEFORE_APPRENTICE else rules
        for rules, own, count in zip(of_rules, apprentices, elements, strict=True)
    ]
    most += sum(map(len, of_rules))
    out = np.empty(most, np.uint8)
    data, starts = words.all()
    arguments: list[Any] = [
        *(out, data, starts, np.ascontiguousarray(texts), np.ascontiguousarray(numbers)),
        *(*context[:2], between, *own, _truths(maps.is_valid()), action_ids, sources),
        *(of_sources, masses, chosen),
        *(np.frombuffer(b"".join(of_rules) + b"\0", np.uint8), starts_of(of_rules)),
    ]
    ends = assemble(*arguments)
    whole, first, records = out[: int(ends[-1])].tobytes(), 0, []
    for last in ends.tolist():
        records.append(whole[first:last])
        first = last
    return records


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
