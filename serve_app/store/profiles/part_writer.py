"""Writing one log's part of all profiles: the leader of the log does, and nobody else.

What is written says through which entry it is written, in the same step. A leader that was paused
and has been replaced is refused by its fencing number; one that finds the part otherwise than it
has left it, because all profiles were deleted or Redis has lost what it last wrote, begins anew.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from bandits.errors import CodecError
from bandits.log.positions import is_after
from policies.profiles.changes import PartChanges
from policies.profiles.part import EMPTY, CutRule, Part, decode_part, encode_part, join_parts
from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys
from serve_app.store.profiles.part_state import PartState, decode_part_state, state_for

USERS = 200
"""Users that are read and written at a time: meanwhile Redis answers nobody else."""

# What both scripts below begin and end with. KEYS: fences, parts, profiles. ARGV: the part's name,
# the fencing number, the state as it was read (empty: none), as it is to be, and the profiles'
# bytes. They return what is not so: "fenced", "moved".
_IF_LED = """
local fence = redis.call('HGET', KEYS[1], ARGV[1])
if fence and tonumber(fence) > tonumber(ARGV[2]) then return 'fenced' end
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[3] then return 'moved' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
"""

# Writes a part of some users' profiles. Returns an empty list.
_WRITE = f"""{_IF_LED}
for i = 3, #KEYS do redis.call('HSET', KEYS[i], ARGV[1], ARGV[i + 2]) end
return {{}}
"""

# Writes it for those of the users who have none. Returns the places of those who have another one,
# from 0 on.
_WRITE_FIRST = f"""{_IF_LED}
local others = {{}}
for i = 3, #KEYS do
  if redis.call('HSETNX', KEYS[i], ARGV[1], ARGV[i + 2]) == 0
    and redis.call('HGET', KEYS[i], ARGV[1]) ~= ARGV[i + 2] then others[#others + 1] = i - 3 end
end
return others
"""

# Reads a part of some users' profiles: one command of many keys is composed and answered in a tenth
# of the time that one for each takes. KEYS: profiles. ARGV: the part's name.
_READ = """
local out = {}
for i = 1, #KEYS do out[i] = redis.call('HGET', KEYS[i], ARGV[1]) end
return out
"""

log = logging.getLogger("banditloop.profiles")
Each = TypeVar("Each")


class PartFencedError(Exception):
    """Another process leads the log; what was about to be written was not."""


class PartMovedError(Exception):
    """The part is not as this process has left it: it is to ``lead`` again."""


class PartWriter:
    """Writes the part of one log."""

    def __init__(self, client: Redis, keys: UsersKeys, part: str) -> None:
        """Write it.

        Args:
            client: a connection that threads may share.
            keys: of the users.
            part: the part's name.
        """
        self._client, self._keys, self.part = client, keys, part
        self._fence = 0
        self._rule = CutRule(1)
        self._state: PartState | None = None
        self._stored = b""
        self._damaged = False
        # A user's part is read, joined and written again: by one thread at a time.
        self._lock = threading.Lock()

    @property
    def state(self) -> PartState | None:
        """How far the part is written, as this process has left it; None: it does not lead."""
        return self._state

    @property
    def rule(self) -> CutRule:
        """What cuts the part, since this process leads."""
        return self._rule

    def read_state(self) -> PartState | None:
        """Return how far whoever leads has written the part; None: not at all.

        Raises:
            RedisError: Redis does not answer.
        """
        return decode_part_state(self._read_stored())

    def lead(self, fence: int, rule: CutRule, *, since: str, at: str) -> PartState:
        """Begin to write; return through which entry the part is written.

        Args:
            fence: the number in the token of the lease.
            rule: what is kept.
            since: this process can tell what the log says past here.
            at: where it begins, if the part is to be made anew.

        Raises:
            PartFencedError: another leads.
            RedisError: not known whether this process leads.
        """
        with self._lock:
            while True:
                stored = self._read_stored() or b""
                state = state_for(decode_part_state(stored or None), rule, since=since, at=at)
                self._fence, self._stored, self._state = fence, stored, None
                try:
                    self._commit(state, ())
                except PartMovedError:
                    continue
                self._rule = rule
                return state

    def check(self) -> None:
        """Look whether the part is as this process has left it, where nothing is to be written.

        Raises:
            PartMovedError: it is not.
            RedisError: Redis does not answer.
        """
        with self._lock:
            self._led()
            if self._read_stored() != self._stored:
                raise PartMovedError(f"part {self.part} is not as it was left")

    def write(self, changes: PartChanges, through: str) -> None:
        """Write what entries say; a failure may leave a part of it, and then it comes again.

        Args:
            changes: what they say.
            through: the last of them.

        Raises:
            PartFencedError: another leads.
            PartMovedError: the part is not as it was left.
            RedisError: not known how much was written.
        """
        with self._lock:
            *first, last = [*_chunks(changes.parts())] or [[]]
            for parts in first:
                self._commit(self._led(), self._joined(parts))

            # With the last of them it is said that they are written.
            state = self._led()
            if is_after(through, state.position):
                state = msgspec.structs.replace(state, position=through)
            self._commit(state, self._joined(last))
            if self._damaged:
                self._damaged = False
                self._commit(PartState.begun(self._led().position, self._rule), ())

    def write_missing(self, parts: Iterable[tuple[str, bytes]], built: str, epoch: str) -> None:
        """Write what was missing.

        Args:
            parts: their bytes by pseudonym, cut by the rule.
            built: how far the log was read for them.
            epoch: of the making that this is a step of.

        Raises:
            PartMovedError: this making is over.
            PartFencedError, RedisError: see ``write``.
        """
        for chunk in _chunks(parts):
            with self._lock:
                # Most have no part yet, or the same one: only of the others is it asked for.
                state = msgspec.structs.replace(self._made(epoch), built=built)
                others = [chunk[place] for place in self._commit(state, chunk, _WRITE_FIRST)]
                self._commit(state, self._joined([(u, decode_part(part)) for u, part in others]))

    def note_built(self, built: str, epoch: str, *, whole: bool = False) -> None:
        """Say how far the log was read anew, or that nothing is missing any more.

        Args:
            built: how far.
            epoch: of the making.
            whole: whether nothing is missing.

        Raises:
            PartMovedError, PartFencedError, RedisError: see ``write_missing``.
        """
        with self._lock:
            state = msgspec.structs.replace(self._made(epoch), built=built)
            self._commit(msgspec.structs.replace(state, until="", built="") if whole else state, ())

    def _led(self) -> PartState:
        if self._state is None:
            raise PartMovedError(f"part {self.part} is not led")
        return self._state

    def _made(self, epoch: str) -> PartState:
        state = self._led()
        if state.epoch != epoch or state.is_whole:
            raise PartMovedError(f"part {self.part} is made by another")
        return state

    def _read_stored(self) -> bytes | None:
        stored: Any = self._client.hget(self._keys.parts, self.part)
        return None if stored is None else bytes(stored)

    def _joined(self, parts: Sequence[tuple[str, Part]]) -> list[tuple[str, bytes]]:
        """Join parts with those that are stored; return the bytes of those that changed."""
        keys = [self._keys.profile(user) for user, _ in parts]
        found: Any = self._client.eval(_READ, len(keys), *keys, self.part) if keys else []

        out = []
        for (user, part), stored in zip(parts, found, strict=True):
            data = encode_part(join_parts([self._known(user, stored), part], self._rule))
            if data != stored:
                out.append((user, data))
        return out

    def _known(self, user: str, stored: bytes | None) -> Part:
        """Return a part as it is stored; one that is damaged, and all others, are made anew."""
        try:
            return EMPTY if stored is None else decode_part(stored)
        except CodecError as error:
            log.warning("part %s of user %s is made anew: %s", self.part, user, error.message)
            self._damaged = True
            return EMPTY

    def _commit(
        self, state: PartState, profiles: Sequence[tuple[str, bytes]], script: str = _WRITE
    ) -> list[int]:
        """Write profiles and the state in one step; return which profiles a script leaves."""
        data = msgspec.msgpack.encode(state)
        if not profiles and data == self._stored and self._state is not None:
            return []

        keys = [self._keys.profile(user) for user, _ in profiles]
        keys = [self._keys.fences, self._keys.parts, *keys]
        arguments: list[Any] = [
            self.part,
            self._fence,
            self._stored,
            data,
            *(each for _, each in profiles),
        ]
        self._state = None  # until it is known
        answer: Any = self._client.eval(script, len(keys), *keys, *arguments)
        if answer == b"fenced":
            raise PartFencedError(f"another leads part {self.part}")
        if answer == b"moved":
            raise PartMovedError(f"part {self.part} is not as it was left")
        self._state, self._stored = state, data
        return list(answer)


def _chunks(parts: Iterable[tuple[str, Each]]) -> Iterable[list[tuple[str, Each]]]:
    iterator = iter(parts)
    while chunk := list(islice(iterator, USERS)):
        yield chunk
