"""Items as requests send them: most are sent again as they were, and not looked at again."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

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
        self._has_flags = False  # then what is equal has the same types, as rules see them

    def take_in(self, ids: Sequence[str], features: list[FeatureMap]) -> RuledItems:
        """Return the items of one request, by the ids that it gives them.

        Args:
            ids: theirs, each once.
            features: what the request says of each.
        """
        before = [*map(self._said.get, ids)]
        has_flags = self._has_flags or bool in set(_types(features))
        # Most requests send nothing new: all of it is compared at once.
        if before == features and (not has_flags or [*_types(before)] == [*_types(features)]):
            return self._items.only(ids)

        newer = [
            at
            for at, (was, own) in enumerate(zip(before, features, strict=True))
            if was != own or (has_flags and [*_types([was])] != [*_types([own])])
        ]
        if len(self._items) + len(newer) > MOST:
            self._items, self._said = RuledItems(self._rules), {}
            newer = list(range(len(ids)))
        if newer:
            named, own = [ids[at] for at in newer], [features[at] for at in newer]
            self._items.take_in(named, own)
            self._said.update(zip(named, own, strict=True))
            self._has_flags = has_flags
        return self._items.only(ids)


def _types(features: Sequence[Any]) -> Iterator[type]:
    """Return the types of all values of maps: what is equal may be true and 1, or false and 0."""
    return map(type, chain.from_iterable(map(dict.values, features)))
