"""The work of ``banditloop report``: open the log, read it, and have the doctor look at it."""

import contextlib
from collections.abc import Sequence

from pyarrow.fs import FileSystem

from bandits.errors import DataUnavailableError
from bandits.log.positions import START
from policies.archive.archive import ArchiveReader, archive_folders
from serve_app.admin.archives import archived_policy_name
from serve_app.admin.readable_logs import position_since
from serve_app.admin.stored_policy import chosen_policy
from serve_app.admin.whole_logs import whole_log
from serve_app.cli.doctor.examination import run_doctor
from serve_app.cli.report.command import ReportOptions
from serve_app.cli.terminal import messages, progress_count
from serve_app.host.embedded import any_redis
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, blocking_client
from serve_app.store.reachable import no_redis
from simulator.doctor.checks.findings import Finding
from simulator.report.closer import look_closely
from simulator.report.gather import PolicyRows, read_policy
from simulator.report.make import policy_report_of
from simulator.report.report import PolicyReport

EXAMINED = 10_000
"""Entries that the doctor looks at, the newest, or a file more: it decodes every one."""


def run_report(options: ReportOptions, policy: str | None) -> PolicyReport:
    """Report on a policy, with a count of what was read.

    Args:
        options: of the command.
        policy: the policy's name; None for the only one there is.

    Raises:
        BanditloopError: an option is at fault, or the log cannot be read.
    """
    settings = Settings.with_options(redis_url=options.redis_url, data_dir=options.data_dir)
    if options.archive is not None:
        name = archived_policy_name(options.archive, policy)
        return _reported(options, settings, name, options.archive)

    with any_redis(settings) as url:
        settings = settings.model_copy(update={"redis_url": url})
        try:
            with contextlib.closing(blocking_client(url)) as client:
                name = chosen_policy(client, policy)
                with whole_log(client, name, settings.archive_root()) as root:
                    return _reported(options, settings, name, root)
        except REDIS_ERRORS as error:
            raise no_redis(url, error, settings.redis_timeout_s) from error


def _reported(
    options: ReportOptions, settings: Settings, name: str, root: "str | FileSystem"
) -> PolicyReport:
    readers = [ArchiveReader(root, folder) for folder in archive_folders(root, name)]
    ends = [reader.end for reader in readers]
    if all(end == START for end in ends):
        raise DataUnavailableError(f"the log of {name!r} is empty", "policy")
    after = position_since(options.since, max(ends, key=lambda end: int(end.partition("-")[0])))
    with progress_count("decisions") as progress:
        task = progress.add_task("reading the log", total=None)
        rows = read_policy(
            root,
            name,
            after=after,
            by=options.by or (),
            progress=lambda count: progress.update(task, completed=count),
        )
        progress.update(task, description="looking closely")
        closer = look_closely(root, name, after)
    findings = _findings(options, settings, name, readers, rows)
    return policy_report_of(name, rows, alpha=options.alpha, closer=closer, findings=findings)


def _findings(
    options: ReportOptions,
    settings: Settings,
    name: str,
    readers: Sequence[ArchiveReader],
    rows: PolicyRows,
) -> Sequence[Finding]:
    """Return what the doctor finds in the newest entries."""
    if not options.with_doctor or not len(rows):
        return ()
    found = run_doctor(
        name,
        settings,
        archive=options.archive,
        salt_files=[],
        since=min((_newest(reader) for reader in readers), key=lambda at: int(at.split("-")[0])),
        limit=None,
        console=messages,
    )
    return found.findings


def _newest(reader: ArchiveReader) -> str:
    """Return the position before the newest EXAMINED entries, or a file's start before that."""
    left = EXAMINED
    for stored in reversed(reader.ranges()):
        left -= stored.range.count
        if left <= 0:
            return stored.range.previous
    return START
