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
from policies.fold.checkpoint import decode_state
from policies.profiles.part import CutRule
from policies.profiles.root_parts import write_root_parts
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.checkpoints import Checkpoints, Root
from serve_app.store.history import History, LogPast
from serve_app.store.profiles.log_changes import PolicyChanges
from serve_app.store.profiles.spool import ChangeSpool


def state_root(stored: StoredPolicy, before_ms: int, salt: bytes) -> Root:
    """Have a log begin at its newest checkpoint before a time, unless it does; return the root.

    Args:
        stored: the policy, with its archive.
        before_ms: in milliseconds since 1970.
        salt: the service's secret.

    Raises:
        RetentionError: there is no such checkpoint, or something needs what is before it; or the
            policy is in several partitions: see ``state_roots``.
        BanditloopError: the log cannot be read, of which profiles are made.
    """
    spec, archive = spec_of_cuttable(stored)
    if stored.partitions > 1:
        raise RetentionError("the logs of several partitions begin together", "policy")
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
    demand_no_return(stored.history, checkpoint.position)

    profiles, rule = None, stored.part_rule(spec)
    if rule is not None:
        profiles = write_known_users(
            stored.history, stored.checkpoints, checkpoint.position, rule, salt
        )
    entry = stored.control(RootRecord(checkpoint.position, checkpoint.digest, profiles))
    learned, needed = checkpoint.learned, state.needed
    made = Root(checkpoint.position, checkpoint.digest, learned, needed, entry, profiles)
    stored.checkpoints.begin_at(made, archived=archive.end)
    return made


def write_known_users(
    history: History, checkpoints: Checkpoints, position: str, rule: CutRule, salt: bytes
) -> str | None:
    """Store what a log says of users through a position; return the digest of the file.

    Args:
        history: reads the log.
        checkpoints: those of the log.
        position: the root's.
        rule: what is worth keeping.
        salt: the service's secret.

    Raises:
        BanditloopError: the log cannot be read.
    """
    if history.archive is None:
        return None
    changes = PolicyChanges(history, LogPast(history, checkpoints), salt)
    with ChangeSpool(rule) as spool:
        for _, some in changes.through(position):
            spool.add(some)
        return write_root_parts(history.archive.files, spool.parts())


def spec_of_cuttable(stored: StoredPolicy) -> tuple[PolicySpec, ArchiveReader]:
    """Return the spec in force of a policy, and its log's archive.

    Raises:
        RetentionError: it has no archive, or has learned nothing yet.
    """
    policy = stored.keys.policy
    head = stored.head()
    if head is None:
        raise RetentionError(f"{policy} has no snapshot yet", "policy")
    archive = stored.history.archive
    if archive is None:
        raise RetentionError("the log is not archived: say where with --archive", "archive")
    return decode_spec(stored.history.blob(stored.find(head)[1].spec)), archive


def demand_no_return(history: History, position: str) -> None:
    """Refuse a root that a later entry goes behind: its replay would need what is before.

    Args:
        history: reads the log.
        position: the root's.

    Raises:
        RetentionError: one does.
    """
    for entry in changes_past(history, position):
        record = entry.record
        if isinstance(record, RollbackRecord) and is_after(position, record.position):
            raise RetentionError(
                f"the rollback at {entry.id} goes back to {record.position}, before the root at"
                f" {position}: take one that is later than the rollback",
                "before",
            )
        # The windows that were open there may be longer, under other signals.
        if isinstance(record, WarmStartRecord) and record.through is not None:
            raise RetentionError(
                f"at {entry.id} the log goes on as it was learned anew, with windows of before the"
                f" root at {position}: take one that is later than that",
                "before",
            )


def changes_past(history: History, position: str) -> Iterator[LogEntry]:
    """Yield the rollbacks and warm starts past a position; of the stream, all entries.

    Args:
        history: reads the log.
        position: the one to begin behind.
    """
    archive = history.archive
    if archive is not None:
        yield from archive.entries(position, kinds=["rollback", "warm_start"])
        position = max(position, archive.end, key=log_order)
    yield from history.encoded(position)
