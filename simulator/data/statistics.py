"""Statistics of a data set: counted in one pass over its events, in bounded memory.

Memory: a batch, the events of the user with most of them, and some bytes for each user and item.
"""

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from policies.data.data_set import DataSet
from policies.data.manifest import Dropped, WeightOptions
from simulator.data.remarks import remarks_on

DAY_MS = 86_400_000
FEW = 5
"""A user or an item with fewer events is one of which little is known."""
BANDS = ((1, "1"), (2, "2 to 4"), (5, "5 to 9"), (10, "10 to 19"), (20, "20 to 49"),
         (50, "50 to 99"), (100, "100 to 999"), (1000, "1,000 or more"))  # fmt: skip
"""Where each band of numbers of events begins, and its name."""
TOP_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
CURVE_POINTS = 101
MOST_VALUES = 20
"""Different values that are counted one by one."""


class TypeCount(msgspec.Struct, frozen=True):
    """One type of events: how many, their share, and what each is worth."""

    type: str
    events: int
    share: float
    weight: float


class Activity(msgspec.Struct, frozen=True):
    """How many events users have, or items.

    ``few``: the share of them with fewer than 5. ``bands``: how many have so many events, by name.
    """

    count: int
    mean: float
    median: float
    most: int
    few: float
    bands: dict[str, int]


class Popularity(msgspec.Struct, frozen=True):
    """How unevenly events are spread over the items that have any.

    ``top``: the share of events that the most popular items have, by their share of the items.
    ``curve``: the same, in steps of 1%. ``gini``: 0 if all items are alike, near 1 if one has all.
    """

    top: dict[str, float]
    curve: list[float]
    gini: float


class Values(msgspec.Struct, frozen=True):
    """The values of events, such as ratings; ``counts`` by value where there are few different."""

    events: int
    least: float
    mean: float
    most: float
    counts: dict[str, int]


class DataSummary(msgspec.Struct, frozen=True):
    """The summary of a data set that ``banditloop data show`` prints.

    ``pairs``: different pairs of user and item; ``density``: their share of all pairs. ``repeats``:
    the share of events whose user had one with the item before; ``duplicates``: events that equal
    another one in user, item, type and time. ``days``: events by type, of each day (UTC) that has
    any. ``listed_without_events``: items of the table that no event names. The other fields are the
    manifest's.
    """

    name: str
    events: int
    pairs: int
    density: float
    repeats: float
    duplicates: int
    untimed: int
    first_ms: int | None
    last_ms: int | None
    types: list[TypeCount]
    days: dict[str, dict[str, int]]
    users: Activity
    items: Activity
    listed_items: int
    listed_without_events: int
    listed_users: int
    popularity: Popularity
    values: Values | None
    rows_read: int
    dropped: dict[str, Dropped]
    origin: list[str]
    preset: str | None
    columns: dict[str, str]
    weights: WeightOptions
    item_columns: dict[str, str]
    user_columns: dict[str, str]
    left_out: dict[str, int]
    notes: list[str]
    remarks: list[str]


def summary_of(data: DataSet, progress: Callable[[int], None] | None = None) -> DataSummary:
    """Return what is in a data set.

    Args:
        data: The data set.
        progress: Told how many events more were counted.

    Raises:
        DataSetError: A file of it is damaged.
    """
    tally = _Tally()
    for batch in data.events():
        tally.add(batch)
        if progress is not None:
            progress(batch.num_rows)

    summary = tally.summary(data)
    return msgspec.structs.replace(summary, remarks=remarks_on(summary))


