"""All that is held of one user: who they are, their profile, and what the logs say of them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from banditloop_client.space_schemas import (
    FiledEvent,
    FiledProfile,
    HeldEntry,
    HeldEvent,
    HeldProfile,
    HeldShowing,
    UserExport,
)
from bandits.errors import UnknownUserError
from bandits.log.records import DecisionRecord, LogEntry, kind_of
from policies.archive.archive import ArchiveReader, archive_folder
from policies.archive.shared import shared_folder
from policies.artifacts.profile_lookup import filed_profile
from policies.profiles.part import CutRule
from policies.profiles.user_profile import read_profile
from policies.pseudonyms import person_key, pseudonym
from policies.storage import shown
from serve_app.store.clients import Redis
from serve_app.store.keys import ActivityKeys, LogKeys, UsersKeys, partitions
from serve_app.store.profiles.part_state import are_whole
from serve_app.store.spaces import ACTIVITY, Space, part_name, space_name
from serve_app.store.users.persons import PersonRecord, alias_of, decode_person
from serve_app.store.users.user_log import logged_of


def export_user(
    client: Redis,
    space: Space,
    user_id: str,
    *,
    salt: bytes,
    archive: str,
    files: Sequence[str] = (),
    most: int | None = None,
    progress: Callable[[int], None] = lambda _count: None,
) -> UserExport:
    """Return all that is held of a user.

    Args:
        client: a connection.
        space: with its members.
        user_id: as callers send it.
        salt: user ids are hashed with it.
        archive: the folder or URI of the archive; "" where nothing is archived.
        files: the files of profiles that its policies name.
        most: how many entries of the logs at most; None: all.
        progress: called with how many entries were looked at.

    Raises:
        UnknownUserError: nothing is.
        RedisError, OSError: not everything can be read.
        ArchiveError, ArtifactError: a file is damaged or missing.
    """
    record = _record(client, UsersKeys(space.name), person_key(salt, user_id))
    names = [] if record is None else record.pseudonyms

    # Policies without profiles, and those that had none before, know a user by another name.
    keyed = pseudonym(salt, user_id)
    found = _entries(client, space, [*names, keyed], archive, progress)
    in_files = dict.fromkeys([keyed, *(() if record is None else map(bytes.hex, record.filed))])
    entries = list(islice(found, most))
    filed = [each for name in in_files for each in _filed(files, name, salt)]
    if record is None and not entries and not filed:
        raise UnknownUserError("nothing is known of this user", "user_id")
    return UserExport(
        space.name,
        user_id,
        None if record is None else _time(record.since_ms),
        names,
        0 if record is None else len(record.ids),
        _profile(client, space, names),
        filed,
        entries,
        more=next(found, None) is not None,
        keyed_logs=space.keyed_logs,
    )


def logged_names(client: Redis, policy: str, user_id: str, salt: bytes) -> list[str]:
    """Return the pseudonyms that a policy's logs have a user under, also such as they may not.

    Args:
        client: a connection.
        policy: its name.
        user_id: as callers send it.
        salt: user ids are hashed with it.

    Raises:
        RedisError: Redis does not answer.
    """
    record = _record(client, UsersKeys(space_name(client, policy)), person_key(salt, user_id))
    return [*(() if record is None else record.pseudonyms), pseudonym(salt, user_id)]


def _record(client: Redis, keys: UsersKeys, key: str) -> PersonRecord | None:
    raw: Any = client.get(keys.person(key))
    alias = alias_of(raw)
    if alias is not None:
        raw = client.get(keys.person(alias[0]))
    return None if raw is None else decode_person(raw)


def _profile(client: Redis, space: Space, names: list[str]) -> HeldProfile:
    keys = UsersKeys(space.name)
    hashes: list[Any] = [client.hgetall(keys.profile(name)) for name in names]
    rule = CutRule(max(1, space.items), tuple(sorted(space.repeated)))
    profile = read_profile(hashes, rule)
    states: Any = client.hgetall(keys.parts)
    return HeldProfile(
        are_whole(states, space.parts),
        [HeldEvent(event.item, event.type, _time(event.time_ms)) for event in profile.events],
        [HeldShowing(each.item, _time(each.entry_ms)) for each in profile.shown],
    )


def _filed(files: Sequence[str], keyed: str, salt: bytes) -> Iterator[FiledProfile]:
    for where in files:
        found = filed_profile(where, keyed, salt=salt)
        if found is not None:
            yield FiledProfile(shown(where), [FiledEvent(*each) for each in found])


def _entries(
    client: Redis, space: Space, names: list[str], root: str, progress: Callable[[int], None]
) -> Iterator[HeldEntry]:
    looked = 0

    def look(count: int) -> None:
        nonlocal looked
        looked += count
        progress(looked)

    for log, keys, folder in _logs(space):
        archive = ArchiveReader(root, folder) if root else None
        for entry in logged_of(client, keys, archive, names, look):
            yield _held(log, entry)


def _logs(space: Space) -> Iterator[tuple[str, LogKeys, str]]:
    """Yield each log of a space: its name, its keys and its folder in the archive."""
    yield ACTIVITY, ActivityKeys(space.name), shared_folder(space.name, "activity")
    for member in space.members:
        for keys in partitions(member.policy, member.partitions):
            folder = archive_folder(member.policy, keys.partition, member.partitions)
            yield part_name(member.policy, keys.partition), keys, folder


def _held(log: str, entry: LogEntry) -> HeldEntry:
    """Return an entry for its reader: of a decision what it says of the user, and what it chose."""
    record: Any = entry.record
    said = {name: getattr(record, name) for name in record.__struct_fields__}
    if isinstance(record, DecisionRecord):
        said = {name: said[name] for name in ("event_id", "user", "context", "deferred")}
        said["chosen"] = [record.action_ids[at] for at in record.chosen]
        if record.features is not None:
            said["features"] = [record.features[at] for at in record.chosen]
    said = {name: value for name, value in said.items() if value is not None}
    return HeldEntry(log, entry.id, _time(entry.time_ms), kind_of(record), said)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
