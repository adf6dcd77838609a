"""Items and users of published layouts, with their features as a data set takes them."""

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.imports.columns import EVENT_COLUMNS, ColumnNames, recognise_columns
from simulator.imports.presets.forms import LIST
from simulator.imports.presets.layouts import parsed_numbers, split_lines
from simulator.imports.presets.preset import Reshape
from simulator.imports.presets.reading import with_columns
from simulator.imports.raw import RawRows

YEAR = r"\((?P<year>\d{4})\)\s*$"
TEXTS = re.compile(r"(title|name|review|description|text|summary)$")
"""Columns of RecBole whose words are a text, not a list of things."""
NEVER_MS = 0
"""An item that is available until this time is learned from, and never chosen."""


def amazon_item(found: dict[str, Any], *, key: str) -> dict[str, Any]:
    """Return an item of Amazon's metadata, of 2014 and of 2023.

    Args:
        found: The object.
        key: The field that is the id.
    """
    text = found.get("description")
    categories = found.get("categories") or []
    if categories and isinstance(categories[0], list):  # 2014: several paths
        categories = [name for path in categories for name in path]
    return {
        "id": found.get(key),
        "title": found.get("title"),
        "brand": found.get("brand") or found.get("store"),
        "main_category": found.get("main_category"),
        "categories": list(dict.fromkeys(str(name) for name in categories)),
        "price": found.get("price"),
        "description": " ".join(map(str, text)) if isinstance(text, list) else text,
    }


def steam_item(found: dict[str, Any]) -> dict[str, Any]:
    """Return a game of ``steam_games.json``."""
    return {
        "id": found.get("id"),
        "title": found.get("app_name") or found.get("title"),
        "developer": found.get("developer"),
        "genres": found.get("genres"),
        "tags": found.get("tags"),
        "price": found.get("price"),
    }


def gorse_item(found: dict[str, Any]) -> dict[str, Any]:
    """Return an item of Gorse; a hidden one is never available."""
    return {
        "id": found.get("ItemId"),
        "categories": found.get("Categories"),
        "labels": _labels(found.get("Labels")),
        "comment": found.get("Comment"),
        "available_until": NEVER_MS if found.get("IsHidden") else None,
    }


def gorse_user(found: dict[str, Any]) -> dict[str, Any]:
    """Return a user of Gorse."""
    return {"id": found.get("UserId"), "labels": _labels(found.get("Labels"))}


def _labels(value: Any) -> list[str]:
    """Return Gorse's labels, a list or an object of them, as a list."""
    if isinstance(value, dict):
        pairs = [
            (key, one)
            for key, many in value.items()
            for one in (many if isinstance(many, list) else [many])
        ]
        return [f"{key}={one}" for key, one in pairs]
    return value if isinstance(value, list) else []


def films(part: RawRows, title: pa.Array, ids: pa.Array, genres: pa.Array) -> RawRows:
    """Return films with their genres and decade; the year stands at the end of the title.

    Args:
        part: The rows that they are made of.
        title: Texts.
        ids: Texts.
        genres: Lists of texts.
    """
    years = pc.struct_field(pc.extract_regex(title, YEAR), "year")
    decades = pc.binary_join_element_wise(pc.utf8_slice_codeunits(years, 0, 3), "0", "")
    return with_columns(
        part, {"id": ids.cast(pa.string()), "title": title, "genres": genres, "decade": decades}
    )


