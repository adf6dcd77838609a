"""Whole catalogues in a log of items, and where whoever reads it begins: at the newest of them.

A log of items begins with one. What the entries before the newest have made is in it, so none of
them is needed in the stream: an archive has them, or they stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bandits.log.codec import encode
from bandits.log.records import ItemsBaseRecord
from policies.items.catalogue import NEVER_PUT
from serve_app.store.clients import Redis
from serve_app.store.keys import ItemsKeys

KEPT_BASES = 10_000
"""Positions of whole catalogues that are remembered."""
FIELDS = ("begins", "digest", "version", "items")

# Appends a whole catalogue, and has readers begin there, unless they begin later already. KEYS:
# log, base, needed, bases, blob. ARGV: record, the last position in it (empty: its own), digest,
# version, number of items, how many are remembered, and where the log has to be empty, the version
# of one that has begun with nothing: that it is, too, until something comes. Returns the entry's
# position; none if it was not appended.
APPEND_BASE = """
local held = redis.call('HGET', KEYS[2], 'begins')
local function before(a, b)
  local ams, aseq = string.match(a, '^(%d+)-(%d+)$')
  local bms, bseq = string.match(b, '^(%d+)-(%d+)$')
  ams, aseq, bms, bseq = tonumber(ams), tonumber(aseq), tonumber(bms), tonumber(bseq)
  return ams < bms or (ams == bms and aseq < bseq)
end
if held and ARGV[7] ~= '' then
  if ARGV[4] == ARGV[7] or redis.call('HGET', KEYS[2], 'version') ~= ARGV[7] then
    return false
  end
  if #redis.call('XRANGE', KEYS[1], '(' .. held, '+', 'COUNT', 1) > 0 then return false end
end
if held and ARGV[2] ~= '' and before(ARGV[2], held) then return false end
redis.call('PERSIST', KEYS[5])
if redis.call('EXISTS', KEYS[5]) == 0 then return false end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
local begins = ARGV[2] ~= '' and ARGV[2] or entry
redis.call('HSET', KEYS[2], 'begins', begins, 'digest', ARGV[3], 'version', ARGV[4],
  'items', ARGV[5])
redis.call('SET', KEYS[3], begins)
redis.call('LPUSH', KEYS[4], entry)
redis.call('LTRIM', KEYS[4], 0, ARGV[6] - 1)
return entry
"""


@dataclass(frozen=True, slots=True)
class ItemsBase:
    """The newest whole catalogue of a log of items, as of an entry.

    Attributes:
        begins: the position of that entry: what comes behind it is not in the catalogue.
        digest: the digest of the blob with the items.
        version: the version that they are.
        items: how many there are.
    """

    begins: str
    digest: str
    version: str
    items: int

    @classmethod
    def of(cls, fields: Sequence[bytes | None]) -> "ItemsBase | None":
        """Return what the hash says, whose ``FIELDS`` these are; None: the log has not begun."""
        begins, name, version, items = (
            None if field is None else field.decode() for field in fields
        )
        if begins is None or name is None or version is None:
            return None
        return cls(begins, name, version, int(items or 0))


def append_base(
    keys: ItemsKeys,
    record: ItemsBaseRecord,
    *,
    items: int,
    begins: str = "",
    to_empty: bool = False,
) -> tuple[Any, ...]:
    """Return the command that appends a whole catalogue, whose blob is stored.

    Its answer is the entry's position; none if the log has a later one, or has to be empty, or if
    the blob is gone.

    Args:
        keys: the log's.
        record: the entry's.
        items: how many items there are.
        begins: the position of the last entry that is in it; of one that replaces all, nothing.
        to_empty: whether nothing comes before it, but that there are no items; or it does not
            come.
    """
    version = record.digest if record.version is None else record.version
    named = keys.log, keys.base, keys.needed, keys.bases, keys.blob(record.digest)
    nothing = NEVER_PUT if to_empty else ""
    given = encode(record), begins, record.digest, version, items, KEPT_BASES, nothing
    return ("EVAL", APPEND_BASE, len(named), *named, *given)


def read_base(client: Redis, keys: ItemsKeys) -> ItemsBase | None:
    """Return where readers of a log of items begin; None: it has not begun.

    Args:
        client: a connection.
        keys: the log's.
    """
    fields: Any = client.hmget(keys.base, FIELDS)
    return ItemsBase.of(fields)
