"""``banditloop users``: copies of who the users of a space are, which no log could make again."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from serve_app.cli.options import (
    Archive,
    AsJson,
    DataDir,
    ProfileFiles,
    RedisUrl,
    SpaceName,
    command_group,
    out_file,
)
from serve_app.cli.terminal import output, progress_count, say

app = command_group("Copy who the users of policies with profiles are, and bring them back.")

Backups = Annotated[
    str | None,
    typer.Option("--backups", help="Folder or URI of the copies [default: DATA_DIR/users]"),
]


@app.command("backup", short_help="Copy who the users of a space are.")
def back_up_users(
    space: SpaceName = None,
    backups: Backups = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy who the users of a space are, as the service does by itself every so often.

    A copy says which random pseudonym is whose, to whoever has the salt and an id. It is kept for
    BANDITLOOP_USERS_BACKUP_RETAIN_S seconds, when the service runs.
    """
    from serve_app.admin.users.user_copies import opened_users

    with opened_users(space, redis_url, data_dir, backups) as users:
        with progress_count("users") as progress:
            task = progress.add_task("copying")
            backup = users.back_up(lambda count: progress.update(task, completed=count))
        if as_json:
            typer.echo(json.dumps(backup._asdict()))
            return
        say(("done", "green"), f"  {users.backups.where}/{backup.name}", on=output)


@app.command("list", short_help="List the copies that there are.")
def list_copies(
    space: SpaceName = None,
    backups: Backups = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the copies that there are, newest first: when each was begun, and its bytes."""
    from serve_app.admin.users.user_copies import opened_users

    with opened_users(space, redis_url, data_dir, backups) as users:
        found = users.chosen(None)
        if as_json:
            typer.echo(json.dumps([backup._asdict() for backup in found]))
            return
        for backup in found:
            moment = datetime.fromtimestamp(backup.made_ms / 1000, UTC)
            say(f"{backup.name}\t{moment:%Y-%m-%d %H:%M:%S}\t{backup.size:,} bytes", on=output)


@app.command("restore", short_help="Bring back who is in the copies, but for whom was erased.")
def restore_users(
    copy: Annotated[
        str | None, typer.Argument(help="Name of one copy [default: all, newest first]")
    ] = None,
    space: SpaceName = None,
    backups: Backups = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring back who is in the copies, but for whom was erased since.

    What is there stays: a user who has come back in between, as somebody new, is both. So it may be
    done again, and while the service runs. Of all copies each brings what the newer ones lack: one
    that was made just after a loss has hardly anybody.
    """
    from serve_app.admin.users.user_copies import opened_users
    from serve_app.store.users.restore import RestoredUsers

    with opened_users(space, redis_url, data_dir, backups) as users:
        outcome: dict[str, RestoredUsers] = {}
        with progress_count("users") as progress:
            task = progress.add_task("bringing back")
            for each in users.chosen(copy):
                outcome[each.name] = users.restore(
                    each, lambda count: progress.update(task, completed=count)
                )
        if as_json:
            typer.echo(json.dumps(msgspec.to_builtins(outcome)))
            return
        for name, came in outcome.items():
            say(f"{name}  {_said(msgspec.to_builtins(came))}", on=output)


@app.command("export", short_help="Write all that is held of a user, as JSON.")
def export_held(
    user: Annotated[str, typer.Argument(help="Id of the user, as callers send it")],
    out: Annotated[Path | None, out_file("File to write to [default: standard output]")] = None,
    space: SpaceName = None,
    archive: Archive = None,
    profiles: ProfileFiles = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write all that is held of a user, as JSON: what the HTTP API gives, with every entry.

    Where the logs are long this takes a while: all of the archive is looked through.
    """
    from policies.profiles.category_counts import CategoryCounts, with_counts
    from policies.pseudonyms import check_user_id
    from serve_app.admin.spaces import known_secret, opened_space
    from serve_app.admin.users.user_export import export_user
    from serve_app.settings import Settings
    from serve_app.store.items.history import items_now

    check_user_id(user)
    with opened_space(space, redis_url, data_dir) as (client, found, settings):
        where = settings if archive is None else Settings.with_options(archive=archive)
        with progress_count("entries") as progress:
            task = progress.add_task("reading the logs")
            held = export_user(
                client,
                found,
                user,
                salt=known_secret(settings),
                archive=where.archive_root(),
                files=profiles or (),
                progress=lambda count: progress.update(task, completed=count),
            )
        items, counts = items_now(client, found.name), CategoryCounts()
        for event in held.profile.events:
            counts.add(items.item(event.item_id))
        held = with_counts(held, counts)
    data = msgspec.json.format(msgspec.json.encode(held))
    if out is None:
        typer.echo(data.decode())
        return
    out.touch(mode=0o600)
    out.write_bytes(data + b"\n")
    say(("done", "green"), f"  {len(held.entries):,} entries in {out}", on=output)


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nobody"
