"""How often a user did something with items of each category: what the items' features say."""

from collections import Counter

import msgspec

from banditloop_client.schemas import Item
from banditloop_client.space_schemas import UserExport

MOST_VALUES = 20
"""Values of a feature that are told, the most frequent."""


class CategoryCounts:
    """Counts a user's events by the texts that their items have as features.

    A category is a feature whose value is a text, or a list of texts: of these each counts. What an
    item says now counts, whatever it said when the user did something with it.
    """

    def __init__(self) -> None:
        """Begin with no events."""
        self._counts: dict[str, Counter[str]] = {}

    def add(self, item: Item | None) -> None:
        """Count one event.

        Args:
            item: what it was done with; None: it is there no more, so nothing is counted.
        """
        for name, value in {} if item is None else item.features.items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            if texts:
                self._counts.setdefault(name, Counter()).update(dict.fromkeys(texts, 1))

    def told(self) -> dict[str, dict[str, int]]:
        """Return by feature how many events each of its most frequent values has, most first.

        Of equal counts the value that stands first in the order of texts is told first.
        """
        return {
            name: dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MOST_VALUES])
            for name, counts in sorted(self._counts.items())
        }


def with_counts(held: UserExport, counts: CategoryCounts) -> UserExport:
    """Return what is held of a user, with how often they did something with which category.

    Args:
        held: all that is held, without it.
        counts: of the events of the profile.
    """
    profile = msgspec.structs.replace(held.profile, counts=counts.told())
    return msgspec.structs.replace(held, profile=profile)
