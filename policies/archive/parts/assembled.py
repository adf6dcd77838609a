"""The bytes of decisions from columns of layout 2, by compiled code."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64
from policies.archive.columns import FEATURE
from policies.archive.parts.assembling import FLAG, LIST, NUMBER, TEXT, assemble
from policies.archive.parts.shapes import bounds_of, elements_of

HEAD_BYTES = 64
"""More than the parts of a record take that are there in every one; 5 are the most of a size."""


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
            codes = column.indices.fill_null(-1).to_numpy().astype(np.int64)
            texts = column.dictionary
        else:
            codes, texts = np.arange(len(column)), column

        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
        data = texts.buffers()[2]
        first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        self._data.append(b"" if data is None else data[first:last].to_pybytes())
        sizes = np.diff(offsets).astype(np.int64)
        self._sizes.append(sizes)

        self.used += int(sizes[codes[codes >= 0]].sum()) + 5 * len(codes)
        numbers: Int64 = np.where(codes < 0, -1, codes + self._count)
        self._count += len(sizes)
        return numbers

    def all(self) -> tuple[NDArray[np.uint8], Int64]:
        """Return their bytes, and where each begins, and the last ends."""
        starts = np.zeros(self._count + 1, np.int64)
        if self._sizes:
            np.cumsum(np.concatenate(self._sizes), out=starts[1:])
        return np.frombuffer(b"".join(self._data) + b"\0", np.uint8), starts


def assembled(batch: pa.RecordBatch, policies: list[str]) -> list[bytes]:
    """Return the bytes of n decisions.

    Args:
        batch: columns of them alone, [n]; no credits, nothing failed.
        policies: the policy of each.
    """
    words = _Words()
    texts = np.stack(
        [
            words.numbers(column)
            for column in (
                batch["event_id"],
                pa.array(policies, pa.string()).dictionary_encode(),
                *(batch[name] for name in ("spec", "snapshot_id", "catalogue", "user")),
            )
        ],
        axis=1,
    )
    lists, scores = batch["features"], batch["scores"]
    maps, has_features = elements_of(lists, lists.values), _truths(lists.is_valid())
    context, own = _features(words, batch["context"]), _features(words, maps)

    deferred, unserved = _truths(batch["deferred"]), _truths(batch["unserved"])
    # Of an unserved decision the column does not say: it was to be held out.
    holdout = _truths(batch["holdout"].fill_null(False)) | unserved
    numbers = np.stack(
        [
            *(batch[name].to_numpy().astype(np.int64) for name in ("actions", "slots")),
            np.diff(bounds_of(scores)).astype(np.int64),
            *(each.astype(np.int64) for each in (has_features, deferred, holdout, unserved)),
        ],
        axis=1,
    )
    action_ids = words.numbers(_flat(batch["action_ids"]))
    sources = words.numbers(elements_of(scores, scores.keys))
    of_sources = _flat(elements_of(scores, scores.items)).to_numpy().tobytes()
    masses = _flat(batch["pmf"]).to_numpy().tobytes()
    chosen = _flat(batch["chosen"]).to_numpy().astype(np.int64)

    entries = len(context[0]) + len(own[0])
    most = words.used + len(of_sources) + len(masses) + 14 * entries + HEAD_BYTES * len(batch)
    most += 5 * (len(chosen) + len(maps) + len(sources))
    out = np.empty(most, np.uint8)
    data, starts = words.all()
    arguments: list[Any] = [
        *(out, data, starts, np.ascontiguousarray(texts), np.ascontiguousarray(numbers)),
        *(*context, *own, _truths(maps.is_valid()), action_ids, sources),
        *(np.frombuffer(of_sources, np.uint8), np.frombuffer(masses, np.uint8), chosen),
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
    found: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False).astype(bool)
    return found


def _features(words: _Words, maps: pa.Array) -> tuple[Int64, Int64, Int64]:
    """Return features as ``assemble`` takes them: entries, listed texts, where a map's begin."""
    values = elements_of(maps, maps.items)
    entries = np.zeros((len(values), 3), np.int64)
    entries[:, 0] = words.numbers(elements_of(maps, maps.keys))
    listed, lengths = np.zeros(0, np.int64), np.zeros(len(values), np.int64)

    for field, kind in zip(FEATURE, (NUMBER, FLAG, TEXT, LIST), strict=True):
        part = values.field(field.name)
        if part.null_count == len(part):
            continue
        own = _truths(part.is_valid())
        entries[own, 1] = kind
        entries[own, 2] = _values(words, part, kind)[own]
        if kind == LIST:
            lengths = np.diff(bounds_of(part)).astype(np.int64)
            listed = words.numbers(_flat(part))

    by_map = bounds_of(maps).astype(np.int64)
    texts = np.concatenate([[0], np.cumsum(lengths)])
    return entries, listed, np.ascontiguousarray(np.stack([by_map, texts[by_map]]))


def _values(words: _Words, part: pa.Array, kind: int) -> Any:
    if kind == NUMBER:
        return part.fill_null(0.0).to_numpy().view(np.int64)
    if kind == FLAG:
        return _truths(part.fill_null(False)).astype(np.int64)
    if kind == TEXT:
        return words.numbers(part)
    return np.diff(bounds_of(part)).astype(np.int64)
