"""The policies of a space: which are learned just now, and one that is gone for good leaving it."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from bandits.errors import RefusedError, UnknownPolicyError
from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys, partitions
from serve_app.store.profiles.part_state import decode_part_state
from serve_app.store.spaces import Member, Space, part_name

AT_ONCE = 1_000
"""Profiles that are changed at a time."""


class MemberState(msgspec.Struct, frozen=True):
    """How a policy of a space stands.

    Attributes:
        policy: its name.
        partitions: the number of its logs.
        led: of how many of them a learner leads.
        profiles: whether it uses profiles.
        missing: of how many of its logs the profiles do not say everything yet.
    """

    policy: str
    partitions: int
    led: int
    profiles: bool
    missing: int


def member_states(client: Redis, space: Space) -> list[MemberState]:
    """Return how each policy of a space stands.

    Args:
        client: a connection.
        space: the space.
    """
    states: Any = client.hgetall(UsersKeys(space.name).parts)
    return [_state(client, member, states) for member in space.members]


def _state(client: Redis, member: Member, states: dict[bytes, bytes]) -> MemberState:
    made = [
        (state := decode_part_state(states.get(part.encode()))) is not None and state.is_whole
        for part in _parts(member)
    ]
    missing = made.count(False)
    led = _led(client, member)
    return MemberState(member.policy, member.partitions, led, bool(made), missing)


def _led(client: Redis, member: Member) -> int:
    """Return how many of a policy's logs a learner leads."""
    # One key at a time: each is in a slot of its own.
    return sum(
        bool(client.exists(keys.lease)) for keys in partitions(member.policy, member.partitions)
    )


def _parts(member: Member) -> list[str]:
    if member.items is None:
        return []
    return [part_name(member.policy, number) for number in range(member.partitions)]


def leave(
    client: Redis, space: Space, policy: str, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Have a policy leave its space: nobody waits for it any more; return from how many profiles.

    What its log says of users is taken out of their profiles. The log stays, and if the policy is
    served again, it is back with all that the log says.

    Args:
        client: a connection.
        space: the space.
        policy: its name.
        progress: told how many profiles were looked at so far.

    Raises:
        UnknownPolicyError: it is not in the space.
        RefusedError: it is served.
    """
    members = {member.policy: member for member in space.members}
    if policy not in members:
        raise UnknownPolicyError(
            f"no policy {policy!r} is in the space {space.name}; there are {sorted(members)}",
            "policy",
        )
    member, keys = members[policy], UsersKeys(space.name)
    if _led(client, member):
        raise RefusedError(
            f"{policy} is served: a learner leads its log; take it out of the service first",
            "policy",
        )

    # First, so that it is nobody's part that is taken out.
    client.hdel(keys.policies, policy)
    parts = _parts(member)
    if not parts:
        return 0
    client.hdel(keys.parts, *parts)
    names: Any = client.scan_iter(match=f"{keys.profile('')}*", count=AT_ONCE)
    left = looked_at = 0
    while chunk := list(islice(names, AT_ONCE)):
        pipeline: Any = client.pipeline(transaction=False)
        for name in chunk:
            pipeline.hdel(name, *parts)
        left += sum(bool(count) for count in pipeline.execute())
        looked_at += len(chunk)
        progress(looked_at)
    return left
