"""``banditloop spaces``: the policies that share users and items, and one of them leaving."""

import json
from typing import Annotated

import msgspec
import typer

from serve_app.cli.options import AsJson, DataDir, RedisUrl, SpaceName, command_group
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
