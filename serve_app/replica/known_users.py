"""What a policy knows of who asks: read for each decision, which is made without where need be."""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bandits.errors import CodecError, LogUnavailableError
from policies.profiles.known_user import KnownUser
from policies.profiles.options import ProfileOptions, type_of
from policies.profiles.part import CutRule
from policies.profiles.user_profile import UNKNOWN_USER, UserProfile, read_profile
from policies.pseudonyms import check_user_id
from policies.requests import RankRequest
from policies.spec import PolicySpec
from serve_app.replica.users import ReplicaUsers
from serve_app.store.keys import partitions
from serve_app.store.profiles.part_state import are_whole
from serve_app.store.replicas.messages import Command
from serve_app.store.replicas.shared_wire import SharedWire
from serve_app.store.spaces import decode_space
from serve_app.store.users.persons import Person

MEMBERS_S = 2.0
"""How long a replica believes what it has read of who shares the space."""
ATTEMPTS = 3
"""How often a person is looked up who changes meanwhile."""
WARN_EVERY_S = 30.0

log = logging.getLogger("banditloop.profiles")


class KnownUsers:
    """Reads what is known of who asks one policy, in one message for all who ask at a time."""

    def __init__(
        self,
        spec: PolicySpec,
        profile: ProfileOptions,
        users: ReplicaUsers,
        reader: SharedWire,
        *,
        salt: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read for a policy.

        Args:
            spec: the policy.
            profile: what its spec says of profiles.
            users: those of its space.
            reader: reads.
            salt: visits are hashed with it.
            clock: seconds.
        """
        repeat = {} if spec.repeat is msgspec.UNSET else spec.repeat
        self._rule = CutRule(profile.items, tuple(sorted(type_of(name) for name in repeat)))
        self._repeats = bool(repeat)
        self._space = spec.shares
        self._logs = partitions(spec.name, spec.partitions)
        self._users, self._reader = users, reader
        self._salt, self._clock = salt, clock

        self._parts: Sequence[str] = ()
        # What the states of the parts were last, and whether nothing was missing then.
        self._states: tuple[Any, bool] = None, False
        self._members_until = self._warned_at = -WARN_EVERY_S

    def visit_of(self, request: RankRequest) -> str:
        """Return the keyed hash of a request's visit; empty: it is of none that matters."""
        if not self._repeats or not request.visit_id:
            return ""
        visit = request.visit_id.encode(errors="surrogatepass")
        return hashlib.blake2b(visit, key=self._salt, person=b"visit", digest_size=16).hexdigest()

    def rounds(self, requests: Sequence[RankRequest]) -> list[list[int]]:
        """Return the places of requests that are answered at once, round by round.

        The pages of one visit are of different rounds: each holds back what those before it chose.
        """
        if not self._repeats:
            return [list(range(len(requests)))]
        pages, out = Counter[str](), list[list[int]]()
        for at, request in enumerate(requests):
            number = pages[request.visit_id] if request.visit_id else 0
            if request.visit_id:
                pages[request.visit_id] += 1
            if number == len(out):
                out.append([])
            out[number].append(at)
        return out

    def forget(self, request: RankRequest) -> None:
        """Look up anew who asks: nothing may be logged any more under what was remembered."""
        if request.user_id:
            self._users.forget(request.user_id)

    async def know(self, request: RankRequest) -> KnownUser | None:
        """Return what is known of who asks; None: the request names nobody.

        Raises:
            InvalidUserIdError: this is no user's id.
        """
        visit = self.visit_of(request)
        if not request.user_id:
            return await self._read_visit(visit) if visit else None

        check_user_id(request.user_id)
        for _ in range(ATTEMPTS):
            try:
                person = self._users.remembered(request.user_id) or await self._users.resolve(
                    request.user_id
                )
            except LogUnavailableError:
                return KnownUser(whole=False, filed=False)
            known = await self._read(person, visit)
            if known is not None:
                return known
            # They were merged, or erased, since this replica looked them up.
            self._users.forget(request.user_id)
        return KnownUser(
            person.pseudonym, whole=False, filed=person.filed, filed_as=person.filed_as
        )

    async def look_up(self, request: RankRequest) -> KnownUser | None:
        """Return what ``know`` does, and make nobody known who is not.

        Raises:
            InvalidUserIdError: this is no user's id.
        """
        if not request.user_id or not await self._users.is_new(check_user_id(request.user_id)):
            return await self.know(request)
        visit = self.visit_of(request)
        shown = await self._read_visit(visit) if visit else KnownUser()
        return msgspec.structs.replace(shown, profile=UNKNOWN_USER)

    async def _read_visit(self, visit: str) -> KnownUser:
        lists = await self._reader.read(self._visits(visit))
        return KnownUser(visit=_shown(lists or ()), whole=lists is not None)

    async def _read(self, person: Person, visit: str) -> KnownUser | None:
        """Return what is known of a person; None if they are not who they were."""
        keys, now = self._users.keys, self._clock()
        names = person.pseudonyms
        asks = now >= self._members_until
        commands: list[Command] = [("GET", keys.person(person.key)), ("HGETALL", keys.parts)]
        commands += [("HGETALL", keys.profile(name)) for name in names]
        if visit:
            commands += self._visits(visit)
        if asks:
            commands.append(("HGETALL", keys.policies))

        answers = await self._reader.read(commands)
        if answers is None:
            return KnownUser(
                person.pseudonym, whole=False, filed=person.filed, filed_as=person.filed_as
            )
        if answers[0] != person.raw:
            return None
        if asks:
            self._parts = decode_space(self._space, _pairs(answers.pop())).parts
            self._members_until, self._states = now + MEMBERS_S, (None, False)

        if answers[1] != self._states[0]:
            whole = bool(self._parts) and are_whole(_pairs(answers[1]), self._parts)
            self._states = answers[1], whole
        whole = self._states[1]
        profile = self._profile(answers[2 : 2 + len(names)])
        shown = _shown(answers[2 + len(names) :])
        is_whole = whole and profile is not None
        return KnownUser(
            person.pseudonym,
            profile,
            shown,
            whole=is_whole,
            filed=person.filed,
            filed_as=person.filed_as,
        )

    def _profile(self, hashes: Sequence[Any]) -> UserProfile | None:
        """Return the profile in some hashes; None if one is damaged, for its writer to mend."""
        try:
            return read_profile(map(_pairs, hashes), self._rule)
        except CodecError as error:
            if self._clock() - self._warned_at >= WARN_EVERY_S:
                self._warned_at = self._clock()
                log.warning("space %s: a profile is damaged: %s", self._space, error.message)
            return None

    def _visits(self, visit: str) -> list[Command]:
        return [("LRANGE", keys.visit(visit), 0, -1) for keys in self._logs]


def _shown(lists: Sequence[Sequence[bytes]]) -> frozenset[str]:
    return frozenset(item.decode() for shown in lists for item in shown)


def _pairs(answer: Any) -> dict[bytes, bytes]:
    """Return a hash as a dict, whichever form the answer has."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
