"""``banditloop archive``: how much of a policy's log is archived, and its files made larger."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from serve_app.cli.options import (
    AND_POLICY,
    POLICY_AS_ARGUMENT,
    Archive,
    AsJson,
    DataDir,
    PolicyName,
    command_group,
    policy_name_of,
)
from serve_app.cli.terminal import progress_bar, progress_count

if TYPE_CHECKING:
    from serve_app.admin.archives import ArchiveCompaction, ArchiveSummary

app = command_group("Inspect the log's Parquet files, and make few large ones of many small.")


@app.command(
    "show",
    context_settings=POLICY_AS_ARGUMENT,
    options_metavar=AND_POLICY,
    short_help="Show how much of a policy's log is archived.",
)
def show_archive(
    context: typer.Context,
    policy: PolicyName = None,
    archive: Archive = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how much of a policy's log is archived: ranges, entries, bytes, from when to when."""
    from serve_app.admin.archives import archive_summary
    from serve_app.settings import Settings

    name = policy_name_of(policy, context)
    root = Settings.with_options(archive=archive, data_dir=data_dir).archive_root()
    with progress_count("ranges") as progress:
        task = progress.add_task("reading the archive")
        summary = archive_summary(root, name, lambda: progress.advance(task))

    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(summary)))
    else:
        typer.echo("\n".join(_lines(summary)))


@app.command(
    "compact",
    context_settings=POLICY_AS_ARGUMENT,
    options_metavar=AND_POLICY,
    short_help="Write the small files of an archive as larger ones.",
)
def compact_archive_files(
    context: typer.Context,
    policy: PolicyName = None,
    archive: Archive = None,
    data_dir: DataDir = None,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove", help="Then remove the archive's files that nothing needs any more"
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and remove nothing; say what would be written")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the small files of an archive as larger ones, of up to an hour and 500,000 entries.

    They are written beside the files that they are made of, which stay until --remove. Readers and
    the archiver go on meanwhile; it may be stopped at any time, and started again.
    """
    from serve_app.admin.archives import compact_archive
    from serve_app.settings import Settings

    name = policy_name_of(policy, context)
    root = Settings.with_options(archive=archive, data_dir=data_dir).archive_root()
    with progress_bar(transient=True) as progress:
        task = progress.add_task("listing", total=None)
        compaction = compact_archive(
            root,
            name,
            remove=remove,
            dry_run=dry_run,
            progress=lambda what, done, files: progress.update(
                task, description=what, completed=done, total=files
            ),
        )

    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(compaction)))
    else:
        typer.echo("\n".join(_compaction_lines(compaction, dry_run=dry_run)))


def _compaction_lines(compaction: "ArchiveCompaction", *, dry_run: bool) -> Iterator[str]:
    before, after, covered = compaction.before, compaction.after, compaction.covered

    yield f"policy   {compaction.policy}"
    yield f"before   {before.files} files, {before.size} bytes"
    size = "" if dry_run else f" {after.size} bytes,"
    yield f"after    {after.files} files,{size} {compaction.written} of them new"
    if dry_run:
        yield "         (nothing was written)"
    if compaction.removed.files:
        yield f"removed  {compaction.removed.files} files, {compaction.removed.size} bytes"
    if covered.files:
        yield (
            f"covered  {covered.files} files, {covered.size} bytes: not read any more, until"
            " --remove removes them"
        )


def _lines(summary: "ArchiveSummary") -> Iterator[str]:
    size, entries = summary.size, summary.entries
    in_stream = summary.record_bytes / entries

    yield f"policy   {summary.policy}"
    yield f"ranges   {summary.ranges}"
    yield f"entries  {entries}"
    yield f"bytes    {size} ({size / entries:.0f} per entry, {in_stream:.0f} in the stream)"
    yield f"from     {summary.first.time}  {summary.first.id}"
    yield f"to       {summary.last.time}  {summary.last.id}"
    for what, shared in (("items", summary.items), ("activity", summary.activity)):
        if shared.ranges:
            said = f"{shared.ranges} ranges, {shared.entries} entries, {shared.size} bytes"
            yield f"{what:8} {said}"
