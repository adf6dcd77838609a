"""The steps by which a decision about a known user is appended: unless that user was erased.

What it has chosen is noted in the same step for the visit that it is of, so that the visit's next
page does not choose it again, however soon it is asked for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bandits.log.records import DecisionRecord
from serve_app.store.keys import Keys

VISIT_S = 3600
"""How long a visit is remembered after its last page."""
MOST_OF_VISIT = 1000
"""How many items of a visit are remembered: the last ones."""

# Lua: whether a pseudonym may be logged under, and what a visit was shown. ``user`` and ``visit``
# may be empty.
_KNOWN = """
local function is_erased(prefix, user)
  return user ~= '' and redis.call('EXISTS', prefix .. user) == 1
end
local function note(prefix, visit, first, last, seconds, most)
  if visit == '' then return end
  redis.call('RPUSH', prefix .. visit, unpack(ARGV, first, last))
  redis.call('LTRIM', prefix .. visit, -most, -1)
  redis.call('EXPIRE', prefix .. visit, seconds)
end
"""

# KEYS: log, marks of erased pseudonyms, visits; names that begin with them are in the same slot.
# ARGV: seconds and items of a visit, and of each record its bytes, its user, its visit, how many
# items it has chosen, and these. An entry for each, or false where its user is erased.
APPEND_KNOWN = (
    _KNOWN
    + """
local ids, at = {}, 3
while at <= #ARGV do
  local user, visit, count = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local id = not is_erased(KEYS[2], user) and redis.call('XADD', KEYS[1], '*', 'r', ARGV[at])
  if id then note(KEYS[3], visit, at + 4, at + 3 + count, ARGV[1], ARGV[2]) end
  ids[#ids + 1] = id
  at = at + 4 + count
end
return ids
"""
)

# One atomic step: append the decision and remember its entry and what was asked, or return what is
# remembered; where the record is empty, nothing else. KEYS: log, memory; and where users are known,
# marks of erased pseudonyms, visits. ARGV: record, event_id, what was asked, seconds to remember,
# seconds of a span; and where users are known, seconds and items of a visit, user, visit, and what
# was chosen. What is remembered of one span of time is one hash, so that it goes at once and leaves
# no holes in Redis's memory. Its name begins with KEYS[2], so its slot is the same. The span after
# this one: a failover may put the clock back.
APPEND_ONCE = (
    _KNOWN
    + """
local now, kept = tonumber(redis.call('TIME')[1]), tonumber(ARGV[4])
local span, spans = math.floor(now / ARGV[5]), math.ceil(kept / ARGV[5])
for number = span + 1, span - spans, -1 do
  local seen = redis.call('HGET', KEYS[2] .. number, ARGV[2])
  local cut = seen and string.find(seen, ' ', 1, true)
  local entry = seen and string.sub(seen, 1, cut - 1)
  if seen and now - string.match(entry, '^%d+') / 1000 < kept then
    local found = redis.call('XRANGE', KEYS[1], entry, entry)
    return {string.sub(seen, cut + 1), found[1] and found[1][2][2] or false}
  end
end
if ARGV[1] == '' then return {false, false} end
if KEYS[3] and is_erased(KEYS[3], ARGV[8]) then return {false, 'erased'} end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
if KEYS[4] then note(KEYS[4], ARGV[9], 10, #ARGV, ARGV[6], ARGV[7]) end
local memory = KEYS[2] .. span
redis.call('HSET', memory, ARGV[2], entry .. ' ' .. ARGV[3])
if redis.call('HLEN', memory) == 1 then
  redis.call('EXPIRE', memory, (spans + 2) * ARGV[5])
  redis.call('UNLINK', KEYS[2] .. (span - spans - 1))
end
return {false, false}
"""
)


class KnownAppend(NamedTuple):
    """What is looked at, and noted, when a decision about a known user is appended.

    Attributes:
        user: the pseudonym that it is logged under; empty: none.
        visit: the keyed hash of the visit that it is of; empty: of none.
        shown: what it has chosen, and placed.
    """

    user: str
    visit: str
    shown: Sequence[str]

    @classmethod
    def of(cls, record: DecisionRecord, visit: str) -> "KnownAppend":
        """Return what a decision is appended with.

        Args:
            record: the decision.
            visit: the keyed hash of the visit that it is of; empty: of none.
        """
        return cls(record.user or "", visit, record.shown() if visit else ())


def known_keys(keys: Keys) -> tuple[str, str]:
    """Return what the names begin with of marks of erased pseudonyms, and of visits."""
    return keys.erased(""), keys.visit("")


def append_known(keys: Keys) -> tuple[Any, ...]:
    """Return what the command begins with that appends decisions about known users.

    Args:
        keys: the partition's.
    """
    return "EVAL", APPEND_KNOWN, 3, keys.log, *known_keys(keys), VISIT_S, MOST_OF_VISIT


def known_arguments(data: bytes, known: KnownAppend) -> list[Any]:
    """Return what the command says of one decision.

    Args:
        data: the record's bytes.
        known: what goes with it.
    """
    return [data, known.user, known.visit, len(known.shown), *known.shown]
