"""The users of a space in a replica: who they are, as read last."""

import time
from collections.abc import Callable, Collection
from itertools import islice

from policies.pseudonyms import person_key, pseudonym
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import UsersKeys
from serve_app.store.users.persons import Person, resolve_command, resolved

KEPT = 50_000
"""Persons that a replica remembers: some 40 MB."""
FRESH_S = 600.0
"""How long it believes what it has read: less than the marks of erased pseudonyms live."""
PER_COMMAND = 500
"""Users that one script looks up: while it runs, Redis answers nobody else."""


class ReplicaUsers:
    """Finds persons by user id, and makes those that are not known."""

    def __init__(
        self,
        writer: LogWriter,
        keys: UsersKeys,
        *,
        salt: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nobody.

        Args:
            writer: a new person is as durable as what is logged of them.
            keys: the space's.
            salt: user ids are hashed with it.
            clock: seconds.
        """
        self.keys = keys
        self._writer = writer
        self._salt = salt
        self._clock = clock
        self._kept: dict[str, tuple[float, Person]] = {}

    def key_of(self, user_id: str) -> str:
        """Return what finds the record of a user."""
        return person_key(self._salt, user_id)

    def filed_as(self, user_id: str) -> str:
        """Return what files of profiles know a user by."""
        return pseudonym(self._salt, user_id)

    def remembered(self, user_id: str) -> Person | None:
        """Return a person as read some minutes ago at most; another replica may know better."""
        found = self._kept.get(user_id)
        if found is None or self._clock() - found[0] > FRESH_S:
            return None
        return found[1]

    async def is_new(self, user_id: str) -> bool:
        """Return whether nobody is known by this id, as far as can be read now."""
        if self.remembered(user_id) is not None:
            return False
        found = await self._writer.wire.read([("GET", self.keys.person(self.key_of(user_id)))])
        return found is not None and found[0] is None

    def forget(self, user_id: str) -> None:
        """Look this user up again: something said that what is remembered is of another time."""
        self._kept.pop(user_id, None)

    async def resolve(self, user_id: str) -> Person:
        """Return the person that a user id names; a new one if none is known.

        Raises:
            LogUnavailableError: not known whether there is one.
        """
        return self.remembered(user_id) or (await self.resolve_all([user_id]))[user_id]

    async def resolve_all(self, user_ids: Collection[str]) -> dict[str, Person]:
        """Return the persons that several ids name, by id.

        Raises:
            LogUnavailableError: not known of all whether there is one.
        """
        found: dict[str, Person] = {}
        unknown: list[str] = []
        for user_id in dict.fromkeys(user_ids):
            person = self.remembered(user_id)
            if person is None:
                unknown.append(user_id)
            else:
                found[user_id] = person

        for start in range(0, len(unknown), PER_COMMAND):
            part = unknown[start : start + PER_COMMAND]
            keys = [self.key_of(user_id) for user_id in part]
            command = resolve_command(self.keys, keys)
            answer = await self._writer.append_by(self.keys.person(keys[0]), command)
            for user_id, person in zip(part, resolved(answer), strict=True):
                found[user_id] = person
                self.remember(user_id, person)
        return found

    def remember(self, user_id: str, person: Person) -> None:
        """Keep what was just read of a user.

        Args:
            user_id: as the caller sent it.
            person: whom it names.
        """
        self._kept.pop(user_id, None)
        if len(self._kept) >= KEPT:  # the oldest go, a tenth at a time
            for oldest in list(islice(self._kept, KEPT // 10)):
                del self._kept[oldest]
        self._kept[user_id] = self._clock(), person
