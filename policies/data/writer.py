"""Writing a data set: beside its place, then renamed to it, so that nobody sees a part of one."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bandits.errors import DataSetError, plain
from policies.data.data_set import EVENT_SCHEMA, DataSet
from policies.data.items import column_kind, items_table
from policies.data.manifest import (
    EVENTS,
    FORMAT,
    ITEMS,
    MANIFEST,
    USERS,
    Counts,
    Manifest,
    StoredFile,
    WeightOptions,
)

CODED_SCHEMA = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.type == pa.string()
        else field
        for field in EVENT_SCHEMA
    ]
)
"""Events whose texts are dictionaries."""
ROW_GROUP = 1 << 20
DICTIONARY_BYTES = 64 << 20
"""A dictionary may grow so large before texts are written one by one."""
LEFT_BEHIND_S = 3600
"""A folder that a writer which died so long ago left behind is removed by the next one."""
DEFAULT_TYPE = "event"
"""The type of events that have none."""


@contextmanager
def new_data_set(folder: Path) -> Iterator[Path]:
    """Make a folder to write a data set in; it takes the place of ``folder`` if no error occurs.

    A data set that was there is replaced. A killed writer leaves what was there.

    Raises:
        DataSetError: ``folder`` holds something that is not a data set, or cannot be written.
    """
    folder = folder.absolute()
    if (
        folder.exists()
        and not (folder / MANIFEST).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise DataSetError(
            f"{folder} holds something that is not a data set: name a new folder", "folder"
        )

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        scratch = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        (scratch / EVENTS).mkdir(parents=True)
    except OSError as error:
        raise DataSetError(f"{folder} cannot be written: {plain(error)}", "folder") from error

    try:
        yield scratch
        _sync(scratch / EVENTS)
        _sync(scratch)
        _replace(folder, scratch)
    except OSError as error:
        raise DataSetError(f"{folder} cannot be written: {plain(error)}", "folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_manifest(scratch: Path, manifest: Manifest, stored: Mapping[str, StoredFile]) -> None:
    """Write the manifest of a data set whose files are in ``scratch``.

    Args:
        scratch: the folder that ``new_data_set`` made.
        manifest: all of it but the files.
        stored: each file, by its path below the folder.
    """
    files = dict(sorted(stored.items()))
    whole = msgspec.structs.replace(
        manifest, files=files, created_with={"pyarrow": pa.__version__, "numpy": np.__version__}
    )
    path = scratch / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    _sync(path)


def event_writer(path: Path, schema: "pa.Schema" = EVENT_SCHEMA) -> "pq.ParquetWriter":
    """Return a writer of a part of the events; the same events make the same bytes.

    Args:
        path: the file.
        schema: of what is written: EVENT_SCHEMA, or CODED_SCHEMA, which is stored alike.
    """
    return pq.ParquetWriter(
        path,
        schema,
        compression="lz4",
        use_dictionary=["user", "item", "type", "value"],
        column_encoding={"time": "DELTA_BINARY_PACKED"},
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        write_statistics=["time"],
        write_page_checksum=True,
        store_schema=False,
    )


def write_table(table: "pa.Table", path: Path) -> StoredFile:
    """Write the table of items or users; return what is to be said of the file."""
    pq.write_table(
        table, path, compression="zstd", write_page_checksum=True, row_group_size=1 << 16
    )
    return synced(path, table.num_rows)


def synced(path: Path, rows: int) -> StoredFile:
    """Bring a written file to the disk; return what a manifest says of it.

    Args:
        path: the file.
        rows: how many are in it.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        os.fsync(file.fileno())
    return StoredFile(rows, size, digest)


def write_data_set(
    folder: Path,
    events: "pa.Table",
    *,
    items: "pa.Table | Sequence[Mapping[str, Any]] | None" = None,
    users: "pa.Table | None" = None,
    name: str | None = None,
    weights: WeightOptions | None = None,
    notes: Iterable[str] = (),
) -> DataSet:
    """Write a data set from tables that fit in memory, as they are: nothing is cleaned.

    Args:
        folder: where.
        events: columns ``user`` and ``item``, and perhaps ``type``, ``time`` (a timestamp, or ms
            since 1970) and ``value``; in any order. Ids become text.
        items: a table with a column ``id``, or ``{"id", "features"}`` each; items of events that it
            lacks are added.
        users: a table with a column ``id``.
        name: what the data set is called; the folder's name by default.
        weights: what events are worth.
        notes: what else is to be said of it.

    Raises:
        DataSetError: there is no event, an id is missing or twice, or it cannot be written.
    """
    table = _sorted(_as_events(events))
    listed = with_items_of(_as_items(items), pc.unique(table["item"]))
    item_kinds = kinds_of(listed, "items")
    user_kinds = kinds_of(users, "users") if users is not None else {}

    times = table["time"]
    bounds = pc.min_max(times.cast(pa.int64())).as_py()
    counts = Counts(
        events=table.num_rows,
        users=pc.count_distinct(table["user"]).as_py(),
        items=pc.count_distinct(table["item"]).as_py(),
        listed_items=listed.num_rows,
        listed_users=0 if users is None else users.num_rows,
        types={row["values"]: row["counts"] for row in pc.value_counts(table["type"]).to_pylist()},
        untimed=times.null_count,
        first_ms=bounds["min"],
        last_ms=bounds["max"],
    )

    with new_data_set(folder) as scratch:
        part = f"{EVENTS}/part-00000.parquet"
        with event_writer(scratch / part) as writer:
            writer.write_table(table, row_group_size=ROW_GROUP)

        stored = {
            part: synced(scratch / part, table.num_rows),
            ITEMS: write_table(listed, scratch / ITEMS),
        }
        if users is not None:
            stored[USERS] = write_table(users, scratch / USERS)
        write_manifest(
            scratch,
            Manifest(
                format=FORMAT,
                name=name or folder.absolute().name,
                files={},
                counts=counts,
                weights=weights or WeightOptions(),
                rows_read=table.num_rows,
                notes=list(notes),
                item_columns=item_kinds,
                user_columns=user_kinds,
            ),
            stored,
        )
    return DataSet.open(folder)


