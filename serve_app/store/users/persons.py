"""The records that link persons to their pseudonyms, and the commands that read and change them.

A person's record is under the key of the id they were first known by. Under each other id that was
merged into it there is an alias, which names that key and the pseudonym that the id had. So a
record is found in one step, and is destroyed with all that leads to it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from policies.pseudonyms import random_pseudonym
from serve_app.store.keys import UsersKeys

ALIAS = b">"
"""An alias begins with it, and goes on with 32 + 32 hex digits; a record of msgpack never does."""
MAX_PSEUDONYMS = 1000
"""How many pseudonyms one person may have, with those of all that were merged into them."""

# One step for any number of users: what is there, or else what was proposed, and whether files may
# be asked about them. KEYS: who was erased, the persons'. ARGV: what the keys begin with, the
# record of each user that is not known yet. An alias that leads nowhere (its person was in no copy)
# is nobody's.
RESOLVE = """
local found = {}
for at = 2, #KEYS do
  local own, raw = string.sub(KEYS[at], #ARGV[1] + 1), redis.call('GET', KEYS[at])
  local id = own
  if raw and string.byte(raw) == 62 then
    id = string.sub(raw, 2, 33)
    raw = redis.call('GET', ARGV[1] .. id)
    if not raw then id = own end
  end
  if not raw then
    raw = ARGV[at]
    redis.call('SET', KEYS[at], raw)
  end
  local last = #found
  found[last + 1], found[last + 2] = id, raw
  found[last + 3] = redis.call('SISMEMBER', KEYS[1], own)
end
return found
"""

# Changes records if none of them was changed since it was read. ARGV: for each key what it held and
# what it is to hold; empty: nothing.
SWAP = """
for at, key in ipairs(KEYS) do
  if (redis.call('GET', key) or '') ~= ARGV[2 * at - 1] then return 0 end
end
for at, key in ipairs(KEYS) do
  if ARGV[2 * at] == '' then redis.call('DEL', key) else redis.call('SET', key, ARGV[2 * at]) end
end
return 1
"""

Command = tuple[Any, ...]
Swap = Mapping[str, tuple[bytes | None, bytes | None]]
"""By the key of a person, without its prefix: what it holds, and what it is to hold."""


class PersonRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Says whose a pseudonym is: the only place that does.

    Attributes:
        pseudonym: what everything is logged under, 16 bytes.
        since_ms: when the person was first known, in milliseconds since 1970.
        earlier: the pseudonyms that were merged into it, the newest last.
        ids: the keys of the aliases that lead here, 16 bytes each.
        filed: the keyed pseudonyms under which files of profiles may have the person, 16 bytes
            each, of all ids that were merged; none: of their own id alone.
    """

    pseudonym: bytes
    since_ms: int
    earlier: list[bytes] = []
    ids: list[bytes] = []
    filed: list[bytes] = []

    @property
    def encoded(self) -> bytes:
        """The bytes that are stored; of who was never merged as they were before there were any."""
        if self.filed:
            return _encode(self)
        return _encode((self.pseudonym, self.since_ms, self.earlier, self.ids))

    @property
    def pseudonyms(self) -> list[str]:
        """All of them: the one that is logged under, and then the others, newest first."""
        return [self.pseudonym.hex(), *(each.hex() for each in reversed(self.earlier))]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(PersonRecord)


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a user id names, as read once.

    Attributes:
        key: finds their record; that of the id they were first known by.
        raw: the bytes of the record: while it holds these, this is up to date.
        pseudonym: what is logged of them is logged under it, 32 hex digits.
        pseudonyms: all of theirs, this one first, then the newest first.
        since_ms: since when they are known.
        filed: whether files of profiles may be asked about this id: not if it was erased before.
        filed_as: the keyed pseudonyms of ids that were merged, which they may be asked about, too.
    """

    key: str
    raw: bytes
    pseudonym: str
    pseudonyms: tuple[str, ...]
    since_ms: int
    filed: bool = True
    filed_as: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, raw: bytes, *, filed: bool = True) -> "Person":
        """Return the person of a stored record.

        Args:
            key: what it is stored under, without its prefix.
            raw: its bytes.
            filed: see above.
        """
        record = decode_person(raw)
        pseudonyms = tuple(record.pseudonyms)
        filed_as = tuple(each.hex() for each in record.filed)
        return cls(key, raw, pseudonyms[0], pseudonyms, record.since_ms, filed, filed_as)


def new_person(now_ms: int | None = None) -> PersonRecord:
    """Return the record of somebody of whom nothing is known, under a pseudonym of their own."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return PersonRecord(bytes.fromhex(random_pseudonym()), now_ms)


def decode_person(raw: bytes) -> PersonRecord:
    """Return a record as it was stored."""
    return _decoder.decode(raw)


def alias_of(raw: bytes | None) -> tuple[str, str] | None:
    """Return the key that an alias leads to, and its own pseudonym; None if it is no alias."""
    if raw is None or not raw.startswith(ALIAS):
        return None
    return raw[1:33].decode(), raw[33:].decode()


def alias_to(key: str, pseudonym: str) -> bytes:
    """Return an alias.

    Args:
        key: the person's, to which it leads.
        pseudonym: the one that the alias's own id had before.
    """
    return ALIAS + key.encode() + pseudonym.encode()


def resolve_command(keys: UsersKeys, ids: Sequence[str]) -> Command:
    """Return the command that finds users, and makes those that are not known.

    Args:
        keys: the space's.
        ids: the keys of their ids (``person_key``).
    """
    proposed = [new_person().encoded for _ in ids]
    names = [keys.unfiled, *(keys.person(each) for each in ids)]
    return ("EVAL", RESOLVE, len(names), *names, keys.person(""), *proposed)


def resolved(answer: Sequence[Any]) -> list[Person]:
    """Return the persons that ``resolve_command`` has found or made."""
    found = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
    return [Person.of(key.decode(), raw, filed=not erased) for key, raw, erased in found]


def swap_command(keys: UsersKeys, swap: Swap) -> Command:
    """Return the command that changes records, all or none; it answers 1 if none had changed.

    Args:
        keys: the space's.
        swap: what they hold, and what they are to hold.
    """
    names = [keys.person(each) for each in swap]
    values = [value or b"" for pair in swap.values() for value in pair]
    return ("EVAL", SWAP, len(names), *names, *values)
