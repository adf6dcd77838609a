"""Items as requests send them: most are sent again as they were, and not looked at again."""

from collections.abc import Sequence
from typing import Final

from bandits.values import FeatureMap
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

    def take_in(self, ids: Sequence[str], features: Sequence[FeatureMap]) -> RuledItems:
        """Return the items of one request, by the ids that it gives them.

        Args:
            ids: theirs, each once.
            features: what the request says of each.
        """
        said = self._said
        newer = [
            at
            for at, (item_id, own) in enumerate(zip(ids, features, strict=True))
            if (before := said.get(item_id)) is None or not _is_as(before, own)
        ]
        if len(self._items) + len(newer) > MOST:
            self._items, self._said = RuledItems(self._rules), {}
            newer = list(range(len(ids)))
        if newer:
            named, own = [ids[at] for at in newer], [features[at] for at in newer]
            self._items.take_in(named, own)
            self._said.update(zip(named, own, strict=True))
        return self._items.only(ids)


def _is_as(before: FeatureMap, now: FeatureMap) -> bool:
    """Return whether features are the same; true is not 1 here, nor is false 0."""
    if before != now:
        return False
    values = now.values()
    return not (0 in values or 1 in values) or [*map(type, values)] == [*map(type, before.values())]
