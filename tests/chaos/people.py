"""Users under chaos: what they do, who is merged, who is erased; and whether all of it was kept."""

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from bandits.log.encoded_decisions import DECISIONS, shown_to
from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry, MergeUsersRecord
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.pseudonyms import person_key
from serve_app.client import AsyncClient, Client, ServiceError
from serve_app.settings import Settings
from serve_app.store.history import History
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.store.users.persons import alias_of

SPACE = "shop"
KEYS = UsersKeys(SPACE)
USERS = 40
MERGE_EVERY, ERASE_EVERY = 20, 30
BUILT_S, BEING_MADE = 60.0, 3
BACK_S = 1.0
"""When somebody who was erased comes back."""


@dataclass(slots=True)
class PeoplePromised:
    """What the service has acknowledged of users: when, by id; into whom; by which erasure."""

    activity: dict[str, float] = field(default_factory=dict)
    merges: dict[str, str] = field(default_factory=dict)
    erasures: dict[str, str] = field(default_factory=dict)
    refused: int = 0


def user_of(number: int) -> str | None:
    """Who asks for a decision; every third time nobody says."""
    return f"u{number % USERS}" if number % 3 else None


class People:
    """What users do outside of decisions, besides the traffic of decisions."""

    def __init__(self, prefix: str, items: Sequence[str]) -> None:
        self.promised = PeoplePromised()
        self._prefix, self._items = prefix, items

    def begin(self, group: asyncio.TaskGroup, client: AsyncClient, number: int) -> None:
        """Begin what is due with a decision of this number."""
        group.create_task(self._did(client, f"u{number % USERS}", number))
        if number % MERGE_EVERY == 0:
            group.create_task(self._merge(client, number))
        if number % ERASE_EVERY == 0:
            group.create_task(self._erase(client, number))

    async def _did(self, client: AsyncClient, user: str, number: int, what: str = "did") -> bool:
        name, item = f"{self._prefix}-{what}-{number}", self._items[number % len(self._items)]
        try:
            await client.did(user, item, "view" if number % 5 else "purchase", id=name)
        except (ServiceError, httpx.HTTPError):
            self.promised.refused += 1
            return False
        self.promised.activity[name] = time.monotonic()
        return True

    async def _merge(self, client: AsyncClient, number: int) -> None:
        """A visitor turns out to be somebody who is known."""
        visitor, known = f"visitor-{number}", f"u{number % USERS}"
        if not (await self._did(client, visitor, number, "visited")):
            return
        try:
            await client.merge_users(visitor, known)
        except (ServiceError, httpx.HTTPError):
            self.promised.refused += 1
        else:
            self.promised.merges[visitor] = known

    async def _erase(self, client: AsyncClient, number: int) -> None:
        """Somebody is erased, and comes back a moment later."""
        user = f"gone-{number}"
        if not (await self._did(client, user, number, "was")):
            return
        try:
            erasure = await client.erase(user)
        except (ServiceError, httpx.HTTPError):
            self.promised.refused += 1
            return
        self.promised.erasures[erasure.erasure] = user
        await asyncio.sleep(BACK_S)
        await self._did(client, user, number, "back")


@dataclass(slots=True)
class Kept:
    """What became of users: how much of what was promised is missing, and what should not be."""

    lost: list[str]
    twice: int
    after_erasure: int
    not_erased: int
    apart: int

    @property
    def sound(self) -> bool:
        return not (self.lost or self.twice or self.after_erasure or self.not_erased or self.apart)

    def __str__(self) -> str:
        return (
            f"{len(self.lost)} lost, {self.twice} twice, {self.after_erasure} written after an"
            f" erasure, {self.not_erased} erasures not complete, {self.apart} merged and apart"
        )


def audit_people(
    promised: PeoplePromised,
    client: redis.Redis,
    folder: Path,
    url: str,
    logs: Iterable[Iterable[LogEntry]],
    *,
    patience_s: float,
) -> Kept:
    """Ask for all that was promised; ``logs``: the policy's."""
    root = folder / "data" / "archive"
    reader = ArchiveReader(root, shared_folder(SPACE, "activity"))
    activity = list(History(client, ActivityKeys(SPACE), reader).encoded("0-0"))
    records = [entry.record for entry in activity]
    ids = Counter(record.id for record in records if isinstance(record, ActivityRecord))
    merges = Counter(record.user for record in records if isinstance(record, MergeUsersRecord))

    with Client(url, "home", space=SPACE) as http:
        deadline, waiting = time.monotonic() + patience_s, set(promised.erasures)
        while waiting and time.monotonic() < deadline:
            waiting = {each for each in waiting if http.erasure(each).state != "complete"}
            time.sleep(0.1)

    salt = Settings(data_dir=folder / "data").secret()
    return Kept(
        lost=[name for name in promised.activity if name not in ids],
        twice=sum(count - 1 for counts in (ids, merges) for count in counts.values()),
        after_erasure=sum(_after_erasure(log) for log in (activity, *logs)),
        not_erased=len(waiting),
        apart=sum(
            _record_of(client, salt, visitor) != _record_of(client, salt, known)
            for visitor, known in promised.merges.items()
        ),
    )


def _after_erasure(log: Iterable[LogEntry]) -> int:
    """How many entries of a log name a pseudonym behind the entry that says it is erased."""
    erased: set[str] = set()
    wrong = 0
    for entry in log:
        record: Any = entry.record
        if isinstance(record, ErasureRecord):
            erased.add(record.user)
        elif isinstance(record, (*DECISIONS, ActivityRecord)):
            user = record.user if isinstance(record, ActivityRecord) else shown_to(record)[0]
            wrong += user in erased
        elif isinstance(record, MergeUsersRecord):
            wrong += bool({record.user, record.into} & erased)
    return wrong


def _record_of(client: redis.Redis, salt: bytes, user: str) -> str:
    """The key of the record that a user id leads to."""
    key = person_key(salt, user)
    found = alias_of(client.get(KEYS.person(key)))
    return key if found is None else found[0]


def flush_profiles(client: redis.Redis) -> None:
    """Drop all that is derived of users; who they are stays."""
    names = list(client.scan_iter(match=KEYS.profile("*").replace("{", "\\{"), count=1000))
    client.delete(KEYS.parts, *names)


def verify_profiles(banditloop: str, folder: Path) -> str:
    """Compare all profiles with what the logs say."""
    command = [banditloop, "profiles", "verify", "--data-dir", "data"]
    deadline = time.monotonic() + BUILT_S
    while True:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != BEING_MADE or time.monotonic() > deadline:
            break
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    verdict = "identical" if done.returncode == 0 else f"NOT identical ({done.returncode})"
    return f"{verdict}: {said[-1] if said else ''}"


def drill(banditloop: str, folder: Path, client: redis.Redis) -> str:
    """Lose who the users are, and bring them back from a copy."""

    def persons() -> dict[bytes, Any]:
        names = list(client.scan_iter(match=KEYS.person("*"), count=1000))
        return dict(zip(names, client.mget(names), strict=True)) if names else {}

    before = persons()
    for command in ("backup", "restore"):
        if command == "restore":
            client.delete(*before)
        arguments = [banditloop, "users", command, "--data-dir", "data"]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"FAILED: {done.stderr.strip()[-300:]}"
    verdict = "the same" if persons() == before else "NOT the same"
    return f"{verdict}: {len(before)} records after a loss and a restore"
