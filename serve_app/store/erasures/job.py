"""The erasure of one person: a job of a few steps, each of which may be repeated by anybody.

1. In one step the person's record is destroyed, with all that leads to it, and the job is stored.
2. Every log of the space is told (marks.py). From then on nothing can be written under the
   pseudonyms: whoever still remembers the person is refused, and finds or makes another.
3. The job is complete when every part of the profile has passed the log's entry.

While it runs, the job knows whose pseudonyms it erases. Once it is complete it does not: what is
left of it says when, and the entries of the logs carry a name that only the running job knew.
"""

import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from bandits.errors import UnknownErasureError, UnknownUserError
from bandits.log.codec import MALFORMED
from bandits.log.positions import has_reached, is_after
from serve_app.store.clients import Redis
from serve_app.store.erasures.marks import last_of, mark_command
from serve_app.store.keys import ActivityKeys, Keys, UsersKeys
from serve_app.store.profiles.part_state import PartState, decode_part_state
from serve_app.store.spaces import ACTIVITY, Space, decode_space, part_name
from serve_app.store.users.persons import alias_of, alias_to, decode_person

KEPT_S = 30 * 24 * 3600
"""How long it is known of a job that it is complete."""
ASKED_AGAIN_S = 3600
"""How long after its end whoever asks for an erasure again, or has lost the answer, is told so."""

T = TypeVar("T")
Command = tuple[Any, ...]
Steps = Generator[Command, Any, T]
"""Commands to run one after the other, each of which is answered before the next is made."""

