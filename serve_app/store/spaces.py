"""The policies that share a space: what each says of itself, and what follows from all of them.

Of the space are the log of items, the log of activity, and what is known of users. A policy whose
spec names no space has one to itself, of its own name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from bandits.errors import SpecError
from bandits.log.codec import MALFORMED
from policies.profiles.options import SHOWN, type_of
from policies.profiles.part import CutRule
from policies.profiles.signals import signal_types
from policies.profiles.spaces import space_of_spec
from policies.spec import PolicySpec
from serve_app.store.blobs.parts import read_blob
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys, UsersKeys, partitions
from serve_app.store.snapshots import Head, Published

Kind = TypeVar("Kind")

ACTIVITY = "activity"
"""The part of a profile that the space's log of activity makes."""


def part_name(policy: str, partition: int) -> str:
    """Return the name of the part of a profile that one partition's log makes.

    Args:
        policy: the policy's name.
        partition: which, from 0.
    """
    return f"{policy}.{partition}"


class Member(msgspec.Struct, frozen=True):
    """One policy, as it says of itself to those that it shares a space with.

    Attributes:
        policy: its name.
        partitions: the number of logs it has.
        items: how many items it wants to be kept of each user; None: it has no profiles.
        types: what its users do, and how strongly each speaks for its item.
        signals: the kinds of reward that it knows, with their weights.
        repeat: the types that it asks of items before it offers them again, and ``shown``.
        half_lives_ms: those of its sources that ask what is in demand now.
        filed: whether it has a file of profiles.
    """

    policy: str
    partitions: int = 1
    items: int | None = None
    types: dict[str, float] = {}
    signals: dict[str, float] = {}
    repeat: list[str] = []
    half_lives_ms: list[int] = []
    filed: bool = False

    @classmethod
    def of(cls, spec: PolicySpec) -> "Member":
        """Return what a spec says."""
        profile = None if spec.profile is msgspec.UNSET else spec.profile
        repeat = {} if spec.repeat is msgspec.UNSET else spec.repeat
        signals = {} if spec.signals is msgspec.UNSET else spec.signals
        weights = signal_types(signals)
        return cls(
            spec.name,
            spec.partitions,
            None if profile is None else profile.items,
            {} if profile is None else dict(profile.types),
            {name: weights[name] for name in signals},
            sorted(type_of(name) for name in repeat),
            spec.half_lives_ms,
            spec.profiles is not None,
        )


@dataclass(frozen=True, slots=True)
class Space:
    """A space with its members, in the order of their names.

    Each of what follows from all of them is the most that any asks for, so that members which
    differ, as those of two deployments do for a while, all have what they need.
    """

    name: str
    members: tuple[Member, ...] = ()
    keyed: frozenset[str] = frozenset()

    def with_members(self, other: "Space") -> "Space":
        """Return it with another's in it, which say better what those of their names are."""
        members = {each.policy: each for each in (*self.members, *other.members)}
        in_order = tuple(members[name] for name in sorted(members))
        return Space(self.name, in_order, self.keyed | other.keyed)

    @property
    def profiled(self) -> tuple[Member, ...]:
        """The members that use profiles, so log under random pseudonyms."""
        return tuple(member for member in self.members if member.items is not None)

    @property
    def keyed_logs(self) -> list[str]:
        """The policies whose logs name users by keyed pseudonyms, now or before."""
        now = {member.policy for member in self.members if member.items is None}
        return sorted(now | self.keyed)

    @property
    def filed(self) -> bool:
        """Whether any member has a file of profiles."""
        return any(member.filed for member in self.members)

    @property
    def items(self) -> int:
        """How many of a user's newest items are kept; 0: no member uses profiles."""
        return max((member.items or 0 for member in self.members), default=0)

    @property
    def types(self) -> dict[str, float]:
        """What users do, as the members name it: the types of activity, and the signals.

        Each with the largest weight that a member's profile gives it; a signal that no profile
        weighs, with 0.
        """
        weights: dict[str, float] = {}
        for member in self.members:
            weights |= {name: 0.0 for name in member.signals if name not in weights}
        weighed: dict[str, float] = {}
        for member in self.members:
            for name, weight in member.types.items():
                weighed[name] = max(weight, weighed.get(name, weight))
        return dict(sorted((weights | weighed).items()))

    @property
    def repeated(self) -> frozenset[str]:
        """The types that ``repeat`` of any member asks about; more of them is kept."""
        return frozenset(name for member in self.members for name in member.repeat) - {SHOWN}

    @property
    def half_lives_ms(self) -> list[int]:
        """The half-lives with which members ask what is in demand, each once, ascending."""
        return sorted({each for member in self.profiled for each in member.half_lives_ms})

    @property
    def rule(self) -> CutRule:
        """What is kept of each user."""
        return CutRule(max(1, self.items), tuple(sorted(self.repeated)))

    @property
    def logs(self) -> list[Keys]:
        """The keys of every partition of every member that uses profiles."""
        return [
            keys
            for member in self.profiled
            for keys in partitions(member.policy, member.partitions)
        ]

    @property
    def parts(self) -> list[str]:
        """The names of the parts of a profile: that of the activity, and one for each log."""
        if not self.profiled:
            return []
        return [ACTIVITY, *(part_name(keys.policy, keys.partition) for keys in self.logs)]


