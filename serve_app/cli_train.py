"""``banditloop train``: candidate sources, or a policy's learner on a log."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bandits.errors import ReplayError
from policies.spec import load_spec
from serve_app.cli_snapshots import opened, warm_start

app = typer.Typer(help="Fit candidate sources, or a policy on a log.")
console = Console(stderr=True)


@app.callback(invoke_without_command=True)
def sources(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where to write the artifact")] = Path("artifacts/movielens"),
    data_path: Annotated[Path | None, typer.Option("--data", help="A MovieLens-100K folder [default: fetched]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice")] = 0,
) -> None:
    """Fit the candidate sources (ALS, item-kNN, deep, popular) on MovieLens-100K and write a versioned artifact."""
    if context.invoked_subcommand is not None:
        return
    from simulator.demo import load_world, train_movielens

    version = train_movielens(load_world(data_path), out, seed=seed)
    console.print(f"[green]trained[/]  {out}  version {version}")


@app.command()
def policy(
    spec: Annotated[Path, typer.Argument(help="The policy's spec (YAML)")],
    log: Annotated[str, typer.Option(help="The log: a file, a glob, a folder, or an archive's URI")],
    log_format: Annotated[str, typer.Option("--format", help="archive, dsjson, vw, obd or csv")] = "archive",
    out: Annotated[Path | None, typer.Option(help="Write the model to a file")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Let the policy of this name go on from it: an entry of its log")
    ] = False,
    columns: Annotated[
        str | None, typer.Option(help="Of a CSV, e.g. '{reward: click, propensity: p, event_id: id}'")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave malformed rows out")] = False,
    redis_url: Annotated[str | None, typer.Option(help="With --publish: Redis [default: that of --data-dir]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="With --publish: where the embedded Valkey and the salt live")
    ] = None,
) -> None:
    """Learn from a log what a policy would know had it seen it: a warm start, or a policy to evaluate.

    The file can be evaluated (banditloop replay --policy '{kind: trained, path: FILE}'), on rows that it was not
    trained on, and served later (banditloop snapshots warm-start FILE).
    """
    from serve_app.cli_replay import csv_columns
    from simulator.logs.formats import open_log
    from simulator.trained import train

    if out is None and not publish:
        raise ReplayError("say where the model goes: --out FILE, or --publish", "out")
    wanted = load_spec(spec)
    pieces = open_log(log, log_format, shards=1, skip_bad=skip_bad, columns=csv_columns(columns), extra=())
    what = SpinnerColumn(), TextColumn("learning"), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*what, console=console, transient=True) as progress:
        task = progress.add_task("learning", total=None)
        model = train(wanted, pieces, progress=lambda rows: progress.update(task, completed=rows))
    skipped = sum(piece.skipped for piece in pieces)
    left_out = f", {skipped:,} left out" if skipped else ""
    console.print(f"[green]trained[/]  {wanted.name}  {model.learned:,} rows{left_out}", highlight=False)
    if out is not None:
        out.write_bytes(model.encoded)
        console.print(f"written to {out}", highlight=False, soft_wrap=True)
    if publish:
        with opened(wanted.name, redis_url, data_dir) as (stored, _):
            warm_start(stored, model)
