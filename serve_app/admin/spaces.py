"""A space's stored state, opened by name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bandits.errors import StartupError, UnknownSpaceError
from serve_app.admin.stored_policy import the_one
from serve_app.host.embedded import any_redis
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, Redis, blocking_client
from serve_app.store.keys import UsersKeys
from serve_app.store.reachable import no_redis
from serve_app.store.spaces import Space, read_space


def space_names(client: Redis) -> list[str]:
    """Return the names of the spaces that a policy here has said it is of."""
    before, _, after = UsersKeys("*").policies.partition("*")
    names: Any = client.scan_iter(match=f"{before}*{after}", count=1000)
    return sorted(name.decode().removeprefix(before).removesuffix(after) for name in names)


def chosen_space(client: Redis, name: str | None) -> Space:
    """Return the space that is meant.

    Args:
        client: a connection.
        name: what was asked for; None: the only one there is.

    Raises:
        UnknownSpaceError: there is none, or there are several and none was named.
    """
    names = space_names(client)
    meant = the_one(names, name)
    if meant is None:
        if not names:
            raise UnknownSpaceError(
                "no space is here: serve a policy whose spec has space or profile", "space"
            )
        problem = "several spaces: name one" if name is None else f"no space {name!r} is here"
        raise UnknownSpaceError(f"{problem}; there are {names}", "space")
    return read_space(client, meant)


@contextlib.contextmanager
def opened_space(
    name: str | None, redis_url: str | None, data_dir: Path | None
) -> Iterator[tuple[Redis, Space, Settings]]:
    """Open what a service keeps of one space, whether it runs or not.

    Args:
        name: the space's name; None: the only one there is.
        redis_url: the Redis that keeps it; None: that of the environment or of ``data_dir``.
        data_dir: the service's data directory; None: that of the environment.

    Raises:
        StartupError: the Redis does not answer.
        UnknownSpaceError: there is no such space.
    """
    settings = Settings.with_options(redis_url=redis_url, data_dir=data_dir)
    with any_redis(settings) as url:
        settings = settings.model_copy(update={"redis_url": url})
        try:
            with contextlib.closing(blocking_client(url)) as client:
                yield client, chosen_space(client, name), settings
        except REDIS_ERRORS as error:
            raise no_redis(url, error, settings.redis_timeout_s) from error


def known_secret(settings: Settings) -> bytes:
    """Return the salt that the service hashes with; none is made, since nobody has it.

    Args:
        settings: those of the service.

    Raises:
        StartupError: there is none.
    """
    if settings.salt is None and not (settings.data_dir / "salt").exists():
        raise StartupError(
            f"{settings.data_dir} has no salt, by which users are found: name the service's"
            " --data-dir, or its BANDITLOOP_SALT",
            "data_dir",
        )
    return settings.secret()