def space_of_specs(name: str, specs: Sequence[PolicySpec]) -> Space:
    """Return the space that specs share.

    Args:
        name: the space's.
        specs: policies, of which some may be of other spaces.
    """
    members = [Member.of(spec) for spec in specs if spec.shares == name]
    return Space(name, tuple(sorted(members, key=lambda member: member.policy)))


def moved(spec: PolicySpec, before: str) -> SpecError:
    """Return the refusal of a policy that is in another space than its log.

    Args:
        spec: the policy.
        before: the name of the space that its log is of.
    """
    own = "leave out space" if before == spec.name else f"set space to {before}"
    return SpecError(
        f"the log of {spec.name} is of the space {before} and stays so, for its decisions name"
        f" versions of that space's items: {own}, have the other policies say space: {before}, or"
        " begin a policy of another name",
        "space",
    )


def check_members(specs: Sequence[PolicySpec]) -> None:
    """Refuse policies that share a space and say differently what is kept of its users.

    Args:
        specs: those of one deployment.

    Raises:
        SpecError: it names two of them, and the field.
    """
    said: dict[str, PolicySpec] = {}
    for spec in specs:
        if spec.profile is msgspec.UNSET:
            continue
        other = said.setdefault(spec.shares, spec)
        if other.profile != spec.profile:
            field = "items" if _items_of(other) != _items_of(spec) else "types"
            raise SpecError(
                f"policies {other.name} and {spec.name} share the space {spec.shares}, whose users"
                f" have one profile, and differ in profile.{field}: say the same in both",
                f"profile.{field}",
            )


def _items_of(spec: PolicySpec) -> int | None:
    return Member.of(spec).items


def register(client: Redis, spec: PolicySpec, before: PolicySpec | None = None) -> None:
    """Say of a policy to its space what it is; one that shares nothing says nothing.

    Args:
        client: of any process of the policy.
        spec: the policy.
        before: the spec that was in force in its log until now, if the log has any.

    Raises:
        RedisError: Redis does not answer.
    """
    if spec.space is msgspec.UNSET and spec.profile is msgspec.UNSET:
        return
    keys, data = UsersKeys(spec.shares), msgspec.msgpack.encode(Member.of(spec))
    client.hset(keys.policies, spec.name, data)
    if before is not None and before.profile is msgspec.UNSET:
        client.sadd(keys.keyed, spec.name)


def decode_space(name: str, raw: Mapping[bytes, bytes]) -> Space:
    """Return a space with the members in the hash ``UsersKeys.policies``; none that is unreadable.

    Args:
        name: the space's.
        raw: the hash.
    """
    members = []
    for policy in sorted(raw):
        try:
            members.append(msgspec.msgpack.decode(raw[policy], type=Member))
        except MALFORMED:
            continue
    return Space(name, tuple(members))


def read_space(client: Redis, name: str) -> Space:
    """Return a space, with the members that have said that they are.

    Args:
        client: a connection.
        name: the space's.

    Raises:
        RedisError: Redis does not answer.
    """
    keys = UsersKeys(name)
    raw: Any = client.hgetall(keys.policies)
    keyed: Any = client.smembers(keys.keyed)
    return replace(decode_space(name, raw), keyed=frozenset(each.decode() for each in keyed))


def space_name(client: Redis, policy: str) -> str:
    """Return the name of the space that a policy is in, as its newest snapshot's spec says.

    One that has none is in none but its own.

    Args:
        client: a connection.
        policy: its name.

    Raises:
        RedisError: Redis does not answer.
    """
    keys = Keys(policy)
    try:
        # Whoever reads the snapshot says what of it is damaged.
        head = _decoded(client.get(keys.head), Head)
        published = head and _decoded(read_blob(client, keys, head.snapshot_id), Published)
        raw: Any = published and read_blob(client, keys, published.spec)
    except MALFORMED:
        return policy
    return space_of_spec(raw, policy)


def _decoded(raw: Any, kind: type[Kind]) -> Kind | None:
    return None if raw is None else msgspec.msgpack.decode(raw, type=kind)
