"""Reading all persons of a space while they are made, merged and erased."""

from collections.abc import Iterator, Sequence
from typing import Any

from redis.cluster import RedisCluster

from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys
from serve_app.store.users.persons import alias_of, decode_person

PER_SCAN = 1000
"""Keys that Redis looks at for one answer: meanwhile it answers nobody else."""

Stored = tuple[str, bytes]
"""The key of a person, without its prefix, and what it holds: a record or an alias."""


def each_person(client: Redis, keys: UsersKeys) -> Iterator[Sequence[Stored]]:
    """Yield all that the store holds, some at a time; a record comes with all its aliases.

    What is there all the time is among it, and may come twice: what comes later is newer. Of a
    merge that is made meanwhile all is among it, or nothing.

    Args:
        client: a connection.
        keys: the space's.

    Raises:
        RedisError: Redis does not answer.
    """
    merged: dict[str, None] = {}
    for names in _names(client, keys):
        plain: list[Stored] = []
        for name, raw in zip(names, _values(client, keys, names), strict=True):
            alias = alias_of(raw)
            if alias is not None:
                merged[alias[0]] = None
            elif raw is not None and decode_person(raw).ids:
                merged[name] = None
            elif raw is not None:
                plain.append((name, raw))
        yield plain

    # Those of whom there is more than one record change together, so they are read together.
    waiting = list(merged)
    while waiting:
        name = waiting.pop()
        found = _family(client, keys, name)
        if found is None:
            continue
        alias = alias_of(found[0][1])
        if alias is None:
            yield found
        elif alias[0] not in merged:  # merged into another one since
            merged[alias[0]] = None
            waiting.append(alias[0])


def pseudonyms_of(client: Redis, keys: UsersKeys, names: Sequence[str]) -> dict[str, str]:
    """Return what persons are logged under, by their keys; nobody is made, as replicas do.

    Args:
        client: a connection.
        keys: the space's.
        names: keys of persons, without their prefix; of these only those that are known.

    Raises:
        RedisError: Redis does not answer.
    """
    found: dict[str, str] = {}
    aliases: dict[str, str] = {}

    # An alias leads to a record, not to another alias.
    for asked in (names, aliases.values()):
        wanted = [name for name in dict.fromkeys(asked) if name not in found]
        for at in range(0, len(wanted), PER_SCAN):
            some = wanted[at : at + PER_SCAN]
            for name, raw in zip(some, _values(client, keys, some), strict=True):
                alias = alias_of(raw)
                if alias is not None:
                    aliases.setdefault(name, alias[0])
                elif raw is not None:
                    found[name] = decode_person(raw).pseudonyms[0]
    return found | {name: found[to] for name, to in aliases.items() if to in found}


def _family(client: Redis, keys: UsersKeys, name: str) -> list[Stored] | None:
    """Return a record with its aliases, as of one moment; None if it is gone."""
    names = [name]
    while True:
        values = _values(client, keys, names)
        raw = values[0]
        if raw is None:
            return None
        ids = [] if alias_of(raw) else [each.hex() for each in decode_person(raw).ids]
        if names == [name, *ids]:
            return [(each, value) for each, value in zip(names, values, strict=True) if value]
        names = [name, *ids]


def _names(client: Redis, keys: UsersKeys) -> Iterator[list[str]]:
    """Yield the keys of persons, some at a time."""
    prefix = keys.person("")
    at: dict[str, Any] = {}
    if isinstance(client, RedisCluster):
        at["target_nodes"] = client.get_node_from_key(prefix)
    names: list[str] = []
    for key in client.scan_iter(match=f"{_escaped(prefix)}*", count=PER_SCAN, **at):
        names.append(key.decode()[len(prefix) :])
        if len(names) >= PER_SCAN:
            yield names
            names = []
    if names:
        yield names


def _escaped(prefix: str) -> str:
    """Return a prefix as a pattern that matches itself: a name may hold no brackets anyway."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in prefix)


def _values(client: Redis, keys: UsersKeys, names: Sequence[str]) -> list[bytes | None]:
    found: Any = client.mget([keys.person(name) for name in names])
    return list(found)
