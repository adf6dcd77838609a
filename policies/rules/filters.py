"""Filters: what may be chosen, decided before anything has a probability."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.errors import InvalidFieldError, SpecError
from bandits.values import FeatureMap
from policies.rules.columns import Bools, ItemColumns
from policies.rules.compiled import compile_condition
from policies.rules.expressions import Node, Operation, conjuncts, named_fields, parse
from policies.rules.kinds import field_kinds
from policies.rules.values import Frame, Holds

OF_ITEMS = "item"
MOST_OF_A_REQUEST = 2_000
"""Characters of a request's filter: while one is read, some milliseconds, nobody is answered."""
REMEMBERED = 256
"""Filters of requests that stay compiled."""


Condition = Annotated[str, msgspec.Meta(min_length=1)]


class FilterRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be chosen, of all that there is.

    Attributes:
        where: a condition (CEL) over ``item``, ``context``, ``profile`` and ``time``:
            ``item.stock > 0 && context.region in item.regions``.
        unknown: what becomes of an item of which it cannot be said whether the condition holds,
            because it lacks a feature, or the request does: ``refuse`` it or ``admit`` it.
        fields: features of items that a request's own filter may name beside those of ``where``.
    """

    where: Condition = "true"
    unknown: Literal["refuse", "admit"] = "refuse"
    fields: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what is no condition."""
        compiled_filter(self.where, "filter.where", admits_unknown=False)


class Asked(msgspec.Struct, frozen=True, eq=False):
    """What a filter may look at beside the items.

    Attributes:
        context: features of the decision.
        done: by what was done, with which items the user did it.
        now_s: the moment, in seconds since 1970.
        filter: the request's own filter, if it has one.
    """

    context: FeatureMap
    done: Callable[[], Mapping[str, Collection[str]]]
    now_s: float
    filter: "Filter | None" = None


class Filter:
    """A condition, in the part that looks at items alone and the part that looks at who asks."""

    def __init__(self, where: str, target: str, *, admits_unknown: bool) -> None:
        """Compile a condition.

        Args:
            where: the condition.
            target: the field that it is in; errors name it.
            admits_unknown: what becomes of an item of which it cannot be said whether it holds.

        Raises:
            SpecError: it is none.
        """
        node = parse(where, target)
        kinds = field_kinds(node, target)
        self.item_fields = sorted({each.name for each in kinds if each.root == OF_ITEMS})
        self.activities = sorted({each.name for each in kinds if each.root == "profile"})
        self._admits_unknown = admits_unknown

        of_items = [each for each in conjuncts(node) if _is_of_items(each)]
        others = [each for each in conjuncts(node) if not _is_of_items(each)]
        self.of_items, self.of_asking = (
            compile_condition(_joined(terms), kinds) if terms else None
            for terms in (of_items, others)
        )

    def admitted(self, found: Holds) -> Any:
        """Return which items are admitted, bool[n] or one for all.

        Args:
            found: of each, what is known of whether it is.
        """
        return np.logical_not(found.no) if self._admits_unknown else found.yes


def _is_of_items(node: Node) -> bool:
    return all(field.root == OF_ITEMS for field in named_fields(node))


