"""The items of a policy as its rules see them."""

import asyncio
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress, islice
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.errors import InvalidFieldError, SpecError
from bandits.types import Float32, Float64
from bandits.values import FeatureMap
from policies.rules.columns import Bools, ItemColumns
from policies.rules.conditions import CompiledCondition
from policies.rules.expressions import abbreviated
from policies.rules.filters import MOST_OF_A_REQUEST, Filter, compiled_filter, is_compiled
from policies.rules.pages.vectors import PageVectors
from policies.rules.policy_rules import PolicyRules
from policies.rules.quotas.prices import GroupPrices
from policies.rules.quotas.quota import Control
from policies.rules.turns import in_turns
from policies.rules.values import Frame
from policies.typed_yaml import nearest

NO_ROW: Final = 0
"""The row of an item of which nothing is known."""
NO_ROWS: Final = np.zeros(0, np.intp)
FIRST: Final = 1_024
"""Items that a filter looks at together at first; fewer, if it looks into texts."""
QUICK: Final = 100
"""Characters of a request's filter that are read in some milliseconds."""
_READER: Final = ThreadPoolExecutor(1, "read-filter")
"""One thread: several would take all turns from the one that answers requests."""
_READING: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]()
"""By event loop: who has a filter read. The thread gets the next when the loop has come round: with
a line of its own it went on at once, and whoever was quick waited until all were read."""
SWITCH_S: Final = 0.0002
"""After how long that thread gives way: Python's 5 ms are waited for after each look at sockets."""
PART: Final = 10_000
"""Items looked at together: in between, the thread that answers requests gets its turns."""


class Asked(msgspec.Struct, frozen=True, eq=False):
    """What rules may look at beside the items.

    Attributes:
        context: features of the decision.
        done: by what was done, with which items the user did it.
        now_ms: the moment, in ms since 1970.
        filter: the request's own filter, if it has one.
    """

    context: FeatureMap
    done: Callable[[], Mapping[str, Collection[str]]]
    now_ms: int
    filter: Filter | None = None


