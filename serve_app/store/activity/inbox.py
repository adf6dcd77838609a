"""The inbox of a space, for producers that cannot speak HTTP: what is valid moves into the log."""

import logging
from collections.abc import Collection
from typing import Any

import msgspec

from banditloop_client.space_schemas import ActivityEvent
from bandits.errors import BanditloopError, CodecError, UnknownItemError
from bandits.log.codec import MALFORMED
from bandits.log.positions import position_ms
from policies.profiles.activity import check_event, record_of, said_by
from policies.pseudonyms import person_key
from serve_app.store.activity.append import MEMORY, NewActivity
from serve_app.store.activity.space_items import SpaceItems
from serve_app.store.clients import Redis
from serve_app.store.event_log import SPAN_S
from serve_app.store.inbox import JSON_FIELD, MAX_MOVED
from serve_app.store.keys import REMEMBERED_S, ActivityKeys, UsersKeys
from serve_app.store.lease import Lease
from serve_app.store.users.persons import resolve_command, resolved

# Each once, however often it is asked: what is no longer in the inbox has been moved. What is of an
# erased pseudonym stays, for its user is looked up again. KEYS: lease, inbox, log, memory, what the
# marks of erased pseudonyms begin with. ARGV: token, seconds to remember, seconds of a span, and of
# each entry its id, the record, empty for what goes nowhere, and what NewActivity says besides.
# All are counted once, by outcome, in KEYS[6]. Returns those whose id was another's, from 0.
MOVE_ACTIVITY = f"""{MEMORY}
local ids, fresh, refused, moved, dropped = {{}}, {{}}, {{}}, 0, 0
for at = 4, #ARGV, 5 do if ARGV[at + 2] ~= '' then ids[#ids + 1] = ARGV[at + 2] end end
local known = recall(KEYS[4], ids, ARGV[2], ARGV[3])
for at = 4, #ARGV, 5 do
  local record, id, says, user = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local erased = user ~= '' and redis.call('EXISTS', KEYS[5] .. user) == 1
  if not erased and redis.call('XDEL', KEYS[2], ARGV[at]) == 1 then
    if record == '' then
      dropped = dropped + 1
    elseif id ~= '' and known[id] and known[id] ~= says then
      refused[#refused + 1] = (at - 4) / 5
    else
      moved = moved + 1
      if id == '' or not known[id] then redis.call('XADD', KEYS[3], '*', 'r', record) end
      if id ~= '' and not known[id] then
        known[id] = says
        fresh[#fresh + 1], fresh[#fresh + 2] = id, string.format('%.0f ', now) .. says
      end
    end
  end
end
if moved > 0 then redis.call('HINCRBY', KEYS[6], 'moved', moved) end
if dropped + #refused > 0 then redis.call('HINCRBY', KEYS[6], 'refused', dropped + #refused) end
remember(KEYS[4], fresh, ARGV[2], ARGV[3])
return refused
"""

log = logging.getLogger("banditloop.inbox")
_json = msgspec.json.Decoder(ActivityEvent)


class ActivityInbox:
    """Moves what users did from the inbox to the log."""

    def __init__(
        self, client: Redis, keys: ActivityKeys, users: UsersKeys, items: SpaceItems, *, salt: bytes
    ) -> None:
        """Move what comes.

        Args:
            client: a connection.
            keys: the log's.
            users: those of the space.
            items: those of the space.
            salt: user ids are hashed with it.
        """
        self._client, self._keys, self._users, self._items = client, keys, users, items
        self._salt = salt

    def move(self, lease: Lease, types: Collection[str]) -> int:
        """Move what is there, at most MAX_MOVED events; return how many entries were taken.

        Args:
            lease: that of the log.
            types: what users do.

        Raises:
            LeaseLostError: another process leads; nothing was moved.
            RedisError: not known how much was moved: call again.
        """
        raw: Any = self._client.xrange(self._keys.inbox, count=MAX_MOVED)
        if not raw or not self._items.begun:
            return 0

        good: list[tuple[bytes, ActivityEvent]] = []
        moves: list[Any] = []
        for entry_id, fields in raw:
            try:
                good.append((entry_id, self._event(entry_id.decode(), fields, types)))
            except BanditloopError as error:
                self._drop(entry_id, error)
                moves += [entry_id, b"", b"", b"", b""]

        pseudonyms = self._pseudonyms([event.user_id for _, event in good])
        for entry_id, event in good:
            says = None if event.id is None else said_by(event, self._salt)
            record = record_of(event, pseudonyms[event.user_id], event.id)
            moves += [entry_id, *NewActivity(record, says).arguments]

        keys = self._keys
        names = keys.inbox, keys.log, keys.ids_prefix, keys.erased(""), keys.inbox_counts
        conflicts = lease.evaluate(MOVE_ACTIVITY, names, [REMEMBERED_S, SPAN_S, *moves])
        for at in conflicts:
            self._drop(moves[5 * int(at)], CodecError("the id is that of something else", "id"))
        return len(raw)

    def _event(
        self, entry_id: str, fields: dict[bytes, bytes], types: Collection[str]
    ) -> ActivityEvent:
        """Return what an entry says, in its field ``json``, as the HTTP API takes it."""
        if JSON_FIELD not in fields:
            raise CodecError("an entry of this inbox is one event in the field json", "json")
        try:
            event = _json.decode(fields[JSON_FIELD])
        except MALFORMED as error:
            message, _, where = str(error).partition(" - at `")
            target = where.rstrip("`").removeprefix("$").removeprefix(".")
            raise CodecError(message, target or "json") from error

        check_event(event, types, position_ms(entry_id))
        if event.item_id not in self._items:
            raise UnknownItemError(f"there is no item {event.item_id!r}", "item_id")
        return event

    def _pseudonyms(self, user_ids: Collection[str]) -> dict[str, str]:
        """Return the pseudonyms of users; those that are not known are made."""
        names = list(dict.fromkeys(user_ids))
        if not names:
            return {}
        client: Any = self._client
        keys = [person_key(self._salt, name) for name in names]
        people = resolved(client.execute_command(*resolve_command(self._users, keys)))
        return {name: who.pseudonym for name, who in zip(names, people, strict=True)}

    def _drop(self, entry_id: bytes, error: BanditloopError) -> None:
        log.warning(
            "inbox entry %s of %s is dropped: %s: %s",
            entry_id.decode(),
            self._keys.policy,
            error.target,
            error.message,
        )
