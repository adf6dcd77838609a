"""What the rules say of one request."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.log.records import NO_RULES, Ruled
from bandits.types import Float32
from bandits.values import FeatureMap
from policies.rules.columns import Bools
from policies.rules.conditions import Looks
from policies.rules.ruled_items import Asked, RuledItems


class Admission:
    """What the filters of a policy and of a request admit, whoever asks of whatever items."""

    def __init__(self, items: RuledItems, asked: Asked) -> None:
        """Ask for one request.

        Args:
            items: as the rules see them.
            asked: what is looked at beside them.
        """
        self.items = items
        self._asked = asked

    def among(self, ids: Sequence[str]) -> Bools:
        """Return which of some items may be chosen, bool[n]."""
        return self.at(self.items.rows(ids))

    def at(self, rows: NDArray[np.intp]) -> Bools:
        """Return which items may be chosen, bool[n], by their rows; see ``RuledItems.rows``."""
        return self.items.admits(rows, self._asked)

    def count(self) -> int:
        """Return how many of all items may be chosen."""
        return int(np.count_nonzero(self.at(np.arange(1, len(self.items)))))


class Ruling:
    """What the rules of a policy say for one request.

    ``admission``: what its filters admit, and the request's; None: there are none.
    """

    def __init__(self, items: RuledItems, asked: Asked, filter_text: str | None) -> None:
        """Ask for one request.

        Args:
            items: as the rules see them.
            asked: what is looked at beside them.
            filter_text: the request's own filter, as it was sent.
        """
        self._items = items
        self._asked = asked
        self._filter_text = filter_text
        self.admission = None if items.rules.filter_rule is None else Admission(items, asked)

    def admitted(self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None) -> Bools:
        """Return which actions that a request sends may be chosen, bool[K].

        Args:
            ids: theirs.
            features: what the request says of each; of None the catalogue's.
        """
        items, rows = self._of_actions(ids, features)
        return items.admits(rows, self._asked)

    def boosts(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None
    ) -> Float32 | None:
        """Return what is added to the score of each action, float32[K]; None: nothing to any.

        Args:
            ids: theirs.
            features: what the request says of each; of None the catalogue's.
        """
        if self._items.rules.boosts is None:
            return None
        items, rows = self._of_actions(ids, features)
        offsets = items.offsets(rows, self._asked)
        return offsets if offsets is not None and offsets.any() else None

    def record(self, boosts: Float32 | None) -> Ruled | None:
        """Return what a decision's record says of its rules; None: nothing.

        Args:
            boosts: what was added to the score of each action, float32[K].
        """
        looks = [self._items.rules.looks]
        if self._asked.filter is not None:
            looks.append(self._asked.filter.condition.looks)
        looked = Looks.at_all(looks)
        done = self._asked.done() if looked.activities else {}
        ruled = Ruled(
            self._filter_text,
            self._asked.now_ms if looked.time else None,
            {name: list(done.get(name, ())) for name in sorted(looked.activities)} or None,
            boosts=b"" if boosts is None else boosts.astype("<f4").tobytes(),
        )
        return None if ruled == NO_RULES else ruled

    def _of_actions(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None
    ) -> tuple[RuledItems, NDArray[np.intp]]:
        """Return the items among which the actions have a row, and the rows."""
        rows = self._items.rows(ids)
        if features is None and rows.all():
            return self._items, rows
        own = features or [None] * len(ids)
        return self._items.with_features(ids, own), np.arange(1, len(ids) + 1)
