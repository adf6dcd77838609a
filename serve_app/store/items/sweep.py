"""Sweeping whole catalogues from Redis that a log of items no longer begins with."""

import time

from bandits.errors import ArchiveError
from policies.archive.archive import ArchiveReader
from serve_app.store.archiving.sweep import FIRST_S, SWEEP_S, StoredBlobs, log
from serve_app.store.blobs.parts import UNNAMED_S
from serve_app.store.clients import Redis
from serve_app.store.items.bases import ItemsBase, read_base
from serve_app.store.keys import ItemsKeys

# Lets a blob expire, unless readers begin with it by now. KEYS: base, blob. ARGV: digest, seconds.
EXPIRE_UNLESS_NAMED = """
if redis.call('HGET', KEYS[1], 'digest') == ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[2], ARGV[2])
"""


class ItemsSweep:
    """Sweeps one log of items: whatever is archived goes but the newest catalogue."""

    def __init__(self, client: Redis, keys: ItemsKeys, archive: ArchiveReader | None) -> None:
        """Sweep what ``keys`` name; ``archive`` keeps the log, if there is one."""
        self._client, self._keys = client, keys
        self._blobs = StoredBlobs(client, keys, archive)
        self._due = time.monotonic() + FIRST_S

    def sweep_if_due(self) -> None:
        """Sweep once in SWEEP_S; a sweep that fails is tried again then.

        Raises:
            RedisError: Redis does not answer.
        """
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + SWEEP_S
        try:
            self.sweep()
        except (OSError, ArchiveError) as error:
            log.warning("the items of %s are not swept: %s", self._keys.policy, error)

    def sweep(self) -> list[str]:
        """Let every catalogue expire that is archived, and not the newest; return the digests.

        Raises:
            OSError, ArchiveError: the archive cannot be read.
        """
        base: ItemsBase | None = read_base(self._client, self._keys)
        stored = [name for name in self._blobs.names() if base is None or name != base.digest]
        going = [
            name
            for name, ttl in zip(stored, self._blobs.each("TTL", stored), strict=True)
            if ttl == -1 and self._blobs.is_archived(name)
        ]
        for name in going:
            self._client.eval(
                EXPIRE_UNLESS_NAMED, 2, self._keys.base, self._keys.blob(name), name, UNNAMED_S
            )
        return going
