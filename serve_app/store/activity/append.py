"""Appending what users did: each thing once, and nothing of a user who was erased."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from bandits.log.codec import encode
from bandits.log.records import ActivityRecord
from serve_app.store.event_log import REMEMBERED_S, SPAN_S
from serve_app.store.keys import ActivityKeys

# One atomic step: append all that is new, or nothing and say which event is at fault. What an id
# stood for is remembered as decisions are (event_log.py): in one hash of each span of time. KEYS:
# log, memory, marks of erased pseudonyms; names that begin with them are in the same slot. ARGV:
# seconds to remember, seconds of a span, and of each event the record, its id, or nothing for one
# that no caller will repeat, what it says, and its user.
APPEND_ACTIVITY = """
local now, kept, length = tonumber(redis.call('TIME')[1]), tonumber(ARGV[1]), tonumber(ARGV[2])
local span, spans = math.floor(now / length), math.ceil(kept / length)
local count, ids, places = (#ARGV - 2) / 4, {}, {}
for i = 0, count - 1 do
  if redis.call('EXISTS', KEYS[3] .. ARGV[4 * i + 6]) == 1 then return {i, 'erased'} end
  local id = ARGV[4 * i + 4]
  if id ~= '' and not places[id] then
    ids[#ids + 1] = id
    places[id] = #ids
  end
end

local known = {}
for number = span + 1, span - spans, -1 do
  if #ids == 0 then break end
  local found = redis.call('HMGET', KEYS[2] .. number, unpack(ids))
  for at, said in ipairs(found) do
    if said and not known[ids[at]] and now - string.match(said, '^%d+') < kept then
      known[ids[at]] = string.match(said, ' (.*)$')
    end
  end
end

local fresh, new = {}, {}
for i = 0, count - 1 do
  local id, says = ARGV[4 * i + 4], ARGV[4 * i + 5]
  if id == '' then
    new[#new + 1] = i
  elseif not known[id] then
    known[id], new[#new + 1] = says, i
    fresh[#fresh + 1], fresh[#fresh + 2] = id, string.format('%.0f ', now) .. says
  elseif known[id] ~= says then
    return {i, 'conflict'}
  end
end

for _, i in ipairs(new) do redis.call('XADD', KEYS[1], '*', 'r', ARGV[4 * i + 3]) end
if #fresh > 0 then
  local memory = KEYS[2] .. span
  local first = redis.call('EXISTS', memory) == 0
  redis.call('HSET', memory, unpack(fresh))
  if first then
    redis.call('EXPIRE', memory, (spans + 2) * length)
    redis.call('UNLINK', KEYS[2] .. (span - spans - 1))
  end
end
return {#new, 'ok'}
"""


class NewActivity(NamedTuple):
    """One thing that a user did, as it is to be appended.

    Attributes:
        record: the entry to be; its user is a pseudonym.
        says: a keyed digest of what the caller sent; None: nobody will send it again.
    """

    record: ActivityRecord
    says: bytes | None


class Appended(NamedTuple):
    """What became of an attempt to append.

    Attributes:
        outcome: ``ok``; or nothing was appended: ``erased`` (its user may not be logged under the
            pseudonym any more), or ``conflict`` (its id was another's).
        number: how many were not in the log already; or which one is at fault, from 0.
    """

    outcome: Literal["ok", "erased", "conflict"]
    number: int

    @classmethod
    def of(cls, answer: Any) -> "Appended":
        """Read the answer to ``append_activity``."""
        number, outcome = answer
        return cls(outcome.decode(), int(number))


def append_activity(keys: ActivityKeys, events: Sequence[NewActivity]) -> tuple[Any, ...]:
    """Return the command that appends what is not in the log yet, or nothing.

    Args:
        keys: the log's.
        events: at most 1,000.
    """
    arguments: list[Any] = []
    for record, says in events:
        name = "" if says is None else record.id
        arguments += [encode(record), name, says or b"", record.user]
    script = "EVAL", APPEND_ACTIVITY, 3, keys.log, keys.ids_prefix, keys.erased("")
    return *script, REMEMBERED_S, SPAN_S, *arguments
