"""Columns of items and users: of what kind each is, and what in it no item or user may have.

Nothing is left out in silence: values are counted under a reason, and a note names the row and the
file of one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import DataSetError
from bandits.values import MAX_FEATURE
from policies.data.items import column_kind
from policies.items.changes import MAX_TEXT_BYTES, MAX_VECTOR

Mask = NDArray[np.bool_]
Int64 = NDArray[np.int64]

BAR = "|"
BARRED = 0.1
"""A column of text is lists where so large a share of its values has a bar in it."""
MOSTLY = 0.5
"""A column is what more than this share of its values say; the others are counted."""
ROW_NUMBERS = re.compile(r"\s*|Unnamed: \d+")
"""Names of columns that programs write in front of a table, to number its rows."""
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_DECIMAL_COMMA = r"^\s*-?\d+(\.\d{3})*,\d+\s*$"
_BRACKETS = r"^\s*\[[\s\S]*\]\s*$"


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the rows of a table stand in its files: each of ``counts`` rows, one after the other.

    ``rows``: the number of each row that is left, among all.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    rows: Int64

    @classmethod
    def of(cls, files: Sequence[str], counts: Sequence[int]) -> Self:
        """Return the places of all rows of some files, with how many each has."""
        return cls(tuple(files), tuple(counts), np.arange(sum(counts)))

    def kept(self, mask: Mask) -> Self:
        """Return the places of the rows that are kept."""
        return replace(self, rows=self.rows[mask])

    def at(self, index: int) -> str:
        """Return in words where a row is, counted from 1, without a header."""
        row = int(self.rows[index])
        for name, count in zip(self.files, self.counts, strict=True):
            if row < count:
                return f"row {row + 1:,} of {name}"
            row -= count
        raise IndexError(index)


@dataclass(slots=True)
class ReadItems:
    """A table of items or users.

    ``left_out``: how many rows or values were left out, by reason. ``notes``: what was found out.
    ``places``: where the rows stand, as far as it is known. ``texts``: columns that are text, as
    somebody said.
    """

    table: "pa.Table"
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    places: Places | None = None
    texts: set[str] = field(default_factory=set)

    def first_of(self, mask: Mask) -> str:
        """Return what names the first of some rows: its id, and where it stands."""
        at = int(np.argmax(mask))
        named = repr(self.table["id"][at].as_py())
        return named if self.places is None else f"{named} ({self.places.at(at)})"


def clean_column(read: ReadItems, name: str, what: str) -> None:
    """Turn one column into what a data set keeps, or leave it out, and say so.

    Args:
        read: the table, changed in place.
        name: the column.
        what: ``items`` or ``users``.
    """
    at, column = read.table.column_names.index(name), read.table[name]
    if name in read.texts:
        column = _as_text(column, name, what)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # An empty cell is no category of its own.
        column = column.cast(pa.string())
        is_blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(is_blank, pa.scalar(None, pa.string()), column)
    if column.null_count == len(column) or ROW_NUMBERS.fullmatch(name):
        why = "is empty" if column.null_count == len(column) else "has no name of its own"
        read.table = read.table.remove_column(at)
        read.notes.append(f"{what}: column {name!r} {why}, and left out")
        return

    if pa.types.is_string(column.type) and name not in read.texts:
        column = _of_texts(read, name, what, column)
    kind = "text" if name in read.texts else column_kind(column, name)
    if kind is None:
        read.table = read.table.remove_column(at)
        read.notes.append(f"{what}: column {name!r} is {column.type}, and left out")
        return

    odd = {"number": _odd_numbers, "vector": _odd_vectors}.get(kind)
    for why, mask in () if odd is None else odd(column):
        column = _without(read, name, what, column, mask, why)
    if column.null_count == len(column):
        read.table = read.table.remove_column(at)
        return
    read.table = read.table.set_column(at, name, column)
    if kind == "vector":
        _note_lengths(read, name, what)


def _as_text(column: "pa.ChunkedArray", name: str, what: str) -> "pa.ChunkedArray":
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        raise DataSetError(
            f"the table of {what}: column {name!r} is {column.type}, and no text", "columns.text"
        ) from None


def _without(
    read: ReadItems, name: str, what: str, column: "pa.ChunkedArray", mask: Mask, why: str
) -> "pa.ChunkedArray":
    """Return a column without some values, which are counted under their reason.

    Args:
        read: the table.
        name: the column's.
        what: ``items`` or ``users``.
        column: its values.
        mask: bool[n], those that are left out.
        why: what is wrong with them.
    """
    if not (count := int(mask.sum())):
        return column
    read.left_out[f"{what}: values of {name} {why}"] = count
    read.notes.append(
        f"{what}: column {name!r}: {count:,} {'values are' if count > 1 else 'value is'} left out"
        f" ({why}), such as that of {read.first_of(mask)}"
    )
    return column.take(pa.array(np.arange(len(column)), mask=mask))


def _odd_numbers(column: "pa.ChunkedArray") -> list[tuple[str, Mask]]:
    """Return the numbers that are no features, by reason."""
    there = np.asarray(pc.is_valid(column))
    numbers = np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), 0.0))
    finite = np.isfinite(numbers)
    return [
        ("that are NaN or infinite", there & ~finite),
        (f"beyond {MAX_FEATURE:g}", there & finite & (np.abs(numbers) > MAX_FEATURE)),
    ]


def _odd_vectors(column: "pa.ChunkedArray") -> list[tuple[str, Mask]]:
    """Return the vectors that no item may have, by reason; numbers are float32 when compared."""
    whole = column.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(whole), -1))
    parents = np.asarray(pc.list_parent_indices(whole))
    inner = pc.list_flatten(whole).cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        numbers = np.asarray(pc.fill_null(inner, np.nan)).astype(np.float32)
    odd = np.zeros(len(whole), np.bool_)
    odd[parents[~np.isfinite(numbers)]] = True
    return [
        ("with a number that is missing, NaN or infinite", odd),
        ("that are empty vectors", lengths == 0),
        (f"of more than {MAX_VECTOR:,} numbers", ~odd & (lengths > MAX_VECTOR)),
    ]


def note_texts(read: ReadItems, what: str) -> None:
    """Say which items have longer texts than an item may have: they are cut when they are served.

    Args:
        read: the table.
        what: ``items`` or ``users``.
    """
    total = np.zeros(read.table.num_rows, np.int64)
    for name in read.table.column_names:
        column = read.table[name]
        if name in read.texts or (name != "id" and column_kind(column, name) == "text"):
            sizes = pc.binary_length(column.cast(pa.large_string()))
            total += np.asarray(pc.fill_null(sizes, 0))
    long = total > MAX_TEXT_BYTES
    if what == "items" and long.any():
        have = "has" if long.sum() == 1 else "have"
        read.notes.append(
            f"items: {long.sum():,} {have} more than the {MAX_TEXT_BYTES:,} bytes of text that an"
            f" item may have, such as {read.first_of(long)}: what is beyond is cut when served"
        )


def _note_lengths(read: ReadItems, name: str, what: str) -> None:
    """Say which vectors cannot be compared with most, since they have another length."""
    lengths = pc.list_value_length(read.table[name])
    counts = {
        each["values"].as_py(): each["counts"].as_py()
        for each in pc.value_counts(lengths)
        if each["values"].as_py()
    }
    if len(counts) < 2:
        return
    usual = min(counts, key=lambda length: (-counts[length], length))
    others = pc.and_(pc.not_equal(lengths, usual), pc.greater(lengths, 0))
    such = np.asarray(pc.fill_null(others, False))
    read.notes.append(
        f"{what}: column {name!r}: {counts[usual]:,} vectors have {usual} numbers;"
        f" {such.sum():,} have another length, such as that of {read.first_of(such)}, and are"
        " compared with nothing"
    )


def _of_texts(
    read: ReadItems, name: str, what: str, column: "pa.ChunkedArray"
) -> "pa.ChunkedArray":
    """Return a column of texts as lists if that is what it holds; say what else it may be meant as.

    Args:
        read: the table.
        name: the column's.
        what: ``items`` or ``users``.
        column: its values, none of them blank.
    """
    filled = column.drop_null()
    in_brackets = np.asarray(pc.fill_null(pc.match_substring_regex(column, _BRACKETS), False))
    if in_brackets.sum() > MOSTLY * len(filled):
        lists, unreadable = _lists(column.to_pylist())
        if unreadable.sum() < MOSTLY * len(filled):
            read.notes.append(f"{what}: column {name!r}: lists, as JSON")
            why = "that are not lists as the others are"
            return _without(read, name, what, pa.chunked_array([lists]), unreadable, why)
        read.notes.append(
            f"{what}: column {name!r} is text: lists are written as JSON, as in"
            f' ["a", "b"] or [0.5, 1], unlike that of {read.first_of(unreadable)}'
        )
        return column

    barred = pc.mean(pc.match_substring(filled, BAR).cast(pa.float64())).as_py()
    if barred >= BARRED:
        read.notes.append(f"{what}: column {name!r}: lists, split at {BAR}")
        return pa.chunked_array(pc.split_pattern(column, BAR))

    if pc.all(pc.match_substring_regex(filled, _DECIMAL_COMMA)).as_py():
        read.notes.append(
            f"{what}: column {name!r} is text: numbers have a point, as in 4.50, not a comma"
        )
    numbers = pc.match_substring_regex(column, NUMBER)
    words = np.asarray(pc.fill_null(pc.invert(numbers), False))
    if words.any() and words.sum() <= MOSTLY * len(filled):
        word = column[int(np.argmax(words))].as_py()
        read.notes.append(
            f"{what}: column {name!r} is text, since {words.sum():,} of its {len(filled):,} values"
            f" {'are no numbers' if words.sum() > 1 else 'is no number'}, such as {word[:60]!r} of"
            f" {read.first_of(words)}: leave such cells empty for a feature that is a number"
        )
    return column


def _lists(texts: "Sequence[str | None]") -> tuple["pa.Array", Mask]:
    """Return texts as lists of numbers or of texts, whatever most are, and which are neither.

    A list of texts may have numbers in it, as texts.
    """
    found = [None if text is None else _list(text) for text in texts]
    vectors = [_is_vector(each) for each in found]
    words = [_is_words(each) and not fits for each, fits in zip(found, vectors, strict=True)]
    if sum(vectors) >= sum(words):
        read: list[Any] = [
            each if fits else None for each, fits in zip(found, vectors, strict=True)
        ]
        lists = pa.array(
            [each and [_number(value) for value in each] for each in read], pa.list_(pa.float64())
        )
    else:
        read = [
            each if fits or vector else None
            for each, fits, vector in zip(found, words, vectors, strict=True)
        ]
        lists = pa.array([each and [_text(value) for value in each] for each in read])
    lost = [text is not None and each is None for text, each in zip(texts, read, strict=True)]
    return lists, np.array(lost, np.bool_)


def _list(text: str) -> list[Any] | None:
    """Return a JSON list; None where there is none. NaN and Infinity are numbers here."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _is_vector(values: list[Any] | None) -> bool:
    return values is not None and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )


def _is_words(values: list[Any] | None) -> bool:
    return values is not None and all(
        value is None or isinstance(value, str | int | float) for value in values
    )


def _number(value: float | None) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.inf


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