def barred_genres(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield films whose genres are in one cell, with bars between them."""
    for part in rows:
        movie, title, genres = (part.batch.column(at) for at in range(3))
        known = pc.if_else(pc.match_substring(genres, "(no genres listed)"), "", genres)
        lists = [[g for g in (cell or "").split("|") if g] for cell in known.to_pylist()]
        yield films(part, title, movie, pa.array(lists, LIST))


def flagged_genres(genres: Sequence[str]) -> Reshape:
    """Return what reads films whose genres are a column of 0 or 1 each, from the sixth on.

    Args:
        genres: The names; the first one says that none is known.
    """

    def reshape(rows: Iterator[RawRows]) -> Iterator[RawRows]:
        for part in rows:
            flags = [
                np.asarray(pc.equal(part.batch.column(name).cast(pa.string()), "1"))
                for name in genres[1:]
            ]
            lists = [
                [name for name, set_ in zip(genres[1:], row, strict=True) if set_]
                for row in zip(*flags, strict=True)
            ]
            ids, title = part.batch.column("movie"), part.batch.column("title")
            yield films(part, title, ids, pa.array(lists, LIST))

    return reshape


def atomic_films(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the films of RecBole's copy of MovieLens 100K as those of its own files."""
    for part in rows:
        columns = {
            name: part.batch.column(name).cast(pa.string()) for name in part.batch.schema.names
        }
        year = columns["release_year:token"]
        genres = [
            [genre for genre in (cell or "").split() if genre != "unknown"]
            for cell in columns["class:token_seq"].to_pylist()
        ]

        known = pc.match_substring_regex(year, r"^\d{4}$")
        decade = pc.binary_join_element_wise(pc.utf8_slice_codeunits(year, 0, 3), "0", "")

        yield with_columns(
            part,
            {
                "id": columns["item_id:token"],
                "title": columns["movie_title:token_seq"],
                "genres": pa.array(genres, LIST),
                "decade": pc.if_else(known, decade, pa.scalar(None, pa.string())),
            },
        )


def atomic_rows(rows: Iterator[RawRows], *, wanted: Mapping[str, ColumnNames]) -> Iterator[RawRows]:
    """Yield items or users of RecBole's atomic files; each column is of the type in its name.

    Args:
        rows: The files'.
        wanted: The column that is the id.
    """
    for part in rows:
        names = part.batch.schema.names
        identity = next(iter(recognise_columns(names, part.file, wanted=wanted).values()))
        columns = {"id": part.batch.column(identity).cast(pa.string())}
        for name in names:
            plain, _, kind = name.partition(":")
            if name != identity:
                columns[plain] = _atomic_column(part.batch.column(name), plain, kind)
        yield with_columns(part, columns)


atomic_items = functools.partial(atomic_rows, wanted={"item": EVENT_COLUMNS["item"]})
atomic_users = functools.partial(atomic_rows, wanted={"user": EVENT_COLUMNS["user"]})


def _atomic_column(values: pa.Array, name: str, kind: str) -> pa.Array:
    text = values.cast(pa.string())
    if kind == "float":
        return parsed_numbers(text)
    if kind.endswith("_seq") and not TEXTS.search(name):
        cells = [None if cell is None else cell.split() for cell in text.to_pylist()]
        if kind == "float_seq":
            return pa.array(
                [cell and [float(x) for x in cell] for cell in cells], pa.list_(pa.float64())
            )
        return pa.array(cells, LIST)
    return text


def latest_properties(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield each item of RetailRocket with its latest category and whether it was available."""
    latest: dict[str, dict[str, tuple[int, str]]] = {"categoryid": {}, "available": {}}
    last = None
    for part in rows:
        last = part
        for name, known in latest.items():
            chosen = part.batch.filter(pc.equal(part.batch.column("property"), name))
            cells = (chosen.column(c).to_pylist() for c in ("itemid", "timestamp", "value"))
            for item, time, value in zip(*cells, strict=True):
                if item not in known or known[item][0] <= int(time):
                    known[item] = (int(time), value)
    if last is None:
        return

    items = sorted({item for known in latest.values() for item in known})
    category, available = latest["categoryid"], latest["available"]
    columns = {
        "id": pa.array(items, pa.string()),
        "category": pa.array([category.get(item, (0, None))[1] for item in items], pa.string()),
        "available": pa.array([available[i][1] == "1" if i in available else None for i in items]),
    }
    yield RawRows(last.file, 1, pa.RecordBatch.from_pydict(columns))


def news_items(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the articles of MIND: category, subcategory, title and abstract."""
    for part in rows:
        columns = {name: part.batch.column(name) for name in part.batch.schema.names}
        yield with_columns(
            part,
            {
                "id": columns["news"],
                **{
                    name: columns[name] for name in ("category", "subcategory", "title", "abstract")
                },
            },
        )


def escaped_books(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the books of BX-Books.csv: quotes within a cell stand behind a backslash."""
    for part in rows:
        cells = []
        for line in part.batch.column("line").to_pylist():
            cell = next(csv.reader([line], delimiter=";", escapechar="\\"), [])
            if len(cell) >= 5 and cell[0] != "ISBN":
                cells.append(cell)
        years = [int(row[3]) if row[3].isdigit() and row[3] != "0" else None for row in cells]
        columns: dict[str, pa.Array] = {
            name: pa.array([row[at] for row in cells], pa.string())
            for name, at in (("id", 0), ("title", 1), ("author", 2), ("publisher", 4))
        }
        yield with_columns(part, {**columns, "year": pa.array(years, pa.int64())})


def titled_movies(rows: Iterator[RawRows]) -> Iterator[RawRows]:
    """Yield the films of Netflix: id, year and title, which may hold commas."""
    for part in split_lines(",", ("id", "year", "title"), most=2)(rows):
        columns = {name: part.batch.column(name) for name in ("id", "title")}
        yield with_columns(part, {**columns, "year": parsed_numbers(part.batch.column("year"))})