def kinds_of(table: "pa.Table", what: str) -> dict[str, str]:
    """Return the kind of each column but ``id``.

    Args:
        table: items or users.
        what: which of the two, for errors.

    Raises:
        DataSetError: there is no ``id``, an id is missing or occurs twice, or a column is of a type
            that a data set does not keep.
    """
    if "id" not in table.column_names:
        raise DataSetError(f"the table of {what} has no column id", what)
    ids = table["id"]
    if ids.null_count or pc.count_distinct(ids).as_py() != table.num_rows:
        raise DataSetError(f"{what}: an id is missing or occurs twice", what)

    kinds = {}
    for column in table.column_names:
        if column != "id":
            kind = column_kind(table[column], column)
            if kind is None:
                raise DataSetError(
                    f"{what}: column {column!r} is {table[column].type}: give numbers, texts,"
                    " times, lists of texts or lists of numbers",
                    what,
                )
            kinds[column] = kind
    return kinds


def with_items_of(items: "pa.Table | None", in_events: "pa.Array") -> "pa.Table":
    """Return a table of items with a row for each that events name.

    Args:
        items: the table, None for none.
        in_events: the ids in events.
    """
    in_events = in_events.cast(pa.string())
    if items is None:
        return pa.table({"id": in_events.take(pc.sort_indices(in_events))})
    missing = in_events.filter(pc.invert(pc.is_in(in_events, value_set=items["id"])))
    added = pa.table({"id": missing.take(pc.sort_indices(missing))})
    return pa.concat_tables([items, added], promote_options="default")


def _as_items(items: "pa.Table | Sequence[Mapping[str, Any]] | None") -> "pa.Table | None":
    if items is None or not len(items):
        return None
    table = items if isinstance(items, pa.Table) else items_table([dict(item) for item in items])
    if "id" not in table.column_names:
        raise DataSetError("the table of items has no column id", "items")
    at = table.column_names.index("id")
    return table.set_column(at, "id", table["id"].cast(pa.string()))


def _as_events(events: "pa.Table") -> "pa.Table":
    absent = {"user", "item"} - set(events.column_names)
    if absent:
        raise DataSetError(f"the table of events has no column {min(absent)}", "events")
    if not events.num_rows:
        raise DataSetError("the table of events has no rows", "events")

    columns = []
    for field in EVENT_SCHEMA:
        if field.name in events.column_names:
            column = events[field.name]
            if field.name == "time" and pa.types.is_integer(column.type):
                column = column.cast(pa.timestamp("ms"))
            column = column.cast(field.type)
        else:
            blank = DEFAULT_TYPE if field.name == "type" else None
            column = pa.chunked_array([pa.repeat(pa.scalar(blank, field.type), events.num_rows)])
        if field.name == "type":
            column = pc.fill_null(column, DEFAULT_TYPE)
        if not field.nullable and column.null_count:
            raise DataSetError(f"the table of events has a row without {field.name}", "events")
        columns.append(column)
    return pa.table(columns, schema=EVENT_SCHEMA)


def _sorted(table: "pa.Table") -> "pa.Table":
    """Return the events by user and time; those of one time stay in their order."""
    time = pc.fill_null(table["time"].cast(pa.int64()), -1).to_numpy()
    user = pc.rank(table["user"].combine_chunks(), tiebreaker="dense").to_numpy()
    return table.take(pa.array(np.lexsort((time, user)))).combine_chunks()


def _replace(folder: Path, fresh: Path) -> None:
    old = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _clean(folder: Path) -> None:
    """Remove what killed writers of this data set left behind."""
    for path in folder.parent.glob(f".{folder.name}.{'?' * 32}"):
        if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