def _joined(terms: Sequence[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Operation("&&", tuple(terms))


@lru_cache(REMEMBERED)
def compiled_filter(where: str, target: str, *, admits_unknown: bool) -> Filter:
    """Return a filter; one that was compiled of late is not compiled again.

    Args:
        where: the condition.
        target: the field that it is in.
        admits_unknown: see ``Filter``.

    Raises:
        SpecError: it is no condition.
    """
    return Filter(where, target, admits_unknown=admits_unknown)


class FilteredItems:
    """The items of a policy as its filters see them, and which of them may be chosen by whom."""

    def __init__(self, rule: FilterRule, compiled: Filter | None = None) -> None:
        """Begin without items.

        Args:
            rule: the policy's.
            compiled: its condition, if it is compiled already.
        """
        self.filter = compiled or Filter(
            rule.where, "filter.where", admits_unknown=rule.unknown == "admit"
        )
        self._rule = rule
        self._columns = ItemColumns(sorted({*self.filter.item_fields, *rule.fields}))
        self._open = np.zeros(0, np.bool_)

    def load(self, items: Iterable[Item]) -> None:
        """Take in all items at once."""
        for item in items:
            self._columns.put(item.id, item.features)
        self._look(np.arange(len(self._columns)))

    def change(self, item_id: str, item: Item | None) -> None:
        """Take in an item as it is now; None: it is gone."""
        if item is None:
            if item_id in self._columns.place:  # else its row is that of nothing
                self._open[self._columns.rows([item_id])] = False
                self._columns.drop(item_id)
            return
        self._columns.put(item_id, item.features)
        self._look(self._columns.rows([item_id]))

    def __len__(self) -> int:
        """How many rows there are, that of nothing among them."""
        return len(self._columns)

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each item, by which ``admits`` asks; 0 for one that is not there."""
        return self._columns.rows(ids)

    def with_features(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None]
    ) -> "FilteredItems":
        """Return other items, a row each from 1 on, of which a request may say what they are.

        Args:
            ids: theirs.
            features: of each; of None those of the item here.
        """
        others = FilteredItems(self._rule, self.filter)
        others.load(
            Item(item_id, self._columns.features(item_id) if own is None else own)
            for item_id, own in zip(ids, features, strict=True)
        )
        return others

    def own_filter(self, where: str | None) -> Filter | None:
        """Return a request's filter.

        Raises:
            InvalidFieldError: it is no condition, or names features that are not at hand.
        """
        if where is None:
            return None
        if len(where) > MOST_OF_A_REQUEST:
            raise InvalidFieldError(
                f"a request's filter has at most {MOST_OF_A_REQUEST:,} characters, this one"
                f" {len(where):,}: a long condition belongs in the policy's filter.where",
                "filter",
            )
        try:
            found = compiled_filter(where, "filter", admits_unknown=self._rule.unknown == "admit")
        except SpecError as error:
            raise InvalidFieldError(error.message, "filter") from error
        for name in found.item_fields:
            if name not in self._columns.columns:
                raise InvalidFieldError(
                    f"item.{name} is not at hand: name it in the policy's filter.fields",
                    "filter",
                )
        return found

    def admits(self, rows: NDArray[np.intp], asked: Asked) -> Bools:
        """Return which items may be chosen, bool[n].

        Args:
            rows: int[n], of the items.
            asked: what is looked at beside them.
        """
        admitted = self._open[rows]
        if self.filter.of_asking is None and asked.filter is None:
            return admitted

        # Whoever is out by what it is need not be looked at again.
        at = np.flatnonzero(admitted)
        frame = self._frame(rows[at], asked)
        for each in (self.filter, asked.filter):
            if each is None:
                continue
            parts = [each.of_asking] if each is self.filter else [each.of_items, each.of_asking]
            for part in parts:
                if part is not None:
                    admitted[at] &= each.admitted(part(frame))
        return admitted

    def _frame(self, rows: NDArray[np.intp], asked: Asked) -> Frame:
        asks = self.filter.activities or (asked.filter is not None and asked.filter.activities)
        return Frame(
            self._columns,
            rows,
            asked.context,
            asked.done() if asks else {},
            _time(asked.now_s),
            [],
        )

    def _look(self, rows: NDArray[np.intp]) -> None:
        """Find out of some rows whether the filter's part about items alone admits them."""
        if self._open.size < len(self._columns):
            grown = np.zeros(2 * len(self._columns), np.bool_)
            grown[: self._open.size] = self._open
            self._open = grown
        alone = self.filter.of_items
        if alone is None:
            self._open[rows] = True
            return
        frame = Frame(self._columns, rows, {}, {}, {}, [])
        self._open[rows] = self.filter.admitted(alone(frame))


def _time(now_s: float) -> dict[str, float]:
    """Return the fields of the moment: ``hour`` 0 to 23 and ``weekday`` 0 (Monday) to 6, in UTC."""
    days, seconds = divmod(now_s, 86_400)
    return {"hour": seconds // 3600, "weekday": (days + 3) % 7, "now": now_s}


class Admission:
    """What the filters of a policy and of a request admit, whoever asks of whatever items."""

    def __init__(self, items: FilteredItems, asked: Asked) -> None:
        """Ask for one request.

        Args:
            items: as the filters see them.
            asked: what is looked at beside them.
        """
        self.items = items
        self._asked = asked

    def among(self, ids: Sequence[str]) -> Bools:
        """Return which of some items may be chosen, bool[n]."""
        return self.at(self.items.rows(ids))

    def at(self, rows: NDArray[np.intp]) -> Bools:
        """Return which items may be chosen, bool[n], by their rows; see ``FilteredItems.rows``."""
        return self.items.admits(rows, self._asked)

    def count(self) -> int:
        """Return how many of all items may be chosen."""
        return int(np.count_nonzero(self.at(np.arange(1, len(self.items)))))

    def of_actions(self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None) -> Bools:
        """Return which actions may be chosen, bool[K].

        Args:
            ids: theirs.
            features: what the request says of each; of None the catalogue's.
        """
        rows = self.items.rows(ids)
        if features is None and rows.all():
            return self.at(rows)
        own = features or [None] * len(ids)
        others = self.items.with_features(ids, own)
        return others.admits(np.arange(1, len(ids) + 1), self._asked)
