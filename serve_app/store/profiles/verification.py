"""Whether a part of all profiles is what its log says, while the log grows."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import msgspec

from bandits.log.positions import START
from policies.profiles.changes import PartChanges
from policies.profiles.part import EMPTY, CutRule, Part, decode_part, encode_part, join_parts
from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys
from serve_app.store.profiles.part_state import PartState, decode_part_state
from serve_app.store.profiles.spool import ChangeSpool

USERS = 500
"""Users whose parts are compared at a time."""
EXAMPLES = 10
ATTEMPTS, AGAIN_S = 10, 0.5

OnRead = Callable[[str], None]


class LogChanges(Protocol):
    """Reads what a log changes in profiles, once, from its beginning on."""

    def through(self, position: str) -> Iterator[tuple[str, PartChanges]]:
        """Yield changes, with the entry that they go up to, from where it was read last."""
        ...


class PartVerdict(msgspec.Struct, frozen=True):
    """What became of the verification of one part.

    Attributes:
        part: its name.
        state: ``whole``; ``building``: what it lacks is being read anew; ``absent``: nobody has
            written it yet.
        position: it was compared as of this entry.
        users: how many its log tells of.
        changes: what the log says of them: events, showings and erasures.
        differing: users whose part is not what the log says.
        examples: pseudonyms of some of them.
    """

    part: str
    state: str
    position: str = START
    users: int = 0
    changes: int = 0
    differing: int = 0
    examples: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether it is whole, and what its log says."""
        return self.state == "whole" and not self.differing


def verify_part(
    client: Redis,
    keys: UsersKeys,
    part: str,
    rule: CutRule,
    log: LogChanges,
    on_read: OnRead = lambda _: None,
) -> PartVerdict:
    """Read a log from its beginning, and compare the part of every user.

    Args:
        client: a connection.
        keys: of the users.
        part: the part's name.
        rule: what cuts it.
        log: reads the part's log.
        on_read: is told how far it was read.

    Raises:
        BanditloopError: the log cannot be read.
        RedisError: Redis does not answer.
    """
    stored: Any = client.hget(keys.parts, part)
    state = decode_part_state(stored)
    if state is None:
        return PartVerdict(part, "absent")
    if not state.is_whole or state.rule != rule.digest:
        return PartVerdict(part, "building", state.position)

    users: set[str] = set()
    suspects: dict[str, Part] = {}
    with ChangeSpool(rule) as spool:
        for position, changes in log.through(state.position):
            spool.add(changes)
            on_read(position)
        for chunk in _chunks(spool.parts()):
            users.update(user for user, _ in chunk)
            _, found = _read(client, keys, part, [user for user, _ in chunk])
            suspects |= {user: decode_part(said) for user, said in chunk if found[user] != said}
        count = spool.count

    # Also what is stored of users of whom the log says nothing.
    suspects |= dict.fromkeys(_others(client, keys, part, users), EMPTY)
    compared, differing = _compare(client, keys, part, rule, suspects, log)
    if compared is None:
        return PartVerdict(part, "building", state.position)
    examples = sorted(differing)[:EXAMPLES]
    return PartVerdict(part, "whole", compared, len(users), count, len(differing), examples)


def _compare(
    client: Redis,
    keys: UsersKeys,
    part: str,
    rule: CutRule,
    suspects: dict[str, Part],
    log: LogChanges,
) -> tuple[str | None, set[str]]:
    """Compare parts that differed, as of one entry; the log goes on while they are read.

    Returns:
        The entry, None if the part is not whole any more; and who differs still.
    """
    position = None
    for attempt in range(ATTEMPTS):
        # A leader writes the parts of a batch before it says that they are written.
        if attempt:
            time.sleep(AGAIN_S)
        before, differing = position, dict[str, Part]()
        for users in _chunks(list(suspects)) if suspects else [[]]:
            state, found = _read(client, keys, part, users)
            if state is None or not state.is_whole or state.rule != rule.digest:
                return None, set()

            # What the log says through the entry as of which these were read.
            position = state.position
            for _, changes in log.through(position):
                for user, given in changes.parts():
                    if user in suspects:
                        suspects[user] = join_parts([suspects[user], given], rule)
            differing |= {
                user: suspects[user] for user in users if found[user] != _bytes(suspects[user])
            }
        suspects = differing
        if not suspects or position == before:
            break
    return position, set(suspects)


def _bytes(part: Part) -> bytes | None:
    return encode_part(part) if part else None


def _read(
    client: Redis, keys: UsersKeys, part: str, users: Iterable[str]
) -> tuple[PartState | None, dict[str, bytes | None]]:
    """Return the part's state, and the part of some users, as of the same moment."""
    named = list(users)
    pipeline = client.pipeline(transaction=True)
    pipeline.hget(keys.parts, part)
    for user in named:
        pipeline.hget(keys.profile(user), part)
    state, *found = pipeline.execute()
    return decode_part_state(state), dict(zip(named, found, strict=True))


def _others(client: Redis, keys: UsersKeys, part: str, users: set[str]) -> set[str]:
    """Return who has a part here besides these users."""
    prefix = keys.profile("")
    found: set[str] = set()
    names: Iterable[Any] = client.scan_iter(match=f"{prefix}*", count=1000, _type="hash")
    others = (user for name in names if (user := name.decode()[len(prefix) :]) not in users)
    for chunk in _chunks(user for user in others if keys.profile(user) != keys.parts):
        _, stored = _read(client, keys, part, chunk)
        found |= {user for user, data in stored.items() if data is not None}
    return found


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, USERS)):
        yield chunk
