"""The root of a space's log of activity: what was known of its users there, and was in demand.

Whoever reads the log from its beginning begins there, and needs nothing of what is before.
"""

from bandits.errors import RetentionError
from bandits.log.codec import digest
from bandits.log.positions import START, position_after, position_at
from bandits.log.records import RootRecord
from policies.archive.archive import ArchiveReader
from policies.profiles.part import MOST_KEPT, CutRule
from policies.profiles.root_parts import write_root_parts
from serve_app.store.activity.demand import Demand, StoredDemand, decode_demand
from serve_app.store.checkpoints import Root, read_root, write_root
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History, batched
from serve_app.store.keys import ActivityKeys
from serve_app.store.profiles.log_changes import ActivityChanges
from serve_app.store.profiles.spool import ChangeSpool
from serve_app.store.spaces import Space

BATCH = 1000


def demand_at_root(client: Redis, history: History, keys: ActivityKeys) -> StoredDemand | None:
    """Return what was in demand where a log begins; None: it begins with its first entry.

    Args:
        client: a connection.
        history: reads the log.
        keys: the log's.

    Raises:
        RedisError: Redis does not answer.
        MissingBlobError, ArchiveError: it is gone.
    """
    root = read_root(client, keys)
    return None if root is None else decode_demand(history.blob(root.digest))


def state_activity_root(
    client: Redis, space: Space, archive: ArchiveReader | None, before_ms: int
) -> Root:
    """Have a space's log of activity begin at its newest entry before a time, unless it does.

    Args:
        client: a connection.
        space: the space.
        archive: of the log; None: it is not archived.
        before_ms: in milliseconds since 1970.

    Raises:
        RetentionError: there is no entry as old as that, or the log is not archived.
        RedisError: Redis does not answer.
        LogGapError, ArchiveError: the log cannot be read.
    """
    if archive is None:
        raise RetentionError("the log is not archived: say where with --archive", "archive")
    keys = ActivityKeys(space.name)
    log, history = RedisLog(client, keys), History(client, keys, archive)
    root = read_root(client, keys)

    # What is worth keeping, whatever a spec asks for.
    rule, before = CutRule(MOST_KEPT, tuple(space.types)), position_at(before_ms)
    demand, position = Demand(keys), START if root is None else root.position
    demand.begin(space.half_lives_ms, demand_at_root(client, history, keys))
    for batch in batched(history.encoded(position, before), BATCH):
        demand.take(batch, space.types)
        position = batch[-1].id
    if position == (START if root is None else root.position):
        if root is not None:
            return root
        raise RetentionError("nothing was done as long ago as that", "before")

    with ChangeSpool(rule) as spool:
        for _, changes in ActivityChanges(history, root).through(position):
            spool.add(changes)
        profiles = write_root_parts(archive.files, spool.parts())

    state = demand.encoded
    log.put_blob(digest(state), state)
    entry = log.append_once(RootRecord(position, digest(state), profiles))
    made = Root(position, digest(state), 0, position_after(position), entry, profiles)
    write_root(client, keys, made)
    return made
