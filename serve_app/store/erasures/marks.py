"""What a log is told of pseudonyms that nothing may be logged under any more.

A mark stands in the log's own slot, so that whatever appends an entry of a user looks at it in the
same step; an entry says it to whoever reads the log.
"""

from collections.abc import Sequence
from typing import Any

from bandits.log.codec import encode
from bandits.log.positions import log_order
from bandits.log.records import ErasureRecord
from serve_app.store.keys import ActivityKeys, Keys

MARKED_S = 3600
"""How long a mark stands: longer than any replica believes what it has read of a person."""

# One step for all pseudonyms of a person: no entry of theirs comes between mark and entry. A mark
# holds the entry's position, so that a job which is taken up again appends none twice. KEYS: log,
# what the names of marks begin with (in the same slot). ARGV: seconds, and of each pseudonym itself
# and its record.
MARK = """
local entries = {}
for i = 2, #ARGV, 2 do
  local mark = KEYS[2] .. ARGV[i]
  local entry = redis.call('GET', mark)
  if not entry then entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[i + 1]) end
  redis.call('SET', mark, entry, 'EX', ARGV[1])
  entries[i / 2] = entry
end
return entries
"""


def mark_command(
    keys: Keys | ActivityKeys, pseudonyms: Sequence[str], erasure: str
) -> tuple[Any, ...]:
    """Return the command after which nothing is appended under these pseudonyms.

    Args:
        keys: the log's.
        pseudonyms: those of one person.
        erasure: what its entries name.
    """
    arguments: list[Any] = []
    for each in pseudonyms:
        arguments += [each, encode(ErasureRecord(each, erasure))]
    return ("EVAL", MARK, 2, keys.log, keys.erased(""), MARKED_S, *arguments)


def last_of(answer: Sequence[bytes]) -> str:
    """Return the position of the last entry that ``mark_command`` has appended, or found."""
    return max((entry.decode() for entry in answer), key=log_order)