class RuledItems:
    """The items of a policy, of which its rules say what may be chosen and what is added to them.

    ``rules``: the policy's. ``vectors``: those by which the items of a page are compared; None:
    they are not. ``priced``: what quotas add to them; None: there are none.
    """

    def __init__(
        self,
        rules: PolicyRules,
        parts: Iterable[tuple[Sequence[str], Sequence[Sequence[Any]]]] = (),
    ) -> None:
        """Begin with some items.

        Args:
            rules: the policy's.
            parts: see ``load``.
        """
        self.rules = rules
        self._columns = ItemColumns(rules.item_fields)
        self._open = np.zeros(0, np.bool_)
        vector = None if rules.page is None else rules.page.vector
        self.vectors = None if vector is None else PageVectors(vector)
        quotas = rules.quotas
        self.priced = None if quotas is None else GroupPrices(quotas, self._columns)
        self.load(parts)

    def load(self, parts: Iterable[tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> None:
        """Take in all items at once.

        Args:
            parts: ids, and by feature of ``rules.item_fields`` the values of each; see
                ``ItemTimeline.values``.
        """
        known = NO_ROW if not self._open.size else len(self)
        for ids, values in parts:
            self._columns.load(ids, values)
        for first in range(known, len(self), PART):
            self._look(np.arange(first, min(first + PART, len(self))))

    def take_in(self, ids: Sequence[str], features: Sequence[FeatureMap]) -> None:
        """Take in some items that are new.

        Args:
            ids: theirs, each once.
            features: of each.
        """
        self.load([(ids, self._values(features))])

    def change(self, item_id: str, item: Item | None) -> None:
        """Take in an item as it is now; None: it is gone."""
        if self.vectors is not None:
            self.vectors.forget(item_id)
        if item is None:
            if item_id in self._columns.place:  # else its row is that of nothing
                self._open[self._columns.rows([item_id])] = False
                self._columns.drop(item_id)
            return
        self._columns.put(item_id, item.features)
        self._look(self._columns.rows([item_id]))

    def opens(self, item_id: str) -> bool:
        """Return whether the filter's part about items alone admits one."""
        return bool(self._open[self._columns.place.get(item_id, NO_ROW)])

    def closed(self) -> Iterator[Sequence[str]]:
        """Yield the items that the filter's part about items alone refuses, some at a time."""
        place = self._columns.place
        items, rows = iter(place), iter(place.values())
        for _ in range(0, len(place), PART):
            closed = ~self._open[np.fromiter(islice(rows, PART), np.intp)]
            yield list(compress(islice(items, PART), closed))

    def __len__(self) -> int:
        """How many rows there are, that of nothing among them."""
        return len(self._columns)

    @property
    def columns(self) -> ItemColumns:
        """The features that rules look at."""
        return self._columns

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each item; 0 for one that is not there."""
        return self._columns.rows(ids)

    def with_features(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None]
    ) -> "RuledItems":
        """Return other items, a row each from 1 on, of which a request may say what they are.

        Args:
            ids: theirs.
            features: of each; of None those of the item here.
        """
        every = [
            self._columns.features(item_id) if own is None else own
            for item_id, own in zip(ids, features, strict=True)
        ]
        return RuledItems(self.rules, [(ids, self._values(every))])

    def over(self, columns: ItemColumns) -> "RuledItems":
        """Return some of them as they are now, whatever becomes of these items.

        Args:
            columns: theirs, in which only these are found; no row of one is ever given to another.
        """
        some = RuledItems.__new__(RuledItems)
        vars(some).update(vars(self), _columns=columns)
        return some

    def _values(self, features: Sequence[FeatureMap]) -> list[list[Any]]:
        """Return by feature that is kept its value of each item, None where one lacks it."""
        return [[own.get(name) for own in features] for name in self.rules.item_fields]

    def own_filter(self, where: str | None) -> Filter | None:
        """Return a request's filter.

        Raises:
            InvalidFieldError: it is no condition, or names features that are not at hand.
        """
        rule = self.rules.filter_rule
        if where is None or rule is None:
            return None
        if len(where) > MOST_OF_A_REQUEST:
            raise InvalidFieldError(
                f"a request's filter has at most {MOST_OF_A_REQUEST:,} characters, this one"
                f" {len(where):,}: a long condition belongs in the policy's filter.where",
                "filter",
            )

        try:
            found = compiled_filter(where, "filter", admits_unknown=rule.unknown == "admit")
        except SpecError as error:
            raise InvalidFieldError(error.message, "filter") from error

        for name in sorted(found.condition.looks.items):
            if name not in self._columns.columns:
                meant = nearest(abbreviated(name), list(self._columns.columns))
                raise InvalidFieldError(
                    f"item.{abbreviated(name)} is not at hand: {meant}{'if not, ' if meant else ''}"
                    "name it in the policy's filter.fields",
                    "filter",
                )
        return found

    async def read_ahead(self, where: str | None) -> None:
        """Read a request's filter, a long one in a thread: requests are answered meanwhile.

        It stays compiled for some time, so ``own_filter`` gives it at once.

        Raises:
            InvalidFieldError: as ``own_filter`` does.
        """
        rule = self.rules.filter_rule
        if where is None or rule is None or not QUICK < len(where) <= MOST_OF_A_REQUEST:
            return
        is_known = partial(is_compiled, where, "filter", admits_unknown=rule.unknown == "admit")
        if is_known():
            return
        loop = asyncio.get_running_loop()
        async with _READING.setdefault(loop, asyncio.Lock()):
            if not is_known():
                await loop.run_in_executor(_READER, self._read, where)

    def _read(self, where: str) -> None:
        """Read a filter in a thread that gives way soon and often."""
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, usual_s))
        try:
            self.own_filter(where)
        finally:
            sys.setswitchinterval(usual_s)

    def admits(self, rows: NDArray[np.intp], asked: Asked) -> Bools:
        """Return which items may be chosen, bool[n].

        Args:
            rows: int[n], of the items.
            asked: what is looked at beside them.
        """
        admitted = self._open[rows]
        if not self.narrows(asked):
            return admitted

        # Whoever is out by what it is need not be looked at again, where that is less work.
        if 2 * np.count_nonzero(admitted) > rows.size:
            admitted &= self._admits(self.frame(rows, asked), asked)
            return admitted
        at = np.flatnonzero(admitted)
        admitted[at] = self._admits(self.frame(rows[at], asked), asked)
        return admitted

    async def admits_in_turns(self, asked: Asked, rows: NDArray[np.intp] | None = None) -> Bools:
        """Return which items may be chosen, bool[n]; other requests have their turns meanwhile.

        Args:
            asked: what is looked at beside them.
            rows: int[n], of the items; None: all, that of nothing among them.
        """
        tests = 0 if self.rules.filter is None else self.rules.filter.condition.tests
        tests += 0 if asked.filter is None else asked.filter.condition.tests
        first = max(FIRST // (1 + tests), 1)
        if rows is not None and rows.size <= first:
            return self.admits(rows, asked)
        admitted = self._open[: len(self)].copy() if rows is None else self._open[rows]
        if not self.narrows(asked):
            return admitted
        every = self.frame(NO_ROWS, asked)

        def admits(part: NDArray[np.intp] | slice) -> Any:
            frame = every._replace(rows=part, own=[], are_items=_are_items(part))
            return self._admits(frame, asked)

        # Neighbours need not be fetched, which is quicker than to look at the half of them.
        at = np.flatnonzero(admitted)
        if rows is None and 2 * at.size > admitted.size:
            return admitted & await in_turns(
                admitted.size,
                first,
                lambda begin, end: admits(slice(begin, end)),
            )
        looked = at if rows is None else rows[at]
        admitted[at] = await in_turns(at.size, first, lambda begin, end: admits(looked[begin:end]))
        return admitted

    def narrows(self, asked: Asked) -> bool:
        """Return whether filters look at more than the items: at who asks, or for a request."""
        own = self.rules.filter
        return asked.filter is not None or (own is not None and own.condition.of_asking is not None)

    def _admits(self, frame: Frame, asked: Asked) -> Any:
        """Return which items may be chosen of those that are not out by what they are."""
        admitted: Any = True
        own = self.rules.filter
        if own is not None and own.condition.of_asking is not None:
            admitted = own.admitted(own.condition.of_asking(frame))
        if asked.filter is not None:
            for part in asked.filter.condition.parts:
                admitted = admitted & asked.filter.admitted(part(frame))
        return admitted

    def passing(self, own: Filter, rows: NDArray[np.intp], asked: Asked) -> Bools:
        """Return which items a request's filter admits, whatever the policy's says, bool[n].

        Args:
            own: the filter.
            rows: int[n], of the items.
            asked: what is looked at beside them.
        """
        frame, admitted = self.frame(rows, asked), np.ones(rows.shape, np.bool_)
        for part in own.condition.parts:
            admitted &= own.admitted(part(frame))
        return admitted

    def offsets(self, rows: NDArray[np.intp], asked: Asked) -> Float32 | None:
        """Return what is added to the score of each item, float32[n]; None: nothing to any.

        Args:
            rows: int[n], of the items.
            asked: what is looked at beside them.
        """
        boosts = self.rules.boosts
        return None if boosts is None else boosts.offsets(self.frame(rows, asked))

    def prices(self, rows: NDArray[np.intp], control: Control | None) -> Float64 | None:
        """Return what quotas add to the score of each item, float64[n]; None: nothing to any.

        Args:
            rows: int[n], of the items.
            control: the state of their controller; None: there is none.
        """
        if control is None or self.priced is None:
            return None
        return self.priced.of(rows, control)

    def holds(self, condition: CompiledCondition, rows: NDArray[np.intp], asked: Asked) -> Bools:
        """Return of which items a condition is known to hold, bool[n].

        Args:
            condition: one of the policy's.
            rows: int[n], of the items.
            asked: what is looked at beside them.
        """
        return np.broadcast_to(condition.holds(self.frame(rows, asked)), rows.shape)

    def frame(self, rows: NDArray[np.intp], asked: Asked) -> Frame:
        """Return what conditions are asked of.

        Args:
            rows: int[n], of the items; those of items that are gone are not looked at in the end.
            asked: what is looked at beside them.
        """
        rules = self.rules.looks
        own = None if asked.filter is None else asked.filter.condition.looks
        asks = rules.activities or (own is not None and own.activities)
        timed = rules.time or (own is not None and own.time)
        return Frame(
            self._columns,
            rows,
            asked.context,
            asked.done() if asks else {},
            _time(asked.now_ms / 1000) if timed else {},
            [],
            _are_items(rows),
        )

    def _look(self, rows: NDArray[np.intp]) -> None:
        """Find out of some rows what the rules say of items, whoever asks."""
        if self.priced is not None:
            self.priced.look(rows)
        if self._open.size < len(self._columns):
            grown = np.zeros(2 * len(self._columns), np.bool_)
            grown[: self._open.size] = self._open
            self._open = grown
        own = self.rules.filter
        if own is None or own.condition.of_items is None:
            self._open[rows] = True
            return
        frame = Frame(self._columns, rows, {}, {}, {}, [])
        self._open[rows] = own.admitted(own.condition.of_items(frame))


def _are_items(rows: NDArray[np.intp] | slice) -> bool:
    """Return whether no row is that of nothing."""
    if isinstance(rows, slice):
        return bool(rows.start > NO_ROW)
    return int(np.count_nonzero(rows)) == rows.size


def _time(now_s: float) -> dict[str, float]:
    """Return the fields of the moment: ``hour`` 0 to 23 and ``weekday`` 0 (Monday) to 6, in UTC."""
    days, seconds = divmod(now_s, 86_400)
    return {"hour": seconds // 3600, "weekday": (days + 3) % 7, "now": now_s}
