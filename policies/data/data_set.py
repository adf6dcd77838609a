"""A data set as training and evaluation read it: a folder of Parquet, here or by a URI.

    <root>/manifest.json            what is in it; see ``policies.data.manifest``
           events/part-*.parquet    user, item, type, time, value
           items.parquet            id, and any columns
           users.parquet            id, and any columns; if any were given

All events of one user stand together, in time order; those of the same time in the order in which
they were given. Every item with events is in the table of items.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bandits.errors import ArchiveError, DataSetError, plain
from bandits.types import frozen
from policies.data.coded import UNTIMED, CodedEvents, event_weights
from policies.data.items import catalogue_items
from policies.data.manifest import ITEMS, MANIFEST, USERS, Manifest, decode_manifest
from policies.storage import Storage, shown

EVENT_SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("ms", "UTC")),
        pa.field("value", pa.float64()),
    ]
)
"""The columns of events."""

_CODED = ("user", "item", "type")


class DataSet:
    """A data set that is there: ``manifest`` says what is in it. Made by ``DataSet.open``."""

    def __init__(self, root: str, storage: Storage, manifest: Manifest, digest: str) -> None:
        self.root = root
        self.manifest = manifest
        self.digest = digest
        self._storage = storage

    @classmethod
    def open(cls, root: "str | Path") -> "DataSet":
        """Return the data set in a folder, or at a URI that pyarrow knows.

        Its files are there and have their sizes; ``verify`` looks at their bytes.

        Raises:
            DataSetError: there is none, or a file of it is missing, damaged, or of another format.
        """
        where = shown(str(root))
        try:
            storage = Storage(root, "")
            with storage.open(MANIFEST) as file:
                data = bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            raise DataSetError(
                f"{where} is not a data set, it has no {MANIFEST}: banditloop data import {where}"
                " --events FILE makes one",
                "data",
            ) from None
        except (OSError, ArchiveError) as error:
            raise DataSetError(f"{where} cannot be read: {plain(error)}", "data") from None

        manifest = decode_manifest(data, where)
        data_set = cls(where, storage, manifest, hashlib.sha256(data).hexdigest())
        for name, stored in manifest.files.items():
            with data_set._of(name):
                info = storage.info(name)
            if info.size != stored.bytes:
                found = "is missing" if info.size is None else f"has {info.size} bytes"
                raise DataSetError(
                    f"{where}/{name} {found}, not the {stored.bytes} that were written: import the"
                    " data set again",
                    name,
                )
        return data_set

    def verify(self) -> None:
        """Check the bytes of every file against the manifest.

        Raises:
            DataSetError: a file is missing or damaged.
        """
        for name, stored in self.manifest.files.items():
            digest = hashlib.sha256()
            with self._of(name), self._storage.open(name) as file:
                while part := file.read(1 << 22):
                    digest.update(part)
            if digest.hexdigest() != stored.sha256:
                raise DataSetError(
                    f"{self.root}/{name} is damaged, its SHA-256 is not the manifest's: import the"
                    " data set again",
                    name,
                )

    def events(self, columns: Sequence[str] | None = None) -> "Iterator[pa.RecordBatch]":
        """Yield the events, in order, as batches of ``EVENT_SCHEMA``.

        Args:
            columns: those to read; all by default.

        Raises:
            DataSetError: a file is damaged.
        """
        for part in self.manifest.parts:
            with self._of(part), self._parquet(part) as parquet:
                yield from parquet.iter_batches(batch_size=1 << 16, columns=columns)

    def items(self) -> list[dict[str, Any]]:
        """Return every item as ``{"id", "features"}``, as a catalogue takes them."""
        return catalogue_items(self.items_table(), self.manifest.item_columns)

    def items_table(self) -> "pa.Table":
        """Return the table of items: ``id``, and the columns in ``manifest.item_columns``."""
        return self._table(ITEMS)

    def users(self) -> "pa.Table | None":
        """Return the table of users, None if none was given."""
        return self._table(USERS) if USERS in self.manifest.files else None

    def coded(self, before_ms: int | None = None) -> CodedEvents:
        """Return all events as numpy columns: 27 bytes each, and their ids.

        Args:
            before_ms: only events before this time, in ms since 1970; an event without a time is
                not among them. Weights are as if no other event had been.

        Raises:
            DataSetError: a file is damaged, or no event is before that time.
        """
        parts: dict[str, list[Any]] = {name: [] for name in EVENT_SCHEMA.names}
        for part in self.manifest.parts:
            with self._of(part), self._parquet(part, coded=True) as parquet:
                for batch in parquet.iter_batches(batch_size=1 << 20):
                    for name, arrays in parts.items():
                        arrays.append(batch.column(name))

        user_ids, user = _codes(parts["user"])
        item_ids, item = _codes(parts["item"])
        type_ids, kind = _codes(parts["type"])
        time = _numbers(parts["time"], pa.int64(), UNTIMED)
        value = _numbers(parts["value"], pa.float32(), np.nan)

        # Codes of items do not depend on the order in which users stand.
        order = np.argsort(np.array(item_ids, dtype=object), kind="stable")
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        events = CodedEvents(
            user_ids=tuple(user_ids),
            item_ids=tuple(item_ids[i] for i in order.tolist()),
            types=tuple(type_ids),
            user=frozen(user),
            item=frozen(place[item]),
            type=frozen(kind.astype(np.int16)),
            time=frozen(time),
            value=frozen(value),
            weight=frozen(np.zeros(len(user), np.float32)),
        )

        if before_ms is not None:
            events = events.select((time != UNTIMED) & (time < before_ms)).compact()
        if not len(events):
            raise DataSetError(
                f"{self.root} has no event before {before_ms} ms since 1970"
                if before_ms is not None
                else f"{self.root} has no events",
                "data",
            )
        return weighed(events, self.manifest)

    def _table(self, name: str) -> "pa.Table":
        with self._of(name), self._parquet(name) as parquet:
            return parquet.read()

    @contextmanager
    def _parquet(self, name: str, *, coded: bool = False) -> "Iterator[pq.ParquetFile]":
        with self._storage.open(name) as file:
            source = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, mode="r")
            yield pq.ParquetFile(
                source,
                read_dictionary=list(_CODED) if coded else None,
                page_checksum_verification=True,
            )

    @contextmanager
    def _of(self, name: str) -> Iterator[None]:
        """Say of an error in a file which file it is, and what to do."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise DataSetError(
                f"{self.root}/{name} cannot be read ({plain(error)}): import the data set again",
                name,
            ) from None


def weighed(events: CodedEvents, manifest: Manifest) -> CodedEvents:
    """Return the events with the weights that a data set's options give them.

    Args:
        events: of the data set, perhaps not all.
        manifest: the data set's.
    """
    weight = event_weights(events.types, events.type, events.time, events.value, manifest.weights)
    return events.with_weight(weight)


def _codes(arrays: "list[pa.DictionaryArray]") -> tuple[list[str], NDArray[np.int32]]:
    """Return the distinct texts in the order of their first row group, and the code of each row."""
    if not arrays:
        return [], np.zeros(0, np.int32)

    chunked = pa.chunked_array(arrays).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunked.chunks])
    texts = chunked.chunk(0).dictionary

    # A dictionary may hold texts that no row of it has, and users come in the order of their rows.
    used, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return texts.take(pa.array(used[order])).to_pylist(), place[codes]


def _numbers(arrays: "list[pa.Array]", kind: "pa.DataType", missing: float) -> NDArray[Any]:
    if not arrays:
        return np.zeros(0, kind.to_pandas_dtype())
    chunked = pc.fill_null(pa.chunked_array(arrays).cast(kind, safe=False), missing)
    return np.array(chunked.to_numpy())
