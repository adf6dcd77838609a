"""The command ``banditloop refresh``: its options, exit status and table."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.options import (
    Address,
    AsJson,
    DataDir,
    Jobs,
    RedisUrl,
    ReportFile,
    one_command,
)

if TYPE_CHECKING:
    from rich.table import Table

    from simulator.refresh.report import RefreshReport

WORSE = 3
"""The exit status where a new artifact is refused because it is worse."""

app = one_command()


@app.command()
def refresh(
    spec: Annotated[Path, typer.Argument(help="The policy's spec (YAML)")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder or URI of a data set to train on beside the log [default: the spec's"
            " refresh.data]"
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="How far back the log is trained on, as 90d [default: the spec's, or 90d]"
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Skip older entries: a span before the end (24h), a time, or an entry id"
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(help="Sources, separated by commas [default: those that the spec names]"),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            "--artifact",
            help="Folder or URI to store the artifact in, by its version; if it is not the spec's,"
            " the policy goes on as it is [default: where the spec's artifact is]",
        ),
    ] = None,
    most_lacking: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the artifact's items that the catalogue may lack [default: the spec's,"
            " or 0.5]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train and compare, and change nothing")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice")] = 0,
    memory_gib: Annotated[
        float, typer.Option(min=0.0, help="Memory that training may take; 0: all there is")
    ] = 0.0,
    niceness: Annotated[
        int, typer.Option(min=0, max=19, help="How far training yields to other processes")
    ] = 10,
    jobs: Jobs = 1,
    address: Address = None,
    report: ReportFile = None,
    as_json: AsJson = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Train a policy's sources anew on its log, compare, and serve them unless they are worse.

    The blend with the new artifact is compared with the one that serves: on the newest decisions of
    the log, and on what users did since. If it is worse by more than its interval, nothing changes,
    and the exit status is 3.
    """
    from policies.spec import load_spec
    from serve_app.cli.refresh.run import RefreshRequest, run_refresh
    from serve_app.cli.terminal import print_report

    wanted = load_spec(spec)
    request = RefreshRequest.of(
        wanted,
        data=data,
        window=window,
        since=since,
        sources=None if sources is None else [name.strip() for name in sources.split(",")],
        root=root,
        most_lacking=most_lacking,
        dry_run=dry_run,
        seed=seed,
        memory_bytes=round(memory_gib * 2**30),
        niceness=niceness,
        jobs=jobs,
        address=address,
        by=f"process {os.getpid()} on {socket.gethostname()}",
    )
    with _bars() as progress:
        made = run_refresh(request, redis_url, data_dir, progress)
    print_report(made, [_table(made)], report, as_json=as_json)
    _say_outcome(made)
    if made.outcome == "refused":
        raise typer.Exit(WORSE)


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each thing that is done, on a terminal."""
    from serve_app.cli.terminal import progress_bar

    with progress_bar(transient=True) as bars:
        tasks: dict[str, object] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)  # type: ignore[arg-type]

        yield show


def _table(made: "RefreshReport") -> "Table":
    from serve_app.cli.terminal import empty_table

    numbers = ("n", "serving", "new", "difference from", "to")
    caption = (
        f"trained on {made.events:,} events of {made.users:,} users and {made.items:,} items"
        f" ({made.log_events:,} of the log) in {made.train_s:,.1f} s; compared in"
        f" {made.compare_s:,.1f} s"
    )
    table = empty_table(
        "measure",
        "of",
        "weights",
        *numbers,
        title=f"{made.policy}: {made.artifact}",
        numbers=numbers,
        caption=caption,
    )
    for each in made.measures:
        ends = (each.serving, each.fresh, each.low, each.high)
        shown = ["" if value is None else f"{value:.4g}" for value in ends]
        table.add_row(each.what, each.of, each.weights, f"{each.n:,}", *shown)
    return table


def _say_outcome(made: "RefreshReport") -> None:
    from serve_app.cli.terminal import say

    for shift in made.shifts:
        if shift.moved:
            say(
                f"the scale of {shift.source} has moved: its mean by {shift.shift:+.2f} standard"
                f" deviations, its spread {shift.ratio:.2f} times as wide"
            )
    for note in made.notes:
        say(note)
    if made.outcome == "refused":
        say(("refused", "yellow"), f"  {made.artifact} is worse: {made.why}")
    elif made.outcome == "accepted":
        say(("accepted", "green"), f"  {made.artifact}, with the blend's weights {made.weights}")
    elif made.outcome == "stored":
        say(("stored", "cyan"), f"  {made.artifact}")
    else:
        say(("measured", "cyan"), f"  {made.artifact}: nothing was stored (--dry-run)")
