"""What a policy may offer now, and the sources over it."""

import asyncio
from collections.abc import Callable, Collection
from math import inf
from typing import Final

from policies.items.offering import Offering
from policies.sources.base import ImmediateSource
from policies.sources.source_set import SourceSet

AT_ONCE: Final = 100
"""Items whose time has come that are looked at in one turn: a few thousandths of a second."""
PAUSE_S: Final = 0.002
"""How long other requests have between two such turns at least."""


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

    def pass_time(self, most: float = inf) -> bool:
        """Let it be now, and tell the sources whose time has come, or is over.

        Args:
            most: of how many items at most.

        Returns:
            Whether there are more.
        """
        if turned := self.offering.pass_time(most):
            self.tell(turned)
        return self.offering.is_late


class NextTurn:
    """Has something done in an event loop when others have had their turns, once at a time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, action: Callable[[], object]) -> bool:
        """Have it done; return whether it will be: not where no event loop runs.

        Args:
            action: what is to be done.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(PAUSE_S, self._do, action)
        return True

    def _do(self, action: Callable[[], object]) -> None:
        self._loop = None
        action()
