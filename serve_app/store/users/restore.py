"""Persons come back from a copy: what is there stays, and who was erased stays so.

What a copy says is joined with what has become of the same people since: a user who came back in
between, as somebody new, has the old pseudonym beside the new one. So copies may be restored in any
order, again, and while the service runs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from bandits.errors import BanditloopError, UsersBackupError
from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys
from serve_app.store.users.merging import plan_merge, still_to_read
from serve_app.store.users.persons import (
    PersonRecord,
    Swap,
    alias_of,
    alias_to,
    decode_person,
    new_person,
    swap_command,
)
from serve_app.store.users.persons_file import PersonRow

PER_COMMAND = 500
ATTEMPTS = 20

# Puts what is missing. ARGV: what each key is to hold. Returns how many were put, and the places of
# those that hold something else already.
_PUT_MISSING = """
local others = {0}
for at, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held then
    redis.call('SET', key, ARGV[at])
    others[1] = others[1] + 1
  elseif held ~= ARGV[at] then others[#others + 1] = at end
end
return others
"""

Progress = Callable[[int], None]


class RestoredUsers(msgspec.Struct):
    """What a restoration came to, in persons.

    Attributes:
        restored: who was not known any more, and is.
        joined: who has come back since as somebody new, and is both now.
        same: who was as in the copy.
        erased: who was erased since, and stays so.
        refused: whom the store has merged with others since, otherwise than the copy.
    """

    restored: int = 0
    joined: int = 0
    same: int = 0
    erased: int = 0
    refused: int = 0


def restore_persons(
    client: Redis,
    keys: UsersKeys,
    rows: Sequence[PersonRow],
    erased: Callable[[], Collection[str]],
    progress: Progress = lambda _count: None,
) -> RestoredUsers:
    """Bring back the persons of a copy.

    Args:
        client: a connection.
        keys: the space's.
        rows: the copy's.
        erased: gives the pseudonyms of all who were erased by now; asked again at the end, for
            somebody may have been meanwhile.
        progress: called with how many persons were looked at.

    Raises:
        RedisError: Redis does not answer; to be done again.
    """
    outcome, gone = RestoredUsers(), frozenset(erased())
    records, aliases = _persons(rows)
    back: dict[str, PersonRecord] = {}
    for name, record in records.items():
        if gone.isdisjoint(record.pseudonyms):
            back[name] = record
        else:
            outcome.erased += 1

    names, done = iter(back), 0
    while part := list(islice(names, PER_COMMAND)):
        put, others = _put_missing(client, keys, {name: back[name].encoded for name in part})
        outcome.restored += put
        outcome.same += len(part) - put - len(others)
        for name in others:
            _count(outcome, _join(client, keys, name, back[name]))
        done += len(part)
        progress(done)
    _lead(client, keys, {name: to for name, to in aliases.items() if to[0] in back}, outcome)

    # Whoever was erased meanwhile may have been put back just behind the job that erased them.
    late = frozenset(erased()) - gone
    for name, record in back.items() if late else ():
        if not late.isdisjoint(record.pseudonyms):
            _remove(client, keys, name, late)
            outcome.erased += 1
    return outcome


def _persons(
    rows: Sequence[PersonRow],
) -> tuple[dict[str, PersonRecord], dict[str, tuple[str, str]]]:
    """Return the records and the aliases of a copy; of what comes twice, the later is newer."""
    records: dict[str, PersonRecord] = {}
    aliases: dict[str, tuple[str, str]] = {}
    for row in rows:
        name = row.key.hex()
        records.pop(name, None)
        aliases.pop(name, None)
        if row.of is None:
            records[name] = PersonRecord(
                row.pseudonym,
                row.since_ms or 0,
                row.earlier or [],
                row.ids or [],
                row.filed or [],
            )
        else:
            aliases[name] = row.of.hex(), row.pseudonym.hex()

    # A person who was copied just before they were merged is part of another one by now.
    for record in list(records.values()):
        for each in record.ids:
            records.pop(each.hex(), None)
    return records, aliases


def _put_missing(
    client: Redis, keys: UsersKeys, values: Mapping[str, bytes]
) -> tuple[int, list[str]]:
    """Put what is missing; return how many were, and the keys that hold something else."""
    names = list(values)
    put, *places = client.eval(
        _PUT_MISSING, len(names), *[keys.person(name) for name in names], *values.values()
    )
    return put, [names[place - 1] for place in places]


def _join(client: Redis, keys: UsersKeys, name: str, record: PersonRecord) -> str:
    """Give whoever has this key now the pseudonyms that they had; return what that came to."""

    def plan() -> Swap | None:
        raw = _value(client, keys, name)
        alias = alias_of(raw)
        to = name if alias is None else alias[0]
        held = raw if alias is None else _value(client, keys, to)
        if held is None:
            return {to: (None, record.encoded)}

        now = decode_person(held)
        missing = [
            each
            for each in (*record.earlier, record.pseudonym)
            if each != now.pseudonym and each not in now.earlier
        ]
        ids = [each for each in record.ids if each not in now.ids and each.hex() != to]
        filed = [each for each in record.filed if each not in now.filed]
        if not missing and not ids and not filed:
            return None

        since_ms = min(now.since_ms, record.since_ms)
        earlier, own = [*missing, *now.earlier], [*now.ids, *ids]
        joined = PersonRecord(now.pseudonym, since_ms, earlier, own, [*now.filed, *filed])
        return {to: (held, joined.encoded)}

    return "joined" if _swapped(client, keys, plan) else "same"


def _lead(
    client: Redis,
    keys: UsersKeys,
    aliases: Mapping[str, tuple[str, str]],
    outcome: RestoredUsers,
) -> None:
    """Let aliases lead to their persons; whoever has come back under one is joined with theirs."""
    names = iter(aliases)
    while part := list(islice(names, PER_COMMAND)):
        values = {name: alias_to(*aliases[name]) for name in part}
        for name in _put_missing(client, keys, values)[1]:
            raw = _value(client, keys, name)
            if raw is None or alias_of(raw) is not None:
                continue
            try:
                _count(outcome, _merge(client, keys, name, aliases[name][0]))
            except BanditloopError:
                outcome.refused += 1


def _merge(client: Redis, keys: UsersKeys, name: str, into: str) -> str:
    """Merge whoever has this key by now into the person that it led to."""

    def plan() -> Swap | None:
        held: dict[str, bytes | None] = {}
        while missing := still_to_read(name, into, held):
            held |= {each: _value(client, keys, each) for each in missing}
        swap = plan_merge(name, into, held, new_person()).swap
        return swap or None

    return "joined" if _swapped(client, keys, plan) else "same"


def _remove(client: Redis, keys: UsersKeys, name: str, gone: Collection[str]) -> None:
    """Take away a record that has a pseudonym of somebody who is gone, and what leads to it."""

    def plan() -> Swap | None:
        raw = _value(client, keys, name)
        if raw is None or alias_of(raw) is not None:
            return None
        record = decode_person(raw)
        if set(gone).isdisjoint(record.pseudonyms):
            return None
        ids = [each.hex() for each in record.ids]
        return {name: (raw, None)} | {each: (_value(client, keys, each), None) for each in ids}

    _swapped(client, keys, plan)


def _swapped(client: Redis, keys: UsersKeys, plan: Callable[[], Swap | None]) -> bool:
    """Change records as planned, planned anew while others change them; say if there was a plan."""
    execute: Any = client.execute_command
    for _ in range(ATTEMPTS):
        swap = plan()
        if swap is None:
            return False
        if execute(*swap_command(keys, swap)):
            return True
    raise UsersBackupError("others change these users without end: try again", "users")


def _value(client: Redis, keys: UsersKeys, name: str) -> bytes | None:
    value: Any = client.get(keys.person(name))
    return None if value is None else bytes(value)


def _count(outcome: RestoredUsers, what: str) -> None:
    setattr(outcome, what, getattr(outcome, what) + 1)
