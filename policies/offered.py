"""What a policy may offer now, and the sources over it."""

from collections.abc import Collection

from policies.items.offering import Offering
from policies.sources.base import ImmediateSource
from policies.sources.source_set import SourceSet


class Offered:
    """The items that may be offered, and the sources over them: both are swapped at once."""

    def __init__(self, offering: Offering, sources: SourceSet) -> None:
        """Join the two.

        Args:
            offering: what may be.
            sources: those over it, or, before a catalogue was ever put, as they were loaded.
        """
        self.offering = offering
        self.sources = sources
        self._followers = sources.followers
        self.all_follow = len(self._followers) == len(sources.proposing)
        self.looks_at_filters = any(isinstance(each, ImmediateSource) for each in self._followers)

    def tell(self, changed: Collection[str]) -> None:
        """Tell the sources what has changed."""
        for follower in self._followers:
            follower.update(changed)
