"""The work of ``banditloop report``: open the log, read it, and have the doctor look at it."""

import contextlib
import ctypes
import gc
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
from pyarrow.fs import FileSystem
from rich.progress import Progress, TaskID

from bandits.errors import DataUnavailableError
from bandits.log.positions import START, log_order
from policies.archive.archive import ArchiveReader, archive_folders
from policies.shadows.files import PolicyShadows
from serve_app.admin.archives import archived_policy_name
from serve_app.admin.readable_logs import position_since
from serve_app.admin.stored_policy import chosen_policy
from serve_app.admin.whole_logs import whole_log
from serve_app.cli.doctor.examination import run_doctor
from serve_app.cli.report.command import ReportOptions
from serve_app.cli.terminal import messages, progress_count
from serve_app.host.embedded import any_redis
from serve_app.host.lean_ray import pandas_hidden
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, blocking_client
from serve_app.store.reachable import no_redis
from simulator.doctor.checks.findings import Finding
from simulator.report.closer import look_closely, newest_after
from simulator.report.fairness import exposure_field, exposure_report
from simulator.report.gather import PolicyRows, read_policy
from simulator.report.item_groups import groups_of_items
from simulator.report.make import policy_report_of
from simulator.report.report import PolicyReport
from simulator.report.shadows.estimating import shadow_worths

EXAMINED = 10_000
"""Entries that the doctor looks at, the newest of all partitions: it decodes every one."""


def run_report(options: ReportOptions, policy: str | None) -> PolicyReport:
    """Report on a policy, with a count of what was read.

    Args:
        options: of the command.
        policy: the policy's name; None for the only one there is.

    Raises:
        BanditloopError: an option is at fault, or the log cannot be read.
    """
    settings = Settings.with_options(redis_url=options.redis_url, data_dir=options.data_dir)
    with pandas_hidden():
        if options.archive is not None:
            name = archived_policy_name(options.archive, policy)
            return _reported(options, settings, name, options.archive)
        return _reported_live(options, settings, policy)


def _reported_live(options: ReportOptions, settings: Settings, policy: str | None) -> PolicyReport:
    """Report on a policy of a service: what is archived, and what is not yet."""
    with any_redis(settings) as url:
        settings = settings.model_copy(update={"redis_url": url})
        try:
            with contextlib.ExitStack() as stack:
                client = stack.enter_context(contextlib.closing(blocking_client(url)))
                name = chosen_policy(client, policy)
                with progress_count("entries") as progress:
                    task = progress.add_task("reading what is not archived yet", total=None)
                    show = partial(_show, progress, task)
                    root = stack.enter_context(
                        whole_log(client, name, settings.archive_root(), show)
                    )
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
    after = position_since(options.since, max(ends, key=log_order))

    with progress_count("decisions") as progress:
        # A closer look takes memory, which is given back before all decisions are there.
        task = progress.add_task("looking closely", total=None)
        closer = look_closely(root, name, after)
        _give_memory_back()
        progress.update(task, description="reading the log")
        rows = read_policy(
            root,
            name,
            after=after,
            by=options.by or (),
            progress=partial(_show, progress, task),
            between=_give_memory_back,
        )
        shadows = PolicyShadows(options.archive or settings.shadows_root(), name)
        progress.update(task, description="estimating shadows")
        worths = shadow_worths(root, name, shadows, after=after, alpha=options.alpha)

    findings = _findings(options, settings, name, readers, rows)
    field = options.group or exposure_field(rows)
    exposure = None
    if field is not None:
        exposure = exposure_report(rows, field, groups_of_items(root, name, rows.catalogue, field))

    return policy_report_of(
        name,
        rows,
        alpha=options.alpha,
        closer=closer,
        findings=findings,
        exposure=exposure,
        shadows=worths,
    )


def _give_memory_back() -> None:
    """Give the system what was freed: a closer look leaves a quarter of its memory in pieces."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    # As glibc has it; another library keeps what it likes.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _show(progress: Progress, task: TaskID, count: int) -> None:
    progress.update(task, completed=count)


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
    count = EXAMINED // len(readers)
    found = run_doctor(
        name,
        settings,
        archive=options.archive,
        salt_files=[],
        since=min((newest_after(reader, count) for reader in readers), key=log_order),
        limit=None,
        console=messages,
    )
    return found.findings
