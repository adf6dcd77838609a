"""The items as they were at any version of a log of items, with all their fields."""

from collections.abc import Callable
from functools import partial

from banditloop_client.schemas import Item
from bandits.errors import BanditloopError
from policies.items.kept_timeline import KeptTimeline
from policies.items.past import ItemsLog, ItemsPast

ItemAt = Callable[[str], Item | None]
"""Gives an item as it was at a version; None: there was none."""


class ItemHistory:
    """The items of each version that decisions name, as they were put.

    A version that is up to ten minutes older than the one before costs nothing more; one before
    that may cost a reading from its whole catalogue on.
    """

    def __init__(self, log: ItemsLog, blob: Callable[[str], bytes]) -> None:
        """Begin with nothing read.

        Args:
            log: of the items.
            blob: gives whole catalogues that the log has not.
        """
        self._past = ItemsPast(log, KeptTimeline)
        self._blob = blob
        self._version = ""
        self._past.asked_by(lambda: [self._version])

    def at(self, version: str) -> ItemAt | None:
        """Return what gives the items of a version; None: it cannot be read any more.

        It is to be used before another version is asked for.
        """
        if version != self._version:
            self._version = version
            self._past.tidy()
        try:
            self._past.catalogue(version, self._blob)
        except BanditloopError:
            return None
        timeline = self._past.timeline(version)
        return partial(timeline.item_then, version) if isinstance(timeline, KeptTimeline) else None
