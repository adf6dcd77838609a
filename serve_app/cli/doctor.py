"""``banditloop doctor``: finds the log, the salts and what is stored beside it.

The simulator examines them.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bandits.errors import (
    BanditloopError,
    CodecError,
    DataUnavailableError,
    LogGapError,
    MissingBlobError,
    StartupError,
    plain,
)
from bandits.log.codec import digest
from bandits.log.positions import START, is_after, position_at, position_ms
from bandits.log.records import LogEntry
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader, archive_folder, archive_folders
from policies.fold.checkpoint import Refusal
from serve_app.admin.stored_policy import the_policy
from serve_app.cli.archive import archived_policy
from serve_app.cli.terminal import table as new_table
from serve_app.cli.terminal import words
from serve_app.host.build import this_build
from serve_app.host.embedded import any_redis, running_url
from serve_app.replica.metrics import EXPIRE_S
from serve_app.settings import MIN_SALT_BYTES, Settings
from serve_app.store import progress as learning
from serve_app.store.archived import Committed
from serve_app.store.clients import REDIS_ERRORS, Redis, blocking_client
from serve_app.store.event_log import LogReader
from serve_app.store.history import History
from serve_app.store.keys import PROCESSES, Keys, partitions
from serve_app.store.merges import partition_count, read_merge
from serve_app.store.reachable import no_redis
from serve_app.store.snapshots import Head, decode_published
from serve_app.store.stats import Stats
from simulator.doctor.checks.findings import DoctorReport
from simulator.doctor.checks.freshness import LiveStatus
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.examine import combine_reports, examine, unexaminable_report

TRUSTED, UNTRUSTED, UNEXAMINED, UNPROVED = 0, 1, 2, 3
STYLES = {"ok": "green", "nothing": "cyan", "warning": "yellow", "failure": "bold red"}
ATTEMPTS = 5
"""A log may be trimmed past its reader, and a snapshot replaced while it is looked up: then it is looked at again."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PROGRESS_EVERY = 200

Kind = TypeVar("Kind")


