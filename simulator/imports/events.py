"""The first pass: ids become numbers, and rows that are wrong by themselves are left out."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import DataSetError
from policies.data.writer import DEFAULT_TYPE
from simulator.imports import cleaning as reasons
from simulator.imports.arrange import EVENT, NO_TIME, pack_by_part
from simulator.imports.cleaning import Cleaning, DroppedRows
from simulator.imports.id_columns import as_ids
from simulator.imports.ids import MISSING, TOO_LONG, IdTable
from simulator.imports.raw import ColumnMapping, RawRows
from simulator.imports.times import UTC_MS, read_times

DAY_MS = 86_400_000
MOST_TYPES = 1000
LONGEST_TYPE = (1 << 31) - 1


@dataclass(slots=True)
class EventColumns:
    """Everything that an import knows of its events while it reads them."""

    cleaning: Cleaning
    latest_ms: int
    rating_scale: tuple[float, float] | None
    listed_items: "pa.Array | None"
    users: IdTable = field(init=False)
    items: IdTable = field(init=False)
    types: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    left_out: DroppedRows = field(default_factory=DroppedRows)
    rows_read: int = 0
    whole_days: bool = True
    _kinds: IdTable = field(default_factory=lambda: IdTable(LONGEST_TYPE))
    _kind_types: list[int] = field(default_factory=list)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def __post_init__(self) -> None:
        """Number the listed items first, so that a number says whether an item is listed."""
        self.users = IdTable(self.cleaning.longest_id)
        self.items = IdTable(self.cleaning.longest_id)
        if self.listed_items is not None:
            self.items.numbers(self.listed_items)
        self.users.absent = self.items.absent = self.cleaning.absent_ids

    def unreadable(self, file: str, row: int, said: str) -> None:
        """Count a row that cannot be read.

        Args:
            file: its file.
            row: its number.
            said: its text.
        """
        self.rows_read += 1
        self.left_out.add(reasons.UNREADABLE, 1, file, row, said)

    def read(
        self, rows: RawRows, mapping: ColumnMapping, unit: str | None, parts: int
    ) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Return the rows that are right by themselves: an array of EVENT, and where parts end.

        Args:
            rows: of a file.
            mapping: which column is what.
            unit: of the times.
            parts: how many there are, a power of two; an event's is the last bits of its user.

        Raises:
            DataSetError: a column is of a type that it cannot be.
        """
        batch, count = rows.batch, rows.batch.num_rows
        self.rows_read += count
        if not self.files or self.files[-1] != rows.file:
            self.files.append(rows.file)

        drop = _Drop(rows, count, self.left_out)
        # The two tables have nothing in common, so two threads fill them at once.
        names = (mapping.user, mapping.item)
        ids = [as_ids(batch.column(name), name, rows.file) for name in names]
        user, item = self._threads.map(IdTable.numbers, (self.users, self.items), ids)
        for codes, column in zip((user, item), names, strict=True):
            if codes.size and codes.min() < 0:
                drop.where(codes == TOO_LONG, reasons.LONG_ID, column)
                drop.where((codes < 0) & (codes != TOO_LONG), reasons.NO_ID, column)
        if self.cleaning.unlisted == "drop" and self.listed_items is not None:
            drop.where(item >= len(self.listed_items), reasons.UNLISTED, mapping.item)

        time = self._times(rows, mapping, unit, drop)
        value = self._values(rows, mapping, drop)
        kind = self._types(rows, mapping)
        events, ends = np.empty(count, EVENT), np.empty(parts, np.int64)
        pack_by_part(
            user,
            item,
            kind,
            time,
            value,
            np.zeros(0, np.int64) if rows.numbers is None else rows.numbers,
            rows.first_row,
            len(self.files) - 1,
            np.zeros(0, np.bool_) if drop.mask is None else drop.mask,
            events,
            ends,
        )
        return events, ends

    def _times(
        self, rows: RawRows, mapping: ColumnMapping, unit: str | None, drop: "_Drop"
    ) -> NDArray[np.int64]:
        if mapping.time is None or unit is None:
            return np.full(1, NO_TIME)
        given = rows.batch.column(mapping.time)
        if unit == "ms" and given.type == pa.int64():
            given = given.view(UTC_MS)  # it is what it is read as
        read = read_times(given, unit)
        time: NDArray[np.int64] = np.asarray(_filled(read.view(pa.int64()), NO_TIME))
        if read.null_count:
            missing, empty = time == NO_TIME, _empty(given)
            drop.where(missing & ~empty, reasons.BAD_TIME, mapping.time)
            if self.cleaning.untimed == "drop":
                drop.where(missing & empty, reasons.NO_TIME_GIVEN, mapping.time)
            bounds = time[~missing]
        else:
            bounds = time

        if bounds.size:
            if bounds.min() < self.cleaning.earliest_ms:
                early = (time < self.cleaning.earliest_ms) & (time != NO_TIME)
                drop.where(early, reasons.EARLY, mapping.time)
            if bounds.max() > self.latest_ms:
                drop.where(time > self.latest_ms, reasons.FUTURE, mapping.time)
            self.whole_days = self.whole_days and not np.any(bounds % DAY_MS)
        return time

    def _values(self, rows: RawRows, mapping: ColumnMapping, drop: "_Drop") -> NDArray[np.float64]:
        if mapping.value is None:
            return np.full(1, np.nan)
        given = rows.batch.column(mapping.value)
        read = _numbers(given, mapping.value, rows.file)
        value: NDArray[np.float64] = np.asarray(_filled(read, np.nan))
        finite = np.isfinite(value)
        if not finite.all():
            absent = np.array(read.is_null())
            drop.where(~finite & ~absent, reasons.NOT_FINITE, mapping.value)
            drop.where(absent & ~_empty(given), reasons.BAD_VALUE, mapping.value)
        if self.rating_scale is not None:
            lowest, highest = self.rating_scale
            off = finite & ((value < lowest) | (value > highest))
            drop.where(off, reasons.OFF_SCALE, mapping.value)
        return value

    def _types(self, rows: RawRows, mapping: ColumnMapping) -> NDArray[np.uint16]:
        if mapping.type is None:
            code = self._type(mapping.event_type or DEFAULT_TYPE, rows.file, "")
            return np.full(1, code, np.uint16)
        codes = self._kind_codes(rows.batch.column(mapping.type), mapping.type, rows.file)
        if len(self._kinds) > len(self._kind_types):
            fresh = np.arange(len(self._kind_types), len(self._kinds))
            for name in self._kinds.texts(fresh).to_pylist():
                self._kind_types.append(self._type(name, rows.file, mapping.type))

        absent = codes == MISSING
        unnamed = (
            self._type(mapping.event_type or DEFAULT_TYPE, rows.file, mapping.type)
            if absent.any()
            else 0
        )
        by_code: NDArray[np.uint16] = np.array([*self._kind_types, unnamed], np.uint16)[codes]
        return by_code

    def _kind_codes(self, given: "pa.Array", column: str, file: str) -> NDArray[np.int32]:
        """Return the number of each row's type among the texts of all, MISSING for none."""
        if not pa.types.is_dictionary(given.type):
            return self._kinds.numbers(as_ids(given, column, file).cast(pa.string()))

        # The distinct texts alone are looked up; the last number is that of a row without one.
        texts = as_ids(given.dictionary, column, file).cast(pa.string())
        numbers = np.append(self._kinds.numbers(texts), np.int32(MISSING))
        codes: NDArray[np.int32] = numbers[np.asarray(_filled(given.indices, len(texts)))]
        return codes

    def _type(self, name: str, file: str, column: str) -> int:
        if name not in self.types and len(self.types) == MOST_TYPES:
            raise DataSetError(
                f"{file}: column {column!r} has more than {MOST_TYPES:,} different types of"
                f" events, such as {name!r}: is it the type? --columns '{{type: NAME}}' names"
                " another, {type: null} none",
                "columns.type",
            )
        return self.types.setdefault(name, len(self.types))


