"""Which items a space has, as far as somebody asks."""

from bandits.errors import LogGapError
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from serve_app.store.clients import Redis
from serve_app.store.items.bases import read_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys


class SpaceItems:
    """Knows whether there is an item now. It reads the log when it is asked for one that is new."""

    def __init__(self, client: Redis, keys: ItemsKeys, history: ItemsHistory) -> None:
        """Know nothing yet.

        Args:
            client: a connection.
            keys: those of the log of items.
            history: reads all of it.
        """
        self._client, self._keys, self._history = client, keys, history
        self._timeline: ItemTimeline | None = None

    @property
    def begun(self) -> bool:
        """Whether the log of items has begun: before, there is nothing to be asked."""
        return self._timeline is not None or read_base(self._client, self._keys) is not None

    def __contains__(self, item_id: str) -> bool:
        """Whether there is such an item.

        Raises:
            LogGapError, ArchiveError, MissingBlobError: a part of the log is missing.
        """
        if self._timeline is not None and item_id in self._timeline:
            return True
        try:
            self._catch_up()
        except LogGapError:
            self._timeline = None  # a newer base has come since, which says it all
            self._catch_up()
        return self._timeline is not None and item_id in self._timeline

    def _catch_up(self) -> None:
        if self._timeline is None:
            base = read_base(self._client, self._keys)
            if base is None:
                return
            catalogue = Catalogue.decode(self._history.blob(base.digest))
            self._timeline = ItemTimeline(catalogue, version=base.version, at=base.begins)
        for entry in self._history.encoded(self._timeline.position):
            self._timeline.apply(entry, self._history.blob)
        self._timeline.forget(self._timeline.position)
