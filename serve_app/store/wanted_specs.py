"""Specs that were set over HTTP: what a policy is to be, until its file says something else.

Whoever governs a service (``banditloop serve``, or the keeper of a Serve config's application) has
them served, and leaves a mark here for as long as it does.
"""

from typing import Any

import msgspec

from serve_app.store.clients import Redis
from serve_app.store.keys import GOVERNED, Keys

GOVERNED_S = 180
"""How long the mark of whoever governs stays, in seconds: a change may take as long."""


class WantedSpec(msgspec.Struct, frozen=True):
    """The spec that a policy is to have.

    Attributes:
        spec: it, as JSON, with the paths of this machine.
        of: the digest of the spec in the policy's file, which it stands in for.
    """

    spec: msgspec.Raw
    of: str


_wanted = msgspec.json.Decoder(WantedSpec)


def read_wanted(client: Redis, policy: str) -> WantedSpec | None:
    """Return the spec that was set for a policy; None: its file says it.

    Args:
        client: a connection.
        policy: its name.
    """
    data: Any = client.get(Keys(policy).wanted)
    return None if data is None else _wanted.decode(data)


def write_wanted(client: Redis, policy: str, wanted: WantedSpec | None) -> None:
    """Set the spec of a policy, or have its file say it again.

    Args:
        client: a connection.
        policy: its name.
        wanted: the spec; None: that of its file.
    """
    key = Keys(policy).wanted
    if wanted is None:
        client.delete(key)
    else:
        client.set(key, msgspec.json.encode(wanted))


def say_governed(client: Redis) -> None:
    """Leave the mark of whoever has specs served that were set over HTTP."""
    client.set(GOVERNED, b"1", ex=GOVERNED_S)


def is_governed(client: Redis) -> bool:
    """Return whether somebody has specs served that are set over HTTP."""
    return bool(client.exists(GOVERNED))
