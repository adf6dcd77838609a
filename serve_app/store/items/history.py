"""A log of items, all of it: the stream, and the archive where the stream has been trimmed."""

from collections.abc import Iterator
from typing import Any

from bandits.log.positions import is_after, position_before
from bandits.log.records import LogEntry
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline, whole_catalogue
from serve_app.store.clients import Redis
from serve_app.store.history import History
from serve_app.store.items.bases import read_base
from serve_app.store.keys import ItemsKeys
from serve_app.store.spaces import space_name

BATCH = 50
"""Entries at a time: each may hold 10,000 items."""


class ItemsHistory(History):
    """Reads a space's log of items from anywhere to its end. Blocking."""

    def __init__(self, client: Redis, keys: ItemsKeys, archive: ArchiveReader | None) -> None:
        super().__init__(client, keys, archive)
        self._bases = keys.bases

    def encoded(
        self, after: str, through: str | None = None, *, batch: int = BATCH
    ) -> Iterator[LogEntry]:
        """Yield every entry past ``after``, as ``History.encoded`` does, fewer at a time.

        Args:
            after: the position to begin behind.
            through: the last position to yield; None: the end of the log.
            batch: how many to ask Redis for at a time.
        """
        return super().encoded(after, through, batch=batch)

    def bases(self, through: str) -> Iterator[LogEntry]:
        """Yield the entries at or before a position that say what all items are, newest first.

        Raises:
            LogGapError, ArchiveError: see ``encoded``.
        """
        listed: Any = self._client.lrange(self._bases, 0, -1)
        oldest = None
        for name in listed:
            oldest = name.decode()
            if not is_after(oldest, through):
                yield from self.encoded(position_before(oldest), oldest)

        # Redis remembers those since it has the log; the archive may know older ones.
        for entry in () if self.archive is None else self.archive.bases(through):
            if oldest is None or is_after(oldest, entry.id):
                yield entry


def items_of_space(client: Redis, space: str, root: str) -> ItemsHistory:
    """Return the log of a space's items.

    Args:
        client: of the service's Redis.
        space: its name.
        root: folder or URI of the archive; empty where nothing is archived.
    """
    archive = ArchiveReader(root, shared_folder(space, "items")) if root else None
    return ItemsHistory(client, ItemsKeys(space), archive)


def items_of_policy(client: Redis, policy: str, root: str) -> ItemsHistory:
    """Return the log of the items that a stored policy shares with its space.

    Args:
        client: of the service's Redis.
        policy: its name.
        root: folder or URI of the archive; empty where nothing is archived.
    """
    return items_of_space(client, space_name(client, policy), root)


def items_now(client: Redis, space: str) -> ItemTimeline:
    """Return the items that a space has now.

    Args:
        client: a connection.
        space: its name.

    Raises:
        ArtifactError, MissingBlobError: they are not stored, or damaged.
    """
    keys = ItemsKeys(space)
    history, base = ItemsHistory(client, keys, None), read_base(client, keys)
    if base is None:
        return ItemTimeline(Catalogue())

    whole = Catalogue.decode(whole_catalogue(history.blob, base.digest))
    timeline = ItemTimeline(whole, version=base.version, at=base.begins)
    for entry in history.encoded(base.begins):
        timeline.apply(entry, history.blob)
    return timeline