# Destroys a person's record if it is what was read, with the aliases that lead to it, stores the
# job, and notes whose entries in files are not used any more, and what copies of the persons are to
# be told: that nobody is brought back from them under these pseudonyms. KEYS: the record, the jobs,
# those users, what copies are told, the aliases. ARGV: what was read, what an alias begins with,
# the job's name, the job, the number of pseudonyms, these, the users.
_DESTROY = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
for at = 5, #KEYS do
  local led = redis.call('GET', KEYS[at])
  if led and string.sub(led, 1, #ARGV[2]) == ARGV[2] then redis.call('DEL', KEYS[at]) end
end
local last = 5 + ARGV[5]
for at = 6, last do redis.call('SADD', KEYS[4], ARGV[at]) end
for at = last + 1, #ARGV do redis.call('SADD', KEYS[3], ARGV[at]) end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return 1
"""
# Changes a job if it is what was read. KEYS: the jobs. ARGV: its name, what was read, what it is to
# be.
_CHANGE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
# Ends a job if it is what was read. KEYS: the jobs, what is left of it, who was erased, under each
# of their ids. ARGV: its name, what was read, what is left, and for how many seconds, and for how
# many it is known who.
_END = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
for at = 3, #KEYS do redis.call('SET', KEYS[at], ARGV[1], 'EX', ARGV[5]) end
return 1
"""
# All that the state of jobs depends on, as of one moment. KEYS: the policies, the parts, the jobs,
# for a job by name what is left of it, and the policies with keyed pseudonyms. ARGV: the name;
# empty: all that run.
_READ = """
local jobs = redis.call('HGETALL', KEYS[3])
if ARGV[1] ~= '' then
  jobs = {ARGV[1], redis.call('HGET', KEYS[3], ARGV[1]) or redis.call('GET', KEYS[4])}
end
local members, parts = redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])
return {members, parts, jobs, redis.call('SMEMBERS', KEYS[5])}
"""


class Job(msgspec.Struct, frozen=True, array_like=True):
    """The erasure of one person, as it is stored.

    Attributes:
        asked_ms: when it was asked for, in milliseconds since 1970.
        person: what found the person's record; "" once it is complete.
        ended_ms: when it was complete; None: it is not.
        erasure: what the logs' entries name; "" once it is complete.
        pseudonyms: what nothing may be logged under any more; none once it is complete.
        told: by part of the profile, the position of its log's entry; none once it is complete.
        keyed: the policies whose logs have keyed pseudonyms.
        ids: what else led to the person's record; none once it is complete.
    """

    asked_ms: int
    person: str = ""
    ended_ms: int | None = None
    erasure: str = ""
    pseudonyms: list[str] = []
    told: dict[str, str] = {}
    keyed: list[str] = []
    ids: list[str] = []


class Erasure(msgspec.Struct, frozen=True):
    """How an erasure stands.

    Attributes:
        name: the job's.
        job: as it is stored.
        waits_for: the parts of the profile that have not passed it.
        filed: what files of profiles know the person by, of ids that were merged; said once, to
            whoever has destroyed the record.
    """

    name: str
    job: Job
    waits_for: list[str]
    filed: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.job.ended_ms is not None


class _Known(msgspec.Struct, frozen=True):
    """What the state of jobs depends on."""

    space: Space
    parts: dict[bytes, bytes]
    jobs: dict[str, bytes]


def run(client: Redis, steps: Steps[T]) -> T:
    """Return what steps return, run by a blocking client.

    Args:
        client: a connection.
        steps: of this module.

    Raises:
        RedisError: Redis does not answer; the steps may be begun again.
    """
    execute: Any = client.execute_command
    try:
        command = next(steps)
        while True:
            command = steps.send(execute(*command))
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(send: Callable[[Command], Awaitable[Any]], steps: Steps[T]) -> T:
    """Return what steps return, run without blocking.

    Args:
        send: runs a command and returns its answer.
        steps: of this module.
    """
    try:
        command = next(steps)
        while True:
            command = steps.send(await send(command))
    except StopIteration as end:
        result: T = end.value
        return result


def erase_person(
    space: Space, person: str, *, filed: bool = False, now_ms: int | None = None
) -> Steps[Erasure]:
    """Erase a person, as far as that can be done now; return how the job stands.

    Args:
        space: with the members that are known here; those that are registered are added.
        person: what finds their record (``person_key``).
        filed: a file of profiles has had an entry of theirs, so it is known who they are.
        now_ms: milliseconds since 1970.

    Raises:
        UnknownUserError: there is no such person, and none was erased a moment ago.
    """
    keys = UsersKeys(space.name)
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    while True:
        found = yield ("GET", keys.person(person))
        if (named := alias_of(found)) is not None:
            person, found = named[0], (yield ("GET", keys.person(named[0])))
        if found is None and not filed:
            return (yield from _asked_again(space, person, now_ms))

        record = None if found is None else decode_person(found)
        name, job = uuid.uuid4().hex, Job(now_ms, person, None, uuid.uuid4().hex)
        if record is not None:
            ids = [each.hex() for each in record.ids]
            job = msgspec.structs.replace(job, pseudonyms=record.pseudonyms, ids=ids)
        unfiled = filed or space.filed
        if (yield _destroy(keys, found or b"", name, job, unfiled=unfiled)):
            erasure = yield from go_on(space, name, now_ms=now_ms)
            filed_as = [] if record is None else [each.hex() for each in record.filed]
            return msgspec.structs.replace(erasure, filed=filed_as)


def _destroy(keys: UsersKeys, found: bytes, name: str, job: Job, *, unfiled: bool) -> Command:
    named = [keys.person(job.person), keys.erasures, keys.unfiled, keys.unnoted]
    named += map(keys.person, job.ids)
    said: list[Any] = [found, alias_to(job.person, ""), name, _encode(job)]
    said += [len(job.pseudonyms), *job.pseudonyms]
    said += [job.person, *job.ids] if unfiled else []
    return ("EVAL", _DESTROY, len(named), *named, *said)


def _asked_again(space: Space, person: str, now_ms: int) -> Steps[Erasure]:
    """Go on with the erasure of somebody who is not known any more."""
    known = yield from _read(space)
    names = [name for name, job in _jobs(known) if person in (job.person, *job.ids)]
    if not names:
        found = yield ("GET", UsersKeys(space.name).erased(person))
        names = [] if found is None else [found.decode()]
    if not names:
        raise UnknownUserError(
            "nothing is known of this user: there is nothing to erase", "user_id"
        )
    return (yield from go_on(space, names[0], now_ms=now_ms))


def go_on(space: Space, name: str, *, now_ms: int | None = None) -> Steps[Erasure]:
    """Do what is left of a job; return how it stands.

    Args:
        space: see ``erase_person``.
        name: the job's.
        now_ms: milliseconds since 1970.

    Raises:
        UnknownErasureError: there is no such job.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    while True:
        known = yield from _read(space, name)
        job = dict(_jobs(known)).get(name)
        if job is None:
            raise UnknownErasureError(
                f"there is no erasure {name!r}, or it was complete long ago", "erasure"
            )
        if job.ended_ms is not None:
            return Erasure(name, job, [])

        # Every log is told, also those of a policy that has joined the space since.
        told = dict(job.told)
        for part, log in _logs(known.space) if job.pseudonyms else ():
            if part not in told:
                told[part] = last_of((yield mark_command(log, job.pseudonyms, job.erasure)))
        here = {part for part, _ in _logs(known.space)}  # one that has left is not waited for
        waits_for = [
            part for part, at in told.items() if part in here and not _passed(known.parts, part, at)
        ]
        keyed = known.space.keyed_logs
        if not waits_for:
            ended = Job(job.asked_ms, ended_ms=now_ms, keyed=keyed)
            if (yield _end(known, name, (job.person, *job.ids), ended)):
                return Erasure(name, ended, [])
            continue
        changed = msgspec.structs.replace(job, told=told, keyed=keyed)
        if changed == job or (yield _change(known, name, changed)):
            return Erasure(name, changed, waits_for)


def go_on_with_all(space: Space, *, now_ms: int | None = None) -> Steps[int]:
    """Do what is left of all jobs; return how many still run.

    Whoever leads the log of activity does this now and then: who began a job may have died.

    Args:
        space: see ``erase_person``.
        now_ms: milliseconds since 1970.
    """
    running = 0
    for name, _ in _jobs((yield from _read(space))):
        with contextlib.suppress(UnknownErasureError):
            running += not (yield from go_on(space, name, now_ms=now_ms)).is_complete
    return running


def _change(known: _Known, name: str, job: Job) -> Command:
    keys = UsersKeys(known.space.name)
    return ("EVAL", _CHANGE, 1, keys.erasures, name, known.jobs[name], _encode(job))


def _end(known: _Known, name: str, ids: Sequence[str], job: Job) -> Command:
    keys = UsersKeys(known.space.name)
    named = keys.erasures, keys.erasure(name), *map(keys.erased, ids)
    left = known.jobs[name], _encode(job), KEPT_S, ASKED_AGAIN_S
    return ("EVAL", _END, len(named), *named, name, *left)


def _read(space: Space, name: str = "") -> Steps[_Known]:
    """Read what jobs depend on: of one job, or of all."""
    keys = UsersKeys(space.name)
    depended = keys.policies, keys.parts, keys.erasures, keys.erasure(name), keys.keyed
    *answer, keyed = yield ("EVAL", _READ, 5, *depended, name)
    members, parts, jobs = (dict(zip(each[::2], each[1::2], strict=False)) for each in answer)

    registered = replace(
        decode_space(space.name, members), keyed=frozenset(each.decode() for each in keyed)
    )
    named = {name.decode(): raw for name, raw in jobs.items() if raw is not None}
    return _Known(space.with_members(registered), parts, named)


def _jobs(known: _Known) -> Iterator[tuple[str, Job]]:
    for name, raw in known.jobs.items():
        try:
            yield name, _decoder.decode(raw)
        except MALFORMED:
            continue


def _logs(space: Space) -> list[tuple[str, Keys | ActivityKeys]]:
    """Return the parts of a profile, each with its log."""
    logs: list[tuple[str, Keys | ActivityKeys]] = [(ACTIVITY, ActivityKeys(space.name))]
    logs += [(part_name(keys.policy, keys.partition), keys) for keys in space.logs]
    return logs


def _passed(parts: dict[bytes, bytes], part: str, entry: str) -> bool:
    """Return whether a part says what its log does, through an entry."""
    state = decode_part_state(parts.get(part.encode()))
    return state is not None and _has_read(state, entry)


def _has_read(state: PartState, entry: str) -> bool:
    if not has_reached(state.position, entry):
        return False
    return state.is_whole or is_after(entry, state.until) or _reached(state.built, entry)


def _reached(position: str, entry: str) -> bool:
    return bool(position) and has_reached(position, entry)


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Job)
