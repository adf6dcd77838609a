"""A policy's stored state, opened by name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from policies.archive.archive import ArchiveReader, archive_folder
from serve_app.admin.stored_policy import StoredPolicy, chosen_policy
from serve_app.host.embedded import any_redis
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, blocking_client
from serve_app.store.keys import Keys
from serve_app.store.merges import partition_count
from serve_app.store.newer_builds import check_fold
from serve_app.store.reachable import no_redis


@contextlib.contextmanager
def opened(
    policy: str | None, redis_url: str | None, data_dir: Path | None
) -> Iterator[tuple[StoredPolicy, Settings]]:
    """Open what a service keeps of one policy, whether it runs or not.

    Args:
        policy: the policy's name; None: the only one there is.
        redis_url: the Redis that keeps it; None: that of the environment or of ``data_dir``.
        data_dir: the service's data directory; None: that of the environment.

    Raises:
        StartupError: the Redis does not answer.
        UnknownPolicyError: there is no such policy.
        NewerBuildError: a newer build folds its log.
    """
    settings = Settings.with_options(redis_url=redis_url, data_dir=data_dir)
    with any_redis(settings) as url:
        settings = settings.model_copy(update={"redis_url": url})

        # A Redis that goes away in the middle of it is no bug either.
        try:
            with contextlib.closing(blocking_client(url)) as client:
                name, root = chosen_policy(client, policy), settings.archive_root()
                check_fold(client, Keys(name))
                folder = archive_folder(name, 0, partition_count(client, name))
                yield (
                    StoredPolicy(client, name, ArchiveReader(root, folder) if root else None),
                    settings,
                )
        except REDIS_ERRORS as error:
            raise no_redis(url, error, settings.redis_timeout_s) from error
