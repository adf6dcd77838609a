"""Columns of lists and maps, as Arrow has them, as flat arrays of codes and numbers."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.logs.actions.columns import FeatureColumns, Term
from simulator.logs.archive.entries import Int32, Int64, offsets_of

KINDS: tuple[Literal["number", "flag", "text", "texts", "empty"], ...] = (
    *("number", "flag", "text", "texts", "empty"),
)
"""The kinds of a feature's terms; the first four are fields of the archive's column."""
_NUMBER, _FLAG, _TEXT, _TEXTS, _EMPTY = range(5)


class Lists(NamedTuple):
    """Some lists of a column, or maps.

    ``counts``: int64[m], their lengths. ``which``: the places of their elements, one list after the
    other, in the column's child.
    """

    counts: Int64
    which: slice | Int64

    @classmethod
    def of(cls, column: Any, places: Any) -> "Lists":
        """Return the lists of some places of a column; one that is null is empty."""
        offsets = column.offsets.to_numpy().astype(np.int64)
        starts, ends = offsets[:-1][places], offsets[1:][places]
        counts = ends - starts

        # Mostly nothing lies between them.
        if not len(counts) or int(counts.sum()) == ends[-1] - starts[0]:
            return cls(counts, slice(int(starts[0]), int(ends[-1])) if len(counts) else slice(0, 0))
        return cls(counts, flat_places(starts, counts))

    def take(self, child: pa.Array) -> pa.Array:
        """Return their elements."""
        if isinstance(self.which, slice):
            return child.slice(self.which.start, self.which.stop - self.which.start)
        return child.take(pa.array(self.which))


def flat_places(starts: Int64, counts: Int64) -> Int64:
    """Return the places of the elements of groups: ``counts`` of them from each start on."""
    begins = offsets_of(counts)
    places: Int64 = np.repeat(starts - begins[:-1], counts) + np.arange(begins[-1])
    return places


def coded(column: pa.Array) -> pa.DictionaryArray:
    """Return texts as codes."""
    return column if isinstance(column, pa.DictionaryArray) else pc.dictionary_encode(column)


def merge_codes(parts: Sequence[pa.DictionaryArray]) -> tuple[Int32, list[str]]:
    """Return the codes of all parts, one after the other, and what they mean; null is -1."""
    if not parts:
        return np.zeros(0, np.int32), []
    merged = pa.chunked_array(parts).unify_dictionaries().chunks
    codes = [
        (pc.fill_null(part.indices, -1) if part.null_count else part.indices).to_numpy()
        for part in merged
    ]
    return np.concatenate(codes).astype(np.int32, copy=False), merged[0].dictionary.to_pylist()


def feature_columns(parts: Sequence[tuple[pa.MapArray, Any]]) -> FeatureColumns:
    """Return feature maps of an archive, those of some places of each part's column."""
    lists = [Lists.of(column, places) for column, places in parts]
    names, name_list = merge_codes(
        [coded(each.take(column.keys)) for each, (column, _) in zip(lists, parts, strict=True)]
    )
    items = [each.take(column.items) for each, (column, _) in zip(lists, parts, strict=True)]
    counts = np.concatenate([np.zeros(0, np.int64), *(each.counts for each in lists)])

    number, flag, text, texts = ([part.field(name) for part in items] for name in KINDS[:_EMPTY])
    kind = np.full(len(names), _NUMBER, np.int8)
    values = _concatenated([_filled(part, 0.0) for part in number], np.float64)
    said = np.full(len(names), -1, np.int64)

    is_flag, is_text, is_list = (_there(parts_of) for parts_of in (flag, text, texts))
    if is_flag.any():
        kind[is_flag] = _FLAG
        values[is_flag] = _concatenated([_filled(part, False) for part in flag], np.bool_)[is_flag]

    # Texts of lists and texts by themselves have one list of meanings.
    elements = [Lists.of(part, slice(None)) for part in texts]
    codes, meanings = merge_codes(
        [coded(part) for part in text]
        + [coded(each.take(part.values)) for each, part in zip(elements, texts, strict=True)]
    )
    if is_text.any():
        kind[is_text], values[is_text] = _TEXT, 1.0
        said[is_text] = codes[: len(names)][is_text]

    # Each text of a list is an entry; a list without any is one, too.
    if is_list.any():
        sizes = np.concatenate([each.counts for each in elements])
        repeats = np.where(is_list, np.maximum(sizes, 1), 1)
        kind[is_list], values[is_list] = np.where(sizes[is_list] > 0, _TEXTS, _EMPTY), 1.0
        owner = offsets_of(counts)
        counts = np.diff(offsets_of(repeats)[owner])
        names, kind, values, said = (
            np.repeat(each, repeats) for each in (names, kind, values, said)
        )
        said[kind == _TEXTS] = codes[len(is_list) :]

    which, terms = _terms(names, kind, said, name_list, meanings)
    return FeatureColumns(offsets_of(counts), which, values, terms)


def _terms(
    names: Int32, kind: NDArray[np.int8], said: Int64, name_list: list[str], meanings: list[str]
) -> tuple[Int32, list[Term]]:
    """Return the code of each entry, and what each code means."""
    width = len(meanings) + 1
    numbers = (names.astype(np.int64) * len(KINDS) + kind) * width + said + 1
    distinct = pc.dictionary_encode(pa.array(numbers))

    terms = []
    for number in distinct.dictionary.to_pylist():
        rest, text = divmod(number, width)
        name, of_kind = divmod(rest, len(KINDS))
        terms.append(Term(name_list[name], KINDS[of_kind], meanings[text - 1] if text else ""))
    return distinct.indices.to_numpy(), terms


def _there(parts: Sequence[pa.Array]) -> NDArray[np.bool_]:
    return _concatenated(
        [part.is_valid().to_numpy(zero_copy_only=False) for part in parts], np.bool_
    )


def _filled(part: pa.Array, otherwise: Any) -> NDArray[Any]:
    filled = part.fill_null(otherwise) if part.null_count else part
    values: NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return values


def _concatenated(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts])
