"""``banditloop archive``: how much of a policy's log is archived."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import typer

from serve_app.cli.options import (
    POLICY_AS_ARGUMENT,
    Archive,
    AsJson,
    DataDir,
    PolicyName,
    command_group,
    policy_name_of,
)
from serve_app.cli.terminal import messages

if TYPE_CHECKING:
    from serve_app.admin.archives import ArchiveSummary

app = command_group("Inspect the log's Parquet files.")


@app.command(
    "show",
    context_settings=POLICY_AS_ARGUMENT,
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
    with messages.status("reading the archive"):
        summary = archive_summary(root, name)

    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(summary)))
    else:
        typer.echo("\n".join(_lines(summary)))


def _lines(summary: "ArchiveSummary") -> Iterator[str]:
    size, entries = summary.size, summary.entries
    in_stream = summary.record_bytes / entries

    yield f"policy   {summary.policy}"
    yield f"ranges   {summary.ranges}"
    yield f"entries  {entries}"
    yield f"bytes    {size} ({size / entries:.0f} per entry, {in_stream:.0f} in the stream)"
    yield f"from     {summary.first.time}  {summary.first.id}"
    yield f"to       {summary.last.time}  {summary.last.id}"
