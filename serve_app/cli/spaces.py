"""``banditloop spaces``: the policies that share users and items, and one of them leaving."""

import json
from typing import Annotated

import msgspec
import typer

from serve_app.cli.options import AsJson, DataDir, RedisUrl, SpaceName, command_group
from serve_app.cli.roots import Age, RemoveOlder, say_root
from serve_app.cli.terminal import empty_table, output, progress_count, say

app = command_group("See which policies share a space, and have one leave that is gone for good.")


@app.command("show", short_help="Show the policies of a space.")
def show_space(
    space: SpaceName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the policies of a space, whether each is learned, and what profiles lack of it.

    Policies that say neither ``space`` nor ``profile`` share nothing, and are not shown.
    """
    from serve_app.admin.spaces import opened_space
    from serve_app.admin.users.members import member_states

    with opened_space(space, redis_url, data_dir) as (client, found, _):
        states = member_states(client, found)
        if as_json:
            said = {"space": found.name, "policies": msgspec.to_builtins(states)}
            typer.echo(json.dumps(said))
            return
        table = empty_table(
            *("policy", "logs", "led", "profiles"), title=found.name, numbers=("logs", "led")
        )
        for each in states:
            said_of = f"{each.missing} being made" if each.missing else "whole"
            table.add_row(
                each.policy,
                str(each.partitions),
                str(each.led),
                said_of if each.profiles else "none",
            )
        output.print(table)


@app.command("leave", short_help="Have a policy that is no longer served leave its space.")
def leave_space(
    policy: Annotated[str, typer.Argument(help="Name of the policy")],
    space: SpaceName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have a policy that is no longer served leave its space: nobody waits for it any more.

    Until then profiles that are made anew, and erasures, wait for its learner. What its log says
    of users is taken out of profiles; the log stays. Served again, it is back.
    """
    from serve_app.admin.spaces import opened_space
    from serve_app.admin.users.members import leave

    with opened_space(space, redis_url, data_dir) as (client, found, _):
        with progress_count("profiles") as progress:
            task = progress.add_task("taking it out")
            count = leave(client, found, policy, lambda done: progress.update(task, completed=done))
        say(
            ("done", "green"),
            f"  {policy} has left {found.name}, and {count:,} profiles",
            on=output,
        )


@app.command("root", short_help="Have the log of activity begin at a root, which the log names.")
def state_activity_log_root(
    age: Age,
    space: SpaceName = None,
    remove: RemoveOlder = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have a space's log of activity begin at its newest entry that is as old: its root.

    The root is an entry of the log. It names a file of what was known of users there, and the
    counts of what was in demand, which the archive keeps. Profiles need nothing of what is before;
    refresh and exports of users read the archive's files from the first that is there. The logs of
    policies have roots of their own: see banditloop snapshots root.
    """
    from bandits.durations import duration_ms
    from policies.archive.archive import ArchiveReader
    from policies.archive.shared import shared_folder
    from serve_app.admin.roots.older_files import older_files, remove_older
    from serve_app.admin.spaces import opened_space
    from serve_app.store.activity.root import state_activity_root
    from serve_app.store.clients import now_ms
    from serve_app.store.keys import ActivityKeys

    with opened_space(space, redis_url, data_dir) as (client, found, settings):
        archive, folder = settings.archive_root(), shared_folder(found.name, "activity")
        reader = ArchiveReader(archive, folder) if archive else None
        before_ms = now_ms(client, ActivityKeys(found.name).log) - duration_ms(age)
        root = state_activity_root(client, found, reader, before_ms)
        older = (remove_older if remove else older_files)(root, archive, folder)
    say_root(root.position, root.digest, older, removed=remove)