class _Drop:
    """The rows of a batch that are left out: by the first reason that is found."""

    def __init__(self, rows: RawRows, count: int, left_out: DroppedRows) -> None:
        self._rows, self._count, self._left_out = rows, count, left_out
        self.mask: NDArray[np.bool_] | None = None

    def where(self, bad: NDArray[np.bool_], reason: str, column: str) -> None:
        """Leave rows out, and count those that were not left out before."""
        new = bad if self.mask is None else bad & ~self.mask
        rows = int(np.count_nonzero(new))
        if rows:
            first = int(np.argmax(new))
            value = self._rows.batch.column(column)[first].as_py()
            said = "" if value is None else str(value)[:100]
            self._left_out.add(
                reason, rows, self._rows.file, self._rows.number(first), f"{column}: {said}"
            )
            self.mask = new if self.mask is None else self.mask | new


def _numbers(values: "pa.Array", column: str, file: str) -> "pa.Array":
    """Return a column as doubles; null where it is none."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = pc.utf8_trim_whitespace(values)
        pattern = (
            r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|[nN][aA][nN]|[iI][nN][fF])$"
        )
        return pc.if_else(pc.match_substring_regex(texts, pattern), texts, None).cast(pa.float64())

    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    ):
        raise DataSetError(
            f"{file}: column {column!r} is {kind}, which is no number: name another",
            "columns.value",
        )
    return values.cast(pa.float64(), safe=False)


def _filled(values: "pa.Array", missing: float) -> "pa.Array":
    """Return numbers with one in the place of those that are missing; the same if none is."""
    return values.fill_null(missing) if values.null_count else values


def _empty(values: "pa.Array") -> NDArray[np.bool_]:
    """Return which values are missing: null, or text of nothing but spaces."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
        return np.array(blank.fill_null(True))
    return np.array(values.is_null(nan_is_null=True))
