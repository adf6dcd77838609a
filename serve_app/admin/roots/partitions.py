"""The roots of a policy in several partitions: their logs begin behind one merge, all of them.

What a log of its own begins with is a checkpoint. Those of several partitions are taken at
different times, and none knows what the others had given to the merges in between. So the logs are
folded together up to a merge that all have, from where they begin now, and the states there are
stored.
"""

import io
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from bandits.errors import CodecError, RetentionError
from bandits.log.codec import digest
from bandits.log.positions import START, is_after, log_order, position_at, position_before
from bandits.log.records import LogEntry, MergeRecord, RollbackRecord, RootRecord
from policies.archive.archive import BLOBS
from policies.fold.all_partitions import AllPartitionsFold, PartitionsRoot
from policies.storage import Storage
from serve_app.admin.replayed.verification import LogAddress, seldom_collecting
from serve_app.admin.roots.one_log import (
    changes_past,
    demand_no_return,
    spec_of_cuttable,
    state_root,
    write_known_users,
)
from serve_app.store.checkpoints import Checkpoints, Root
from serve_app.store.clients import blocking_client
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History
from serve_app.store.keys import partitions
from serve_app.store.merges import partitions_root

SPANS_MS = (60_000, 3_600_000, 1 << 62)
"""How far back a merge is looked for that all logs have; usually the first span has some."""


def state_roots(address: LogAddress, before_ms: int) -> list[Root]:
    """Have a policy's logs begin as late as they can before a time; return the root of each.

    Args:
        address: where the logs are.
        before_ms: in milliseconds since 1970.

    Raises:
        RetentionError, BanditloopError: see ``state_root`` and ``state_partition_roots``.
    """
    stored = address.open()
    if stored.partitions == 1:
        return [state_root(stored, before_ms, address.salt)]
    return state_partition_roots(address, before_ms)


def state_partition_roots(address: LogAddress, before_ms: int) -> list[Root]:
    """Have the logs of all partitions begin behind their newest merge before a time.

    Args:
        address: where the logs are.
        before_ms: in milliseconds since 1970.

    Returns:
        The roots, in the order of the partitions.

    Raises:
        RetentionError: no merge is as old as that, or something needs what is before it.
        BanditloopError: the logs cannot be read, or do not give what they say was merged.
    """
    client, stored = blocking_client(address.url), address.open()
    spec, _ = spec_of_cuttable(stored)
    rule = stored.part_rule(spec)
    histories = address.histories(stored.partitions)
    keys = partitions(address.policy, stored.partitions)
    checkpoints = [Checkpoints(client, each) for each in keys]
    root = checkpoints[0].root()

    # A learner that starts again begins at its newest checkpoint, behind the root.
    newest = [each.list()[:1] for each in checkpoints]
    if not all(newest):
        raise RetentionError("not every partition has a checkpoint yet", "before")
    limit = position_at(before_ms)
    ends = [min(limit, each.position, key=log_order) for (each,) in newest]
    begin = START if root is None else root.position
    merge = _newest_merge(histories, begin, ends)
    if merge is None:
        if root is not None:
            return [root, *root.others]
        raise RetentionError("no merge of all partitions is as old as that", "before")

    number, positions = merge
    for history, position in zip(histories, positions, strict=True):
        demand_no_return(history, position)
    for entry in changes_past(histories[0], positions[0]):
        if isinstance(entry.record, RollbackRecord):
            demand_given(histories[0], entry.record.position, positions)

    known = partitions_root(root, histories)
    folds = AllPartitionsFold(histories, salt=address.salt, items=address.items(), root=known)
    with seldom_collecting():
        at = folds.root_at(number)

    # That of partition 0 is the last, and names the others: until then nothing begins anew.
    roots: list[Root] = []
    for partition in reversed(range(len(keys))):
        history = histories[partition]
        profiles = None
        if rule is not None:
            position = at.states[partition].position
            own = checkpoints[partition]
            profiles = write_known_users(history, own, position, rule, address.salt)
        log = RedisLog(client, keys[partition])
        made = _state(log, history, at, partition, profiles)
        if not partition:
            made = msgspec.structs.replace(made, others=roots[::-1])
        archived = START if history.archive is None else history.archive.end
        checkpoints[partition].begin_at(made, archived=archived)
        roots.append(made)
    return roots[::-1]


def demand_given(first: History, position: str, begins: Sequence[str]) -> None:
    """Refuse roots behind which what went into a merge was given that a rollback goes back to.

    Args:
        first: the log of partition 0.
        position: that of the merge.
        begins: the position of each partition's root.

    Raises:
        RetentionError: a partition had given it before its root.
    """
    entries: Iterator[LogEntry] = first.encoded(position_before(position), position)
    record = next((entry.record for entry in entries), None)
    if not isinstance(record, MergeRecord):
        return
    for given, begin in zip(record.inputs, begins, strict=True):
        if given is not None and is_after(begin, given.position):
            raise RetentionError(
                f"a rollback goes back to the merge at {position}, to which a partition had given"
                f" what it knew at {given.position}, before the root: take a root that is later"
                " than the rollback",
                "before",
            )


def _newest_merge(
    histories: Sequence[History], begin: str, ends: Sequence[str]
) -> tuple[int, list[str]] | None:
    """Return the number of the newest merge that all logs have, and where each has it first.

    Args:
        histories: read the logs.
        begin: past here, in the log of partition 0.
        ends: up to here, in each.
    """
    newest_ms = min(log_order(end)[0] for end in ends)
    for span_ms in SPANS_MS:
        since = max(position_at(max(newest_ms - span_ms, 0)), begin, key=log_order)
        found = [_merges(history, since, end) for history, end in zip(histories, ends, strict=True)]
        common = set(found[0]).intersection(*found[1:])
        if common:
            number = max(common)
            return number, [each[number] for each in found]
    return None


def _merges(history: History, after: str, through: str) -> dict[int, str]:
    """Return by number where a log has each merge first."""
    archive, position = history.archive, after
    entries: Iterator[LogEntry] = iter(())
    if archive is not None:
        entries = archive.entries(after, through, kinds=["merge"])
        position = max(after, archive.end, key=log_order)
    found: dict[int, str] = {}
    if is_after(through, position):
        entries = chain(entries, history.encoded(position, through))
    for entry in entries:
        if isinstance(entry.record, MergeRecord):
            found.setdefault(entry.record.number, entry.id)
    return found


def _state(
    log: RedisLog, history: History, at: PartitionsRoot, partition: int, profiles: str | None
) -> Root:
    """State the root of one partition; what it has given is in its archive alone."""
    state, model = at.states[partition], at.given[partition]
    data, given = msgspec.msgpack.encode(state), None
    if model is not None:
        given = digest(model)
        _keep(history, given, model)
    log.put_blob(digest(data), data)
    entry = log.append_once(RootRecord(state.position, digest(data), profiles, given))
    return Root(state.position, digest(data), state.learned, state.needed, entry, profiles, given)


def _keep(history: History, name: str, data: bytes) -> None:
    if history.archive is None:
        raise CodecError("the log is not archived", "archive")
    files: Storage = history.archive.files
    path = f"{BLOBS}/{name}"
    if not files.exists(path):
        files.put(path, io.BytesIO(data))
