"""Items as requests send them: most are sent again as they were, and not looked at again."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from bandits.types import frozen
from bandits.values import FeatureMap
from policies.rules.columns import ItemColumns
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import RuledItems

MOST: Final = 10_000
"""Items that are kept; all are forgotten when there are more."""


class SentItems:
    """What requests have said of their actions, as rules see it.

    Rows are only ever appended, so that a request which waits for its turn still has its own.
    """

    def __init__(self, rules: PolicyRules) -> None:
        """Begin with nothing.

        Args:
            rules: the policy's.
        """
        self._rules = rules
        self._items = RuledItems(rules)
        self._said: dict[str, FeatureMap] = {}
        # Features by which what is equal may be of two kinds, and whether some item has a flag.
        self._doubtful: dict[str, bool] = {}

    def take_in(self, ids: Sequence[str], features: list[FeatureMap]) -> RuledItems:
        """Return the items of one request, by the ids that it gives them.

        Args:
            ids: theirs, each once.
            features: what the request says of each.
        """
        # Most requests send nothing new: all of it is compared at once.
        before = [*map(self._said.get, ids)]
        if self._are_same(before, features):
            return self._only(ids)

        newer = [
            at
            for at, (was, own) in enumerate(zip(before, features, strict=True))
            if not self._are_same([was], [own])
        ]
        if len(self._items) + len(newer) > MOST:
            self._items, self._said, self._doubtful = RuledItems(self._rules), {}, {}
            newer = list(range(len(ids)))
        if newer:
            named, own = [ids[at] for at in newer], [features[at] for at in newer]
            self._items.take_in(named, own)
            self._said.update(zip(named, own, strict=True))
            self._note(own)
        return self._only(ids)

    def _are_same(
        self, before: Sequence[FeatureMap | None], features: Sequence[FeatureMap]
    ) -> bool:
        """Return whether rules see the same in what was said of items before.

        Args:
            before: None of an item of which nothing was said.
            features: what is said of each now.
        """
        if before != features:
            return False
        was = cast("Sequence[FeatureMap]", before)
        return all(
            _types(was, name) == _types(features, name)
            if has_flags
            else bool not in _types(features, name)
            for name, has_flags in self._doubtful.items()
        )

    def _note(self, features: Sequence[FeatureMap]) -> None:
        """Note which features are to be looked at twice: true is equal to 1, and false to 0."""
        for name in self._rules.item_fields:
            values = [own.get(name) for own in features]
            if 0 in values or 1 in values:
                has_flags = self._doubtful.get(name, False) or bool in [*map(type, values)]
                self._doubtful[name] = has_flags

    def _only(self, ids: Sequence[str]) -> RuledItems:
        return self._items.over(SentColumns(self._items.columns, ids))


class SentColumns(ItemColumns):
    """The columns of some items: their rows are known, and by item when one is asked for."""

    def __init__(self, whole: ItemColumns, ids: Sequence[str]) -> None:
        """Take over what there is.

        Args:
            whole: the columns of all.
            ids: of the items, all of which are there.
        """
        vars(self).update(vars(whole))
        del self.place
        self._ids = ids
        self._rows = frozen(np.fromiter(map(whole.place.__getitem__, ids), np.intp, len(ids)))

    @cached_property
    def place(self) -> dict[str, int]:  # type: ignore[override]
        """By item, its row."""
        return dict(zip(self._ids, self._rows.tolist(), strict=True))

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each item; of one that is not there, the row of nothing."""
        return self._rows if ids is self._ids else super().rows(ids)


def _types(features: Sequence[FeatureMap], name: str) -> list[type]:
    """Return the type of a feature's value of each item."""
    return [type(own.get(name)) for own in features]
