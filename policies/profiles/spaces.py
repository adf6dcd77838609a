"""Which space a policy is in, as the blob of its spec says it."""

import msgspec

from bandits.log.codec import MALFORMED


class _SpaceOfSpec(msgspec.Struct, frozen=True):
    """What a spec says of its space, whatever else a build knows of."""

    space: str | None = None


def space_of_spec(encoded: bytes | None, policy: str) -> str:
    """Return the space of a policy by its spec's blob; without one, it has a space of its own.

    Args:
        encoded: the blob.
        policy: its name.
    """
    if encoded is None:
        return policy
    try:
        return msgspec.json.decode(encoded, type=_SpaceOfSpec).space or policy
    except MALFORMED:
        return policy
