"""The root of a log: a checkpoint, named by an entry, with which whoever verifies the log begins.

The state there is in the archive, as a blob that the entry names, and beside it what was known of
users. Everything after the root follows from the root and the log; learning, profiles and
verification need nothing of before.
"""

from collections.abc import Iterator

from bandits.errors import RetentionError
from bandits.log.positions import has_reached, is_after, log_order
from bandits.log.records import LogEntry, RollbackRecord, RootRecord, WarmStartRecord
from policies.archive.archive import ArchiveReader
from policies.archive.listing import ListedFile
from policies.fold.checkpoint import decode_state
from policies.profiles.part import join_parts
from policies.profiles.root_parts import remove_other_parts, write_root_parts
from policies.spec import PolicySpec, decode_spec
from policies.storage import Storage
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.checkpoints import Root, StoredCheckpoint
from serve_app.store.history import LogPast
from serve_app.store.profiles.log_changes import PolicyChanges
from serve_app.store.profiles.spool import ChangeSpool


def state_root(stored: StoredPolicy, before_ms: int, salt: bytes) -> Root:
    """Have a log begin at its newest checkpoint before a time, unless it does; return the root.

    Args:
        stored: the policy, with its archive.
        before_ms: in milliseconds since 1970.
        salt: the service's secret.

    Raises:
        RetentionError: there is no such checkpoint, or something needs what is before it.
        BanditloopError: the log cannot be read, of which profiles are made.
    """
    archive, spec = _demand_cuttable(stored)
    root = stored.checkpoints.root()
    checkpoint = next(
        (each for each in stored.checkpoints.list() if each.time_ms <= before_ms), None
    )
    if checkpoint is None or (root is not None and has_reached(root.position, checkpoint.position)):
        if root is not None:
            return root
        kept = stored.checkpoints.list()
        oldest = f"the oldest is of {kept[-1].position}" if kept else "there is none yet"
        raise RetentionError(f"no checkpoint is as old as that: {oldest}", "before")

    data = stored.checkpoints.load(checkpoint)
    state = decode_state(data)
    if not state.is_pure:
        raise RetentionError(
            f"the checkpoint at {checkpoint.position} is of an earlier build: take a later one",
            "before",
        )
    _demand_no_return(stored, checkpoint)

    profiles = None
    rule = stored.part_rule(spec)
    if rule is not None:
        changes = PolicyChanges(stored.history, LogPast(stored.history, stored.checkpoints), salt)
        with ChangeSpool(rule) as spool:
            for _, some in changes.through(checkpoint.position):
                spool.add(some)
            cut = ((user, join_parts([part], rule)) for user, part in spool.parts())
            profiles = write_root_parts(archive.files, cut)

    entry = stored.control(RootRecord(checkpoint.position, checkpoint.digest, profiles))
    learned, needed = checkpoint.learned, state.needed
    made = Root(checkpoint.position, checkpoint.digest, learned, needed, entry, profiles)
    stored.checkpoints.begin_at(made)
    return made


def older_files(root: Root, archive: str, folder: str) -> list[ListedFile]:
    """Return the files of an archive that neither learning nor a verification reads any more.

    Args:
        root: the log's.
        archive: folder or URI of the archive.
        folder: the log's, within it.

    Raises:
        OSError: the file system cannot be reached.
    """
    listing, found = ArchiveReader(archive, folder).chain.listing, list[ListedFile]()
    # The newest stays: the next one goes on behind it.
    end = listing.end
    for hour in listing.hours():
        files = listing.of_hour(hour)
        found += [file for file in files if is_after(root.needed, file.last) and file.last != end]
        if any(has_reached(file.first, root.needed) for file in files):
            break
    return found


def remove_older(root: Root, archive: str, folder: str) -> list[ListedFile]:
    """Remove the files of an archive that nothing needs any more; return those of the log.

    What was known of users at earlier roots goes, too.

    Args:
        root: the log's.
        archive: folder or URI of the archive.
        folder: the log's, within it.

    Raises:
        OSError: the file system cannot be reached.
    """
    files, older = Storage(archive, folder), older_files(root, archive, folder)
    # The oldest first: what stays is without a gap whenever this ends.
    for each in older:
        files.remove(each.path)
    remove_other_parts(files, root.profiles)
    return older


def _demand_cuttable(stored: StoredPolicy) -> tuple[ArchiveReader, PolicySpec]:
    """Return a log's archive and spec; refuse one whose beginning something else needs."""
    policy = stored.keys.policy
    if stored.partitions > 1:
        raise RetentionError(
            f"{policy} is in {stored.partitions} partitions, which are verified from the start",
            "policy",
        )
    head = stored.head()
    if head is None:
        raise RetentionError(f"{policy} has no snapshot yet", "policy")
    archive = stored.history.archive
    if archive is None:
        raise RetentionError("the log is not archived: say where with --archive", "archive")
    return archive, decode_spec(stored.history.blob(stored.find(head)[1].spec))


def _demand_no_return(stored: StoredPolicy, checkpoint: StoredCheckpoint) -> None:
    """Refuse a root that a later entry goes behind: its replay would need what is before."""
    for entry in _entries_past(stored, checkpoint.position):
        record = entry.record
        if isinstance(record, RollbackRecord) and is_after(checkpoint.position, record.position):
            raise RetentionError(
                f"the rollback at {entry.id} goes back to {record.position}, before the checkpoint"
                f" at {checkpoint.position}: take one that is later than the rollback",
                "before",
            )
        # The windows that were open there may be longer, under other signals.
        if isinstance(record, WarmStartRecord) and record.through is not None:
            raise RetentionError(
                f"at {entry.id} the log goes on as it was learned anew, with windows of before the"
                f" checkpoint at {checkpoint.position}: take one that is later than that",
                "before",
            )


def _entries_past(stored: StoredPolicy, position: str) -> Iterator[LogEntry]:
    """Yield the rollbacks and warm starts past a position; of the stream, all entries."""
    archive = stored.history.archive
    if archive is not None:
        yield from archive.entries(position, kinds=["rollback", "warm_start"])
        position = max(position, archive.end, key=log_order)
    yield from stored.history.encoded(position)
