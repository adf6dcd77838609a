"""Appending what users did: each thing once, and nothing of a user who was erased."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from bandits.log.codec import encode
from bandits.log.records import ActivityRecord
from serve_app.store.event_log import SPAN_S
from serve_app.store.keys import REMEMBERED_S, ActivityKeys

# What ids stood for, is remembered as decisions are (event_log.py): in one hash of each span of
# time, whose name begins with a key, so that its slot is the same.
MEMORY = """
local now = tonumber(redis.call('TIME')[1])
local function recall(memory, ids, kept, length)
  local span, known = math.floor(now / length), {}
  if #ids == 0 then return known end
  for number = span + 1, span - math.ceil(kept / length), -1 do
    local there = redis.call('EXISTS', memory .. number) == 1
    for at, said in ipairs(there and redis.call('HMGET', memory .. number, unpack(ids)) or {}) do
      if said and not known[ids[at]] and now - string.match(said, '^%d+') < tonumber(kept) then
        known[ids[at]] = string.match(said, ' (.*)$')
      end
    end
  end
  return known
end
local function remember(memory, fresh, kept, length)
  if #fresh == 0 then return end
  local span, spans = math.floor(now / length), math.ceil(kept / length)
  local is_new = redis.call('EXISTS', memory .. span) == 0
  redis.call('HSET', memory .. span, unpack(fresh))
  if is_new then
    redis.call('EXPIRE', memory .. span, (spans + 2) * length)
    redis.call('UNLINK', memory .. (span - spans - 1))
  end
end
"""

# One atomic step: append all that is new, or nothing and say which event is at fault. KEYS: log,
# memory, what the marks of erased pseudonyms begin with. ARGV: seconds to remember, seconds of a
# span, and of each event the record, its id, or nothing for one that no caller will repeat, what it
# says, and its user.
APPEND_ACTIVITY = f"""{MEMORY}
local count, ids, marks = (#ARGV - 2) / 4, {{}}, {{}}
for i = 0, count - 1 do
  marks[i + 1] = KEYS[3] .. ARGV[4 * i + 6]
  if ARGV[4 * i + 4] ~= '' then ids[#ids + 1] = ARGV[4 * i + 4] end
end
if redis.call('EXISTS', unpack(marks)) > 0 then
  for at, mark in ipairs(marks) do
    if redis.call('EXISTS', mark) == 1 then return {{at - 1, 'erased'}} end
  end
end

local known, fresh, new = recall(KEYS[2], ids, ARGV[1], ARGV[2]), {{}}, {{}}
for i = 0, count - 1 do
  local id, says = ARGV[4 * i + 4], ARGV[4 * i + 5]
  if id == '' then
    new[#new + 1] = ARGV[4 * i + 3]
  elseif not known[id] then
    known[id], new[#new + 1] = says, ARGV[4 * i + 3]
    fresh[#fresh + 1], fresh[#fresh + 2] = id, string.format('%.0f ', now) .. says
  elseif known[id] ~= says then
    return {{i, 'conflict'}}
  end
end

for _, record in ipairs(new) do redis.call('XADD', KEYS[1], '*', 'r', record) end
remember(KEYS[2], fresh, ARGV[1], ARGV[2])
return {{#new, 'ok'}}
"""


class NewActivity(NamedTuple):
    """One thing that a user did, as it is to be appended.

    Attributes:
        record: the entry to be; its user is a pseudonym.
        says: a keyed digest of what the caller sent; None: nobody will send it again.
    """

    record: ActivityRecord
    says: bytes | None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the scripts take of it."""
        name = "" if self.says is None else self.record.id
        return encode(self.record), name, self.says or b"", self.record.user


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
    script = "EVAL", APPEND_ACTIVITY, 3, keys.log, keys.ids_prefix, keys.erased("")
    arguments = [each for event in events for each in event.arguments]
    return *script, REMEMBERED_S, SPAN_S, *arguments
