"""What users did before the log began, as a file of profiles has it: what ``repeat`` asks about."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.log.codec import digest
from policies.profiles.known_user import Before
from policies.profiles.part import ProfileEvent

if TYPE_CHECKING:
    import pyarrow as pa

REMEMBERED = 1_000
"""Users whose events stay made."""
UNTIMED = -1
"""The time of an event that has none: it was long ago."""


class EventsOfUsers(NamedTuple):
    """The events of some users, user after user, each user's newest first.

    Attributes:
        counts: int64[users], how many each has.
        items: ids, n of them.
        types: int16[n], into the types that were asked for.
        times: int64[n], ms since 1970, UNTIMED for none.
    """

    counts: NDArray[np.int64]
    items: "pa.Array"
    types: NDArray[np.int16]
    times: NDArray[np.int64]


class EventsBefore:
    """The events of U users: 8 bytes a user, and 14 an event."""

    def __init__(self, parts: Sequence[EventsOfUsers], types: Sequence[str]) -> None:
        """Take the events of several groups of users, one behind the other.

        Args:
            parts: at least one.
            types: the names of the types.
        """
        import pyarrow as pa  # noqa: PLC0415 - it takes 30 MB, which whoever has no profiles spares

        counts = np.concatenate([part.counts for part in parts])
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._type_names = tuple(types)
        self._types = np.concatenate([part.types for part in parts])
        self._times = np.concatenate([part.times for part in parts])

        texts: Any = pa.chunked_array([part.items for part in parts], pa.string())
        coded = texts.dictionary_encode().unify_dictionaries()
        self._item_ids = coded.chunk(0).dictionary
        self._items = np.concatenate([chunk.indices.to_numpy() for chunk in coded.chunks])
        self.of = lru_cache(REMEMBERED)(self._of)

    def _of(self, row: int) -> Before | None:
        """Return the events of the user in a row; None: there are none."""
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        if part.start == part.stop:
            return None
        columns = (column[part].tolist() for column in (self._times, self._items, self._types))
        times, places, types = columns
        items = self._item_ids.take(places).to_pylist()
        events = tuple(
            ProfileEvent(time, time, 0, item, self._type_names[kind])
            for time, item, kind in zip(times, items, types, strict=True)
        )
        return Before(digest(msgspec.msgpack.encode(events)), events)


def events_of(tables: "Sequence[pa.Table]", types: Sequence[str]) -> EventsOfUsers:
    """Return what some users did, as far as it is of some types.

    Args:
        tables: three columns each, a row per user: lists of items, of types and of times.
        types: the types.

    Raises:
        ValueError: a user has not as many types or times as items.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    owners, items, kinds, times = [], [], [], []
    for table in tables:
        listed, typed, timed = (column.chunk(0) for column in table.columns)
        lengths = listed.value_lengths()
        if not (lengths.equals(typed.value_lengths()) and lengths.equals(timed.value_lengths())):
            raise ValueError("a user has not as many types and times as items")

        # Each distinct type is looked up once.
        coded, named, stamps = _coded(listed), _coded(typed), timed.flatten()
        numbers = pc.fill_null(pc.index_in(named.dictionary, pa.array(types, pa.string())), -1)
        of_each = pc.fill_null(numbers.take(named.indices), -1).to_numpy(zero_copy_only=False)
        wanted = np.flatnonzero(of_each >= 0)
        owners.append(np.repeat(np.arange(table.num_rows), lengths.to_numpy())[wanted])
        items.append(coded.dictionary.take(coded.indices.take(wanted)))
        kinds.append(of_each[wanted].astype(np.int16))
        stamps = pc.fill_null(stamps.take(wanted).cast(pa.int64()), UNTIMED)
        times.append(stamps.to_numpy(zero_copy_only=False))

    owner, kind, time = (np.concatenate(each) for each in (owners, kinds, times))
    order = np.lexsort((-time, owner))
    counts = np.bincount(owner, minlength=tables[0].num_rows).astype(np.int64)
    return EventsOfUsers(counts, pa.concat_arrays(items).take(order), kind[order], time[order])


def _coded(lists: Any) -> Any:
    """Return the texts of lists, each distinct one once."""
    texts = lists.flatten()
    return texts if hasattr(texts, "dictionary") else texts.dictionary_encode()
