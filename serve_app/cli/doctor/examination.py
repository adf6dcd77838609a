"""The examination of ``banditloop doctor``: find a log and its salts, and have them checked."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

from bandits.errors import (
    ArchiveError,
    BanditloopError,
    DataUnavailableError,
    LogGapError,
    StartupError,
    plain,
)
from bandits.log.codec import digest
from bandits.log.positions import position_ms
from bandits.log.records import LogEntry
from policies.archive.archive import ArchiveReader, archive_folder, archive_folders
from policies.archive.shared import archived_items
from policies.items.past import ItemsLog, ItemsPast
from serve_app.admin.archives import archived_policy_name
from serve_app.admin.readable_logs import ArchivedLog, LiveLog, position_since
from serve_app.admin.stored_policy import chosen_policy
from serve_app.cli.terminal import text_column
from serve_app.host.build import this_build
from serve_app.host.embedded import any_redis, running_url
from serve_app.replica.metrics import EXPIRE_S
from serve_app.settings import MIN_SALT_BYTES, Settings
from serve_app.store.clients import REDIS_ERRORS, Redis, blocking_client
from serve_app.store.items.history import items_of_policy
from serve_app.store.keys import Keys, partitions
from serve_app.store.merges import partition_count
from serve_app.store.reachable import no_redis
from simulator.doctor.checks.archived_columns import archived_columns
from simulator.doctor.checks.findings import DoctorReport, Finding
from simulator.doctor.checks.freshness import LiveStatus
from simulator.doctor.checks.items import items_log
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.control_states import ControlStates
from simulator.doctor.examine import (
    combine_reports,
    examine,
    unexaminable_report,
    with_findings,
)

ATTEMPTS = 5
"""A log may be trimmed past its reader; then it is read again, this often."""
PROGRESS_EVERY = 200
"""Entries between two updates of the progress bar."""


def run_doctor(
    policy: str | None,
    settings: Settings,
    *,
    archive: str | None,
    salt_files: Sequence[Path],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    """Examine a policy's log; the report says so if that is not possible.

    Args:
        policy: Name of the policy; None for the only one there is.
        settings: Where Redis, the archive and the salt are.
        archive: Folder or URI of an archive to read instead of Redis.
        salt_files: Files of the service's salts; without any, the salt of the settings is used.
        since: What to skip, as ``position_since`` takes it.
        limit: Entries to read at most.
        console: Where progress is shown.
    """
    # An error is a report as well, so that a program finds every outcome in the same place.
    try:
        examination = Examination(_salts(settings, salt_files), since, limit, console)
        if archive is not None:
            return _examine_archive(policy, archive, examination)

        return _examine_redis(policy, settings, examination)
    except REDIS_ERRORS as error:
        return _without_redis(policy, settings, error)
    except (BanditloopError, OSError) as error:
        return unexaminable_report(
            policy,
            plain(error),
            "see banditloop doctor --help for where logs and salts are looked for",
        )


@dataclass(frozen=True, slots=True)
class Examination:
    """How logs are examined. ``salts``: those of the service, by the id that the log names.

    ``since``: what to skip, as ``position_since`` takes it. ``limit``: entries to read at most.
    ``states``: of the quotas' controller, which the first partition says.
    """

    salts: Mapping[str, bytes]
    since: str | None
    limit: int | None
    console: Console
    states: ControlStates = field(default_factory=ControlStates)

    def of_live(self, client: Redis, keys: Keys, count: int, root: str) -> DoctorReport:
        """Examine the log of one partition as it stands in Redis.

        Args:
            client: Redis of the service.
            keys: Keys of the partition.
            count: Number of the policy's partitions.
            root: Folder or URI of the archive; empty where nothing is archived.

        Raises:
            DataUnavailableError: The log is empty, or trimmed faster than it is read.
        """
        folder = archive_folder(keys.policy, keys.partition, count)
        archive = ArchiveReader(root, folder) if root else None

        # A log that was trimmed past its reader is read again from where it starts by now.
        for _ in range(ATTEMPTS):
            log = LiveLog(client, keys, archive)
            items = ItemsPast(items_of_policy(client, keys.policy, root))
            stored = ReferencedBlobs(log.blob, log.snapshot, log.listed_snapshots, items)
            try:
                return self._of(log, stored, _live_state(log, merged=count > 1), archive)
            except LogGapError:
                continue

        raise DataUnavailableError(
            f"the log of {keys.policy!r} is trimmed faster than it is read: use --since, or"
            " --archive",
            "since",
        )

    def of_archived(self, log: ArchivedLog, items: ArchiveReader) -> DoctorReport:
        """Examine an archived log.

        Args:
            log: The log.
            items: The archive of the log of its policy's items.
        """
        stored = ReferencedBlobs(log.blob, items=ItemsPast(items))
        return self._of(log, stored, None, log.archive)

    def with_items(self, report: DoctorReport, items: ItemsLog, end: str) -> DoctorReport:
        """Return a policy's report with what is found in the log of its items.

        Args:
            report: On its own log.
            items: The log of its items.
            end: The position of the last entry of that one.
        """
        with _progress(self.console, end) as progress:
            return with_findings(report, list(items_log(items, progress)))

    def _of(
        self,
        log: LiveLog | ArchivedLog,
        stored: ReferencedBlobs,
        live: LiveStatus | None,
        archive: ArchiveReader | None,
    ) -> DoctorReport:
        found: list[Finding] = []
        if archive is not None:
            with _bar(self.console, "comparing the archive's columns") as update:
                found += archived_columns(archive, update)

        after = position_since(self.since, log.end)
        try:
            with _progress(self.console, log.end) as progress:
                report = examine(
                    islice(log.entries(after), self.limit),
                    policy=log.name,
                    salts=self.salts,
                    stored=stored,
                    live=live,
                    build=this_build(),
                    states=self.states,
                    undecodable=log.undecodable,
                    progress=progress,
                )
        except ArchiveError as error:
            # Files that cannot be read to their end are told of with what is known to be wrong.
            if not any(finding.severity == "failure" for finding in found):
                raise
            message, _, action = error.message.rpartition(": ")
            report = unexaminable_report(log.name, message, action)
        return with_findings(report, found)


def _examine_redis(
    policy: str | None, settings: Settings, examination: Examination
) -> DoctorReport:
    with ExitStack() as stack:
        url = stack.enter_context(any_redis(settings))
        client = stack.enter_context(closing(blocking_client(url)))
        name = chosen_policy(client, policy)
        count, root = partition_count(client, name), settings.archive_root()

        reports = [
            examination.of_live(client, keys, count, root) for keys in partitions(name, count)
        ]
        report = reports[0] if count == 1 else combine_reports(name, reports)
        items = items_of_policy(client, name, root)
        return examination.with_items(report, items, items.end())


def _examine_archive(policy: str | None, archive: str, examination: Examination) -> DoctorReport:
    name = archived_policy_name(archive, policy)
    items = archived_items(archive, name)
    reports = [
        examination.of_archived(ArchivedLog(archive, folder), items)
        for folder in archive_folders(archive, name)
    ]
    report = reports[0] if len(reports) == 1 else combine_reports(name, reports)
    return examination.with_items(report, items, items.end)


def _live_state(log: LiveLog, *, merged: bool) -> LiveStatus:
    """Return what the service says of itself.

    ``merged``: whether what is served comes from a merge of several partitions; then it has learned
    of each partition what that one gave to the newest merge.
    """
    stats = log.stats()
    return LiveStatus(
        end=log.end,
        clock_ms=log.now_ms(),
        running=log.is_running(within_s=EXPIRE_S),
        position=stats.position if stats else None,
        head=log.merged_position() if merged else log.served_position(),
        learned=stats.learned if stats else 0,
        snapshots=stats.snapshots if stats else 0,
        stalled=log.stall(),
        refused=log.refusals(),
        prior=stats.prior if stats else None,
        refresh=log.refresh(),
    )


def _without_redis(policy: str | None, settings: Settings, error: Exception) -> DoctorReport:
    """DoctorReport that Redis failed, and what to do."""
    url = settings.redis_url or running_url(settings.data_dir / "valkey")
    if url is None:
        text = f"the embedded Valkey does not answer ({plain(error)}): see that it runs"
    else:
        text = no_redis(url, error, settings.redis_timeout_s).message

    message, _, action = text.rpartition(": ")
    return unexaminable_report(policy, message, action)


def _salts(settings: Settings, files: Sequence[Path]) -> dict[str, bytes]:
    """Return the salts by the id under which the log names them.

    No salt is made where there is none: one that drew nothing is of no use.
    """
    salts = []
    for path in files:
        salt = path.read_bytes()[:64]
        if len(salt) < MIN_SALT_BYTES:
            raise StartupError(f"{path}: a salt has at least {MIN_SALT_BYTES} bytes", "salt_file")
        salts.append(salt)

    if not files and (settings.salt is not None or (settings.data_dir / "salt").exists()):
        salts.append(settings.secret())
    return {digest(salt): salt for salt in salts}


@contextlib.contextmanager
def _bar(console: Console, text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of what is done of how much, on a terminal only."""
    bar = Progress(
        text_column(text),
        BarColumn(40),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


@contextlib.contextmanager
def _progress(console: Console, end: str) -> Iterator[Callable[[LogEntry], None]]:
    """Show a bar over the log's time up to ``end``."""
    with _bar(console, "reading the log") as update:
        start_ms, count = 0, 0

        def advance(entry: LogEntry) -> None:
            nonlocal start_ms, count
            start_ms, count = start_ms or entry.time_ms, count + 1
            if count % PROGRESS_EVERY == 0:
                update(entry.time_ms - start_ms, max(1, position_ms(end) - start_ms))

        yield advance
