"""``banditloop profiles``: compare profiles of users with the logs, and make them anew."""

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from serve_app.cli.options import AsJson, DataDir, RedisUrl, SpaceName, command_group
from serve_app.cli.terminal import empty_table, output, progress_bar, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from serve_app.admin.users.profile_parts import ProfileParts
    from serve_app.store.profiles.verification import PartVerdict

app = command_group("Compare profiles of users with the logs, and make them anew.")

STEPS = 1000
"""Steps of a bar."""
LOOK_S = 0.2
NOT_YET = 3
"""Exit status when some part is not whole: it is being made, or waits for a learner."""


@app.command("verify", short_help="Compare all profiles with a replay of the logs.")
def verify_profiles(
    space: SpaceName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Read all logs of a space from their beginning, and compare every user's profile with them.

    Each log has a part of a profile to itself. It has to be the same byte for byte, also while
    the service goes on.

    Exit status 0: all are the same. 1: some differ. 3: some part is being made, or no policy of
    the space has profiles.
    """
    from serve_app.admin.spaces import opened_space
    from serve_app.admin.users.profile_parts import ProfileParts

    with opened_space(space, redis_url, data_dir) as (client, found, settings):
        parts = ProfileParts(client, found, settings)
        clock = time.perf_counter()
        verdicts = []
        with progress_bar(transient=True) as bar:
            for part in parts.names:
                task = bar.add_task(f"reading {part}", total=STEPS)

                step = partial(_step, bar, task)
                verdicts.append(parts.verify(part, step))
                bar.update(task, completed=STEPS)
        seconds = time.perf_counter() - clock

    holds = bool(verdicts) and all(each.holds for each in verdicts)
    if as_json:
        said = {"space": found.name, "holds": holds, "seconds": seconds}
        typer.echo(json.dumps({**said, "parts": msgspec.to_builtins(verdicts)}))
    else:
        _print_verdicts(found.name, verdicts, seconds)
    if not holds:
        raise typer.Exit(1 if any(each.differing for each in verdicts) else NOT_YET)


@app.command("rebuild", short_help="Delete all profiles, and wait until they are made anew.")
def rebuild_profiles(
    space: SpaceName = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0, help="Seconds to wait for a learner to begin")
    ] = 30.0,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Delete all profiles of a space, and wait until the learners have made them anew.

    Nothing is lost: profiles are what the logs say. Until they are whole, rank answers with
    ``"profile": false``. New activity and rewards are in them at once.

    Exit status 0: they are whole. 3: no learner has begun, or the space has no profiles.
    """
    from serve_app.admin.spaces import opened_space
    from serve_app.admin.users.profile_parts import ProfileParts

    with opened_space(space, redis_url, data_dir) as (client, found, settings):
        parts = ProfileParts(client, found, settings)
        if not parts.names:
            say(("nothing to make", "red"), ": no policy of the space has profile", on=output)
            raise typer.Exit(NOT_YET)

        clock = time.perf_counter()
        deleted = sum(parts.delete())
        if not _await_whole(parts, wait_s):
            say(
                f"{deleted:,} profiles are deleted, and no learner makes them anew: that begins"
                " when the service runs",
                on=output,
            )
            raise typer.Exit(NOT_YET)
        seconds = time.perf_counter() - clock
        say(("done", "green"), f"  {deleted:,} profiles made anew in {seconds:.1f} s", on=output)


def _await_whole(parts: "ProfileParts", wait_s: float) -> bool:
    """Wait until all parts are whole; return False if one is not begun in time."""
    until = time.monotonic() + wait_s
    with progress_bar(transient=True) as bar:
        tasks = {part: bar.add_task(part, total=STEPS) for part in parts.names}
        while True:
            states = parts.progress()
            for state in states:
                bar.update(tasks[state.part], completed=round(STEPS * state.made))
            if all(state.begun and state.made >= 1.0 for state in states):
                return True
            if time.monotonic() >= until and not all(state.begun for state in states):
                return False
            time.sleep(LOOK_S)


def _step(bar: "Progress", task: "TaskID", share: float) -> None:
    bar.update(task, completed=round(STEPS * share))


def _print_verdicts(space: str, verdicts: "list[PartVerdict]", seconds: float) -> None:
    table = empty_table(
        *("part", "users", "changes", "", "differing"),
        title=space,
        numbers=("users", "changes", "differing"),
    )
    for each in verdicts:
        state = "identical" if each.holds else "differs" if each.state == "whole" else each.state
        text = Text(state, "green" if each.holds else "red")
        table.add_row(
            each.part, f"{each.users:,}", f"{each.changes:,}", text, f"{each.differing:,}"
        )
    output.print(table)

    count = sum(each.changes for each in verdicts)
    rate = count / seconds if seconds > 0 else 0.0
    say(f"{count:,} changes read in {seconds:.1f} s ({rate:,.0f}/s)", on=output)
    differing = [user for each in verdicts for user in each.examples]
    if differing:
        say(
            ("NOT what the logs say", "red"),
            f": {', '.join(differing[:3])}; banditloop profiles rebuild makes all anew",
            on=output,
        )
    elif not verdicts:
        say(("nothing to compare", "red"), ": no policy of the space has profile", on=output)
    elif all(each.holds for each in verdicts):
        say(("the profiles are what the logs say", "green"), on=output)
    else:
        say(("not whole yet", "yellow"), ": what is missing is being made", on=output)
