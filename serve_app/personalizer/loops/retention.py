"""Retention of logs, where it was set: what is older goes from the archive, once an hour.

The log then begins at a root, with the state of a checkpoint: of the oldest that is kept, where it
is to reach further back than these. Files between that and the time that was set stay, and can be
evaluated; what is proven begins at the root.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import msgspec

from bandits.errors import BanditloopError
from bandits.log.positions import position_ms
from policies.archive.archive import ArchiveReader, archive_folder
from policies.archive.listing import ListedFile
from policies.personalizer.configuration import settings_of
from policies.spec import PolicySpec
from serve_app.admin.replayed.verification import LogAddress
from serve_app.admin.roots.older_files import remove_older
from serve_app.admin.roots.partitions import state_roots
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.keys import Keys

EVERY_S = 3600
"""How often a policy's archive is looked at, by one replica of all."""
_DAY_MS = 86_400_000
_MARK = "retention"

log = logging.getLogger("banditloop.retention")


class Retention:
    """Removes what policies' logs are not to keep, as long as they are served."""

    def __init__(self, settings: Settings, specs: Sequence[PolicySpec]) -> None:
        """Take the policies whose retention was set.

        Args:
            settings: of the service.
            specs: of all that are served.
        """
        self._settings = settings
        self.days = {
            spec.name: days
            for spec in specs
            if (days := settings_of(spec).log_retention_days) is not msgspec.UNSET and days >= 0
        }

    async def follow(self) -> None:
        """Look at the archives, once an hour, until cancelled; without any policy not at all."""
        while self.days:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(EVERY_S)

    def _look(self) -> None:
        try:
            with contextlib.closing(blocking_client(str(self._settings.redis_url))) as client:
                for policy, days in self.days.items():
                    if client.set(Keys(policy).at_work(_MARK), b"1", nx=True, ex=EVERY_S - 60):
                        self._retain(client, policy, days)
        except FAILURES as error:
            log.warning("what logs are not to keep stays: %s", type(error).__name__)

    def _retain(self, client: Redis, policy: str, days: int) -> None:
        try:
            removed = retain(self._settings, client, policy, days)
        except (BanditloopError, OSError) as error:
            log.warning("the log of %s stays as it is: %s", policy, error)
            return
        if removed:
            log.warning(
                "policy %s: %d files of its log, of more than %d days ago, were removed",
                policy,
                len(removed),
                days,
            )


def retain(settings: Settings, client: Redis, policy: str, days: int) -> list[ListedFile]:
    """Remove the files of a policy's archive of before some days ago; return them.

    Args:
        settings: of the service.
        client: a connection.
        policy: the policy's name.
        days: how many are kept.

    Raises:
        RetentionError: something needs what is to be removed.
        OSError: the archive cannot be reached.
    """
    archive, stored = settings.archive_root(), StoredPolicy(client, policy)
    if not archive:
        return []
    folders = [archive_folder(policy, each, stored.partitions) for each in range(stored.partitions)]
    before_ms = stored.log.now_ms() - days * _DAY_MS
    oldest = [
        next(iter(ArchiveReader(archive, folder).chain.listing.after(None)), None)
        for folder in folders
    ]
    if not any(each is not None and position_ms(each.last) < before_ms for each in oldest):
        return []

    # Checkpoints are kept for a month: of a longer time the root is the oldest there is.
    kept = stored.checkpoints.list()
    reached_ms = max(before_ms, kept[-1].time_ms) if kept else before_ms
    address = LogAddress(str(settings.redis_url), policy, archive, settings.secret())
    removed: list[ListedFile] = []
    for root, folder in zip(state_roots(address, reached_ms), folders, strict=True):
        removed += remove_older(root, archive, folder, before_ms=before_ms)
    return removed