def run_doctor(
    policy: str | None,
    settings: Settings,
    *,
    archive: str | None,
    salt_files: list[Path],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    """Examine a policy's log, live or archived; a report that says so if that is not possible."""
    try:
        salts = _salts(settings, salt_files)
        if archive is not None:
            return _examine_archive(policy, archive, salts, since, limit, console)
        with ExitStack() as stack:
            url = stack.enter_context(any_redis(settings))
            client = stack.enter_context(closing(blocking_client(url)))
            return _examine_live(
                policy, client, settings.archive_root(), salts, since, limit, console
            )
    except REDIS_ERRORS as error:
        there = settings.redis_url or running_url(settings.data_dir / "valkey")
        said = f"the embedded Valkey does not answer ({plain(error)}): see that it runs"
        if there is not None:
            said = no_redis(there, error, settings.redis_timeout_s).message
        message, _, action = said.rpartition(": ")
        return unexaminable_report(policy, message, action)
    except (BanditloopError, OSError) as error:
        return unexaminable_report(
            policy,
            plain(error),
            "see banditloop doctor --help for where logs and salts are looked for",
        )


def status(report: DoctorReport, demanded: Collection[str] = ()) -> int:
    """The command's exit status. ``demanded``: checks that must have had something to check."""
    if report.trusted is False:
        return UNTRUSTED
    if not report.decisions:
        return UNEXAMINED
    looked = {finding.check for finding in report.findings if finding.severity != "nothing"}
    return TRUSTED if report.trusted and looked.issuperset(demanded) else UNPROVED


def table(report: DoctorReport) -> Table:
    """The report for a person: every finding, and of those that are not well the cause and what to do."""
    verdict = {True: "can be trusted", False: "cannot be trusted", None: "could not be examined"}[
        report.trusted
    ]
    if report.trusted is None and report.decisions:
        verdict = "shows no fault, and nothing that could be derived again"
    if report.unchecked:
        verdict += f"; nothing to check: {', '.join(report.unchecked)}"
    title = f"the log of {report.policy or 'no policy'}, {report.decisions:,} decisions, {verdict}"
    made = new_table("check", "", "finding", title=title, whole=("check", ""), show_lines=True)
    for finding in report.findings:
        said = Text(finding.message)
        if finding.cause:
            said.append("\nwhy", "dim").append(f"  {finding.cause}")
        if finding.action:
            said.append("\ndo", "dim").append(f"   {finding.action}")
        made.add_row(finding.check, Text(finding.severity, STYLES[finding.severity]), said)
    return made


def _examine_live(
    policy: str | None,
    client: Redis,
    archive: str,
    salts: dict[str, bytes],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    name = the_policy(client, policy)
    count = partition_count(client, name)
    found = []
    for keys in partitions(name, count):
        reader = (
            ArchiveReader(archive, archive_folder(name, keys.partition, count)) if archive else None
        )
        found.append(
            _examine_log(
                History(client, keys, reader), client, keys, count, salts, since, limit, console
            )
        )
    return found[0] if count == 1 else combine_reports(name, found)


def _examine_log(
    history: History,
    client: Redis,
    keys: Keys,
    count: int,
    salts: dict[str, bytes],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    """One partition's log, out of ``count``."""
    for _ in range(ATTEMPTS):
        try:
            return _examine_once(history, client, keys, count, salts, since, limit, console)
        except LogGapError:
            continue
    raise DataUnavailableError(
        f"the log of {keys.policy!r} is trimmed faster than it is read: use --since, or --archive",
        "since",
    )


def _examine_once(
    history: History,
    client: Redis,
    keys: Keys,
    count: int,
    salts: dict[str, bytes],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    reader = LogReader(client, keys)
    ends: Any = client.xrevrange(keys.log, count=1)
    if not ends:
        raise DataUnavailableError(f"the log of {keys.policy!r} is empty", "policy")
    last = str(ends[0][0].decode())
    with _watching(console, last) as watch:
        return examine(
            islice(_read(client, keys, reader, _after(since, last), last), limit),
            policy=keys.policy,
            salts=salts,
            stored=_stored(client, Keys(keys.policy), history),
            live=_live(client, keys, reader, last)
            if count == 1
            else _live_partition(client, keys, reader, last),
            build=this_build(),
            undecodable=lambda: reader.undecodable,
            progress=watch,
        )


def _read(
    client: Redis, keys: Keys, reader: LogReader, after: str, through: str
) -> Iterator[LogEntry]:
    """Entries after one id up to and with another, which stays where it is while the log grows.

    Raises:
        LogGapError: it was trimmed past what was read of it, so entries are missing in between.
    """
    before, begun = Committed.read(client, keys).trimmed, False
    while entries := reader.read(after):
        # after the read: so it holds of what was read
        trimmed = Committed.read(client, keys).trimmed
        if begun and trimmed != before and is_after(trimmed, after):
            raise LogGapError(f"the log of {keys.policy} was trimmed past {after}", "log")
        for entry in entries:
            if is_after(entry.id, through):
                return
            yield entry
        after, begun = entries[-1].id, True
    if begun and is_after(through, after):
        raise LogGapError(f"the log of {keys.policy} was trimmed past {after}", "log")


def _stored(client: Redis, keys: Keys, history: History) -> ReferencedBlobs:
    """``keys``: of partition 0, where the snapshots are."""
    snapshots = LogReader(client, keys)

    def listed() -> frozenset[str]:
        raw: Any = client.lrange(keys.snapshots, 0, -1)
        return frozenset(name.decode() for name in raw)

    def blob(name: str) -> bytes | None:
        try:
            return history.blob(name)
        except BanditloopError:
            return None

    def snapshot(name: str) -> Snapshot | None:
        try:
            data = snapshots.blob(name)
        except MissingBlobError:
            return None
        return decode_published(data, name).snapshot

    return ReferencedBlobs(blob, snapshot, listed)


def _live(client: Redis, keys: Keys, reader: LogReader, end: str) -> LiveStatus:
    recently = time.time() - EXPIRE_S
    raw: list[Any] = [client.get(keys.stats), client.zcount(PROCESSES, recently, "+inf")]
    stats = _decoded(raw[0], Stats)
    stalled, refused = _learning(client, keys)
    return LiveStatus(
        end=end,
        clock_ms=reader.now_ms(),
        running=bool(raw[1]),
        position=stats.position if stats else None,
        head=_head(client, keys, reader),
        learned=stats.learned if stats else 0,
        snapshots=stats.snapshots if stats else 0,
        stalled=stalled,
        refused=refused,
    )


def _learning(client: Redis, keys: Keys) -> tuple[str | None, tuple[str, ...]]:
    """Where learning stands still, and what was refused last, in words."""
    raw: Any = client.get(keys.progress)
    listed: Any = client.lrange(keys.refusals, 0, -1)
    progress, refusals = (
        _decoded(raw, learning.Progress),
        [_decoded(each, Refusal) for each in listed],
    )
    stall = None if progress is None else progress.stall
    stalled = None if stall is None else f"the {stall.kind} at {stall.position}: {stall.reason}"
    return stalled, tuple(
        f"the {each.kind} at {each.position}: {each.reason}" for each in refusals if each
    )


def _live_partition(client: Redis, keys: Keys, reader: LogReader, end: str) -> LiveStatus:
    """Of one partition: what is served has learned of its log up to where it gave to the newest merge."""
    live, merge = _live(client, keys, reader, end), read_merge(client, Keys(keys.policy))
    given = None if merge is None else merge.inputs[keys.partition]
    return replace(live, head=None if given is None else given.position)


def _head(client: Redis, keys: Keys, reader: LogReader) -> str | None:
    """The position of what is served."""
    for _ in range(ATTEMPTS):
        raw: Any = client.get(keys.head)
        head = _decoded(raw, Head)
        if head is None:
            return None
        try:
            return decode_published(reader.blob(head.snapshot_id), head.snapshot_id).position
        # another is served by now; or it is gone or damaged: a finding of its own
        except BanditloopError:
            continue
    return None


def _decoded(data: bytes | None, kind: type[Kind]) -> Kind | None:
    """What cannot be read says as little as what is not there."""
    try:
        return None if data is None else msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None


def _salts(settings: Settings, files: list[Path]) -> dict[str, bytes]:
    """By the id under which the log names them.

    Makes none: a salt that did not draw is of no use.
    """
    found = []
    for path in files:
        found.append(path.read_bytes()[:64])
        if len(found[-1]) < MIN_SALT_BYTES:
            raise StartupError(f"{path}: a salt has at least {MIN_SALT_BYTES} bytes", "salt_file")
    if not files and (settings.salt is not None or (settings.data_dir / "salt").exists()):
        found.append(settings.secret())
    return {digest(salt): salt for salt in found}


def _after(since: str | None, last: str) -> str:
    """The entry id to begin after.

    ``since``: an id, a time (ISO 8601, by default UTC), or how long before the end.
    """
    if since is None:
        return START
    if re.fullmatch(r"\d+-\d+", since):
        return since
    if span := re.fullmatch(r"(\d+)([smhd])", since):
        return position_at(position_ms(last) - 1000 * int(span[1]) * UNITS_S[span[2]])
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise DataUnavailableError(
            f"--since {since!r} is no entry id, span (90s, 30m, 24h, 7d) or time", "since"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return position_at(round(1000 * moment.timestamp()))


@contextmanager
def _watching(console: Console, last: str) -> Iterator[Callable[[LogEntry], None]]:
    """A bar over the log's time up to ``last``, on a terminal only."""
    columns = (words("reading the log"), BarColumn(40), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        start, seen = 0, 0

        def watch(entry: LogEntry) -> None:
            nonlocal start, seen
            start, seen = start or entry.time_ms, seen + 1
            if seen % PROGRESS_EVERY == 0:
                bar.update(
                    task, total=max(1, position_ms(last) - start), completed=entry.time_ms - start
                )

        yield watch


def _examine_archive(
    policy: str | None,
    archive: str,
    salts: dict[str, bytes],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    name = archived_policy(archive, policy)
    found = [
        _examine_folder(folder, archive, salts, since, limit, console)
        for folder in archive_folders(archive, name)
    ]
    return found[0] if len(found) == 1 else combine_reports(name, found)


def _examine_folder(
    policy: str,
    archive: str,
    salts: dict[str, bytes],
    since: str | None,
    limit: int | None,
    console: Console,
) -> DoctorReport:
    reader = ArchiveReader(archive, policy)
    last, undecodable = reader.end, 0
    if last == START:
        raise DataUnavailableError(f"{archive} holds no log of a policy {policy!r}", "archive")

    def count(_entry_id: str, _error: CodecError) -> None:
        nonlocal undecodable
        undecodable += 1

    def blob(name: str) -> bytes | None:
        try:
            return reader.blob(name)
        except BanditloopError:
            return None

    with _watching(console, last) as watch:
        return examine(
            islice(reader.entries(_after(since, last), last, on_undecodable=count), limit),
            policy=policy,
            salts=salts,
            stored=ReferencedBlobs(blob),
            build=this_build(),
            undecodable=lambda: undecodable,
            progress=watch,
        )