class _Tally:
    """Counts of the events so far; those of the last user wait, as there may be more of them."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._by_item = np.zeros(1024, np.int64)
        self._by_type = np.zeros(1024, np.int64)
        self._by_user: list[NDArray[np.int64]] = []
        self._days: Counter[tuple[int, int]] = Counter()
        self._values: Counter[float] | None = Counter()
        self._rated, self._sum, self._least, self._most = 0, 0.0, np.inf, -np.inf
        self._pairs = self._duplicates = self._untimed = 0
        self._first, self._last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self._open: list[NDArray[np.int64]] = []
        self._open_user: str | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the events of a batch."""
        item = _codes(batch.column("item"), self._items)
        kind = _codes(batch.column("type"), self._types)
        self._by_item = _counted(self._by_item, item, len(self._items))
        self._by_type = _counted(self._by_type, kind, len(self._types))

        times = batch.column("time").cast(pa.int64())
        has_time = np.asarray(pc.is_valid(times))
        time = np.asarray(pc.fill_null(times, -1))
        self._count_days(time[has_time], kind[has_time])
        self._untimed += int(np.sum(~has_time))
        self._count_values(batch.column("value"))

        # Users stand together: where a run ends, all events of its user are known.
        runs = pc.run_end_encode(batch.column("user"), run_end_type=pa.int64())
        ends, users = np.asarray(runs.run_ends), runs.values
        rows = np.stack([np.zeros_like(item), item, kind, time])
        start = 0
        if len(ends) and users[0].as_py() == self._open_user:
            self._open.append(rows[:, : ends[0]])
            start = 1
        if start < len(ends):
            self._close()
            begin = int(ends[start - 1]) if start else 0
            last = int(ends[-2]) if len(ends) > 1 else 0
            counts = np.diff(np.concatenate([[begin], ends[start:]]))
            whole = rows[:, begin:last]
            whole[0] = np.repeat(np.arange(len(counts) - 1), counts[:-1])
            self._count_users(whole, counts[:-1])
            self._open, self._open_user = [rows[:, last:]], users[-1].as_py()

    def _close(self) -> None:
        """Count the events of the user who waits."""
        if self._open:
            rows = np.concatenate(self._open, axis=1)
            self._count_users(rows, np.array([rows.shape[1]]))
        self._open = []

    def _count_users(self, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Count the events of whole users: int64[user, item, type, time; events]."""
        if not rows.shape[1]:
            return
        self._by_user.append(counts)
        user, item, kind, time = rows[:, np.lexsort(rows[::-1])]
        same_pair = (np.diff(user) == 0) & (np.diff(item) == 0)
        self._pairs += len(user) - int(same_pair.sum())
        self._duplicates += int((same_pair & (np.diff(kind) == 0) & (np.diff(time) == 0)).sum())

    def _count_days(self, time: NDArray[np.int64], kind: NDArray[np.int64]) -> None:
        if not time.size:
            return
        self._first, self._last = min(self._first, time.min()), max(self._last, time.max())
        keys, counts = np.unique((time // DAY_MS) * (1 << 16) + kind, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._days[divmod(key, 1 << 16)] += count

    def _count_values(self, column: pa.Array) -> None:
        values = np.asarray(column.drop_null())
        if not values.size:
            return
        self._rated += values.size
        self._sum += float(values.sum())
        self._least, self._most = min(self._least, values.min()), max(self._most, values.max())
        if self._values is not None:
            distinct, counts = np.unique(values, return_counts=True)
            self._values.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
            if len(self._values) > MOST_VALUES:
                self._values = None

    def summary(self, data: DataSet) -> DataSummary:
        """Return what was counted, with what the manifest says."""
        self._close()
        manifest, names = data.manifest, list(self._types)
        users = np.concatenate([*self._by_user, np.zeros(0, np.int64)])
        items = self._by_item[: len(self._items)]
        events, cells = int(users.sum()), users.size * items.size
        by_type = self._by_type[: len(names)].tolist()

        days: dict[str, dict[str, int]] = {}
        for (day, kind), count in sorted(self._days.items()):
            days.setdefault(str(np.datetime64(day, "D")), {})[names[kind]] = count

        return DataSummary(
            name=manifest.name,
            events=events,
            pairs=self._pairs,
            density=self._pairs / cells if cells else 0.0,
            repeats=(events - self._pairs) / events if events else 0.0,
            duplicates=self._duplicates,
            untimed=self._untimed,
            first_ms=int(self._first) if days else None,
            last_ms=int(self._last) if days else None,
            types=[
                TypeCount(name, count, count / events, manifest.weights.types.get(name, 1.0))
                for name, count in sorted(
                    zip(names, by_type, strict=True), key=lambda each: (-each[1], each[0])
                )
            ],
            days=days,
            users=activity_of(users),
            items=activity_of(items),
            listed_items=manifest.counts.listed_items,
            listed_without_events=max(0, manifest.counts.listed_items - items.size),
            listed_users=manifest.counts.listed_users,
            popularity=popularity_of(items),
            values=self._value_summary(),
            rows_read=manifest.rows_read,
            dropped=manifest.dropped,
            origin=manifest.origin,
            preset=manifest.preset,
            columns=manifest.columns,
            weights=manifest.weights,
            item_columns=manifest.item_columns,
            user_columns=manifest.user_columns,
            left_out=manifest.left_out,
            notes=manifest.notes,
            remarks=[],
        )

    def _value_summary(self) -> Values | None:
        if not self._rated:
            return None
        counts = {f"{value:g}": count for value, count in sorted((self._values or {}).items())}
        return Values(
            self._rated, float(self._least), self._sum / self._rated, float(self._most), counts
        )


def activity_of(counts: NDArray[np.int64]) -> Activity:
    """Return how many events each has.

    Args:
        counts: int64[n], the events of each.
    """
    if not counts.size:
        return Activity(0, 0.0, 0.0, 0, 0.0, {})
    starts = [start for start, _ in BANDS]
    bands = np.bincount(np.searchsorted(starts, counts, side="right") - 1, minlength=len(BANDS))
    return Activity(
        count=int(counts.size),
        mean=float(counts.mean()),
        median=float(np.median(counts)),
        most=int(counts.max()),
        few=float(np.mean(counts < FEW)),
        bands={name: int(bands[at]) for at, (_, name) in enumerate(BANDS)},
    )


def popularity_of(counts: NDArray[np.int64]) -> Popularity:
    """Return how unevenly events are spread over items.

    The Gini index is that of Brown's formula over the Lorenz curve of the counts.

    Args:
        counts: int64[items], the events of each.
    """
    if not counts.size:
        return Popularity({}, [], 0.0)
    falling = np.sort(counts)[::-1]
    sums = np.concatenate([[0.0], np.cumsum(falling) / falling.sum()])

    shares = np.linspace(0.0, 1.0, CURVE_POINTS)
    places = np.linspace(0.0, 1.0, sums.size)
    top = {f"{share:.0%}": float(sums[max(1, round(share * counts.size))]) for share in TOP_SHARES}
    return Popularity(
        top=top,
        curve=[round(float(each), 6) for each in np.interp(shares, places, sums)],
        gini=float(np.sum(sums[1:] + sums[:-1]) / counts.size - 1.0),
    )


def _codes(texts: pa.Array, known: dict[str, int]) -> NDArray[np.int64]:
    """Return the code of each text, int64[n]; a new one gets the next."""
    coded = texts.dictionary_encode()
    codes = [known.setdefault(text, len(known)) for text in coded.dictionary.to_pylist()]
    places: NDArray[np.int32] = np.asarray(coded.indices)
    return np.array(codes, np.int64)[places]


def _counted(counts: NDArray[np.int64], codes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return counts with those of some codes added; there is room for ``size`` of them."""
    if size > counts.size:
        counts = np.append(counts, np.zeros(max(size, 2 * counts.size), np.int64))
    counts += np.bincount(codes, minlength=counts.size)
    return counts
