"""How the events of layouts that are no plain table are read: lines, blocks, lists in a cell."""

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.imports.presets.forms import LIST, NUMBER, TIME
from simulator.imports.presets.preset import Reshape
from simulator.imports.presets.reading import with_columns
from simulator.imports.raw import RawRows


def split_lines(separator: str, names: Sequence[str], *, most: int | None = None) -> Reshape:
    """Return what splits lines at a separator of several characters; a short line has no ids.

    Args:
        separator: What stands between cells.
        names: The columns.
        most: How often a line is split at most; the rest of it is the last cell.
    """

    def reshape(rows: Iterator[RawRows]) -> Iterator[RawRows]:
        for part in rows:
            line = part.batch.column("line")
            cells = pc.split_pattern(line, separator, max_splits=most)
            right = pc.equal(pc.list_value_length(cells), len(names))
            if not pc.all(right).as_py():
                line = pc.if_else(right, line, separator * (len(names) - 1))
                cells = pc.split_pattern(line, separator, max_splits=most)
            columns = {name: pc.list_element(cells, at) for at, name in enumerate(names)}
            yield with_columns(part, columns)

    return reshape


def movie_blocks(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield ratings that stand in blocks, each under a line of its movie: ``movie:``."""
    movie, file = None, None
    split = split_lines(",", ("user", "rating", "date"))
    for part in rows:
        if part.file != file:
            movie, file = None, part.file
        line = part.batch.column("line")
        heads = pc.ends_with(line, ":")

        # A block may go on in the next batch.
        movies = pc.if_else(heads, pc.utf8_rtrim(line, ":"), pa.scalar(None, line.type))
        movies = pc.fill_null_forward(pa.concat_arrays([pa.array([movie], line.type), movies]))
        movie = movies[-1].as_py()
        movies = movies.slice(1)

        kept = np.flatnonzero(np.asarray(pc.invert(heads)))
        chosen = with_columns(part, {"line": line.take(pa.array(kept))}, kept)
        for ratings in split(iter([chosen])):
            columns = {name: ratings.batch.column(name) for name in ratings.batch.schema.names}
            yield with_columns(ratings, {"movie": movies.take(pa.array(kept)), **columns})


def clicked_impressions(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the clicks of impressions: items in one cell, each with ``-1`` if it was clicked."""
    for part in rows:
        shown = pc.split_pattern(pc.fill_null(part.batch.column("impressions"), ""), " ")
        item, parents = pc.list_flatten(shown), pc.list_parent_indices(shown)
        clicked = pc.ends_with(item, "-1")
        item, parents = item.filter(clicked), parents.filter(clicked)
        columns = {
            "user": part.batch.column("user").take(parents),
            "time": part.batch.column("time").take(parents),
            "news": pc.utf8_slice_codeunits(item, 0, -2),
        }
        yield with_columns(part, columns, np.asarray(parents))


def clicked_rows(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the clicked rows of the Open Bandit Dataset; the user is a group of its features."""
    for part in rows:
        names = part.batch.schema.names
        features = [name for name in names if re.fullmatch(r"user_feature_\d", name)]
        if "click" not in names or not features:
            yield part  # without the group, what is missing is in the error
            continue

        clicked = np.flatnonzero(np.asarray(pc.equal(part.batch.column("click"), "1")))
        batch = part.batch.take(pa.array(clicked))
        group = [pc.utf8_slice_codeunits(batch.column(name), 0, 8) for name in features]
        columns = {name: batch.column(name) for name in ("timestamp", "item_id") if name in names}
        columns["group"] = pc.binary_join_element_wise(*group, "-")
        yield with_columns(part, columns, clicked)


def implicit_zeros(value: str) -> Reshape:
    """Return what takes a rating of 0 for none, and says so in a column ``kind``.

    Args:
        value: The column of ratings.
    """

    def reshape(rows: Iterator[RawRows]) -> Iterator[RawRows]:
        for part in rows:
            columns = {name: part.batch.column(name) for name in part.batch.schema.names}
            if value in columns:
                rating = columns[value]
                implicit = pc.equal(rating, "0")
                columns[value] = pc.if_else(implicit, pa.scalar(None, pa.string()), rating)
                columns["kind"] = pc.if_else(implicit, "implicit", "rating")
            yield with_columns(part, columns)

    return reshape


def from_records(
    make: Callable[[dict[str, Any]], dict[str, Any]], columns: Mapping[str, pa.DataType]
) -> Reshape:
    """Return what makes a row of each line that is an object: JSON, or a Python dict.

    A line that is neither makes a row without ids.

    Args:
        make: Makes a row, by column, of an object.
        columns: The columns and their types: texts, numbers, lists of texts, or times.
    """

    def reshape(rows: Iterator[RawRows]) -> Iterator[RawRows]:
        for part in rows:
            lines = part.batch.column("line").to_pylist()
            made = [{} if (found := _object(line or "")) is None else make(found) for line in lines]
            yield with_columns(
                part,
                {
                    name: pa.array([_as(kind, row.get(name)) for row in made], kind)
                    for name, kind in columns.items()
                },
            )

    return reshape


def _object(line: str) -> dict[str, Any] | None:
    """Return the object that a line holds; None if it holds none."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        # Some published files hold Python dicts, one a line. Only literals are read.
        try:
            found = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def fields_of(**sources: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what takes some fields of an object, as they are.

    Args:
        sources: By the name of a column, the field.
    """
    return lambda found: {name: found.get(source) for name, source in sources.items()}


def _as(kind: pa.DataType, value: Any) -> Any:
    """Return a value as a column of a type takes it; None if it is none, or does not fit."""
    if value is None or kind == TIME:
        return value
    if kind == NUMBER:
        return as_number(value)
    if kind == LIST:
        return [str(one) for one in value] if isinstance(value, list) else None
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def as_number(value: Any) -> float | None:
    """Return a number, also one that is written with a dollar sign; None for anything else."""
    try:
        return float(str(value).strip().lstrip("$").replace(",", ""))
    except ValueError:
        return None


def parsed_numbers(texts: pa.Array) -> pa.Array:
    """Return texts as numbers; null where one is none."""
    return pa.array([as_number(text) for text in texts.to_pylist()], NUMBER)


def renamed(numbers: Collection[str] = (), **names: str) -> Reshape:
    """Return what keeps some columns under other names.

    Args:
        numbers: The new names of columns of numbers.
        names: By the new name, the column.
    """

    def reshape(rows: Iterator[RawRows]) -> Iterator[RawRows]:
        for part in rows:
            there = part.batch.schema.names
            columns = {new: part.batch.column(old) for new, old in names.items() if old in there}
            for name in numbers:
                columns[name] = parsed_numbers(columns[name])
            yield with_columns(part, columns)

    return reshape
