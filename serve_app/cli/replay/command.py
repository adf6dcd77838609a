"""The command ``banditloop replay``: its options, each declared here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import (
    Address,
    AsJson,
    Columns,
    DataDir,
    Jobs,
    LogFormat,
    LogSource,
    RedisUrl,
    ReportFile,
    RewardModels,
    SkipBad,
    Window,
    one_command,
    options_from,
    out_file,
)
from serve_app.cli.terminal import print_report, ray_kept_quiet

SHARDS_ON_RAY = 256
SHARDS_PER_JOB = 4

app = one_command()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOptions:
    """The options of the command, one a field, with the field's name unless it has another."""

    log: LogSource
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="uniform, logging, greedy, first, apprentice, {kind: ...}, snapshot:ID, or a file;"
            " may be repeated"
        ),
    ] = None
    log_format: LogFormat = "archive"
    method: Annotated[str, typer.Option(help="ope, sessions, slates, progressive or rejection")] = (
        "ope"
    )
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            help="ips, clipped_ips, snips, dm, dr, sndr, switch_dr or dros; of sessions: wis,"
            " pdwis, dr or wdr; of slates: sips, snsips, rips, snrips, iips, sniips, pi or snpi;"
            " may be repeated [default: all]"
        ),
    ] = None
    clip: Annotated[
        str | None,
        typer.Option(help="Clipping bound of clipped_ips: a number, or auto [default: 10]"),
    ] = None
    tau: Annotated[
        str | None,
        typer.Option(help="Switching threshold of switch_dr: a number, or auto [default: 10]"),
    ] = None
    lambda_: Annotated[
        str | None,
        typer.Option("--lambda", help="Shrinkage of dros: a number, or auto [default: 100]"),
    ] = None
    bits: Annotated[
        int, typer.Option(min=4, max=11, help="Size of the reward model: 2^bits coefficients")
    ] = 8
    folds: Annotated[
        int, typer.Option(min=2, max=20, help="Folds of the reward model's cross-fitting")
    ] = 5
    reward_model: RewardModels = None
    interval: Annotated[
        str, typer.Option(help="Kind of interval: normal, bootstrap, bernstein or anytime")
    ] = "normal"
    alpha: Annotated[
        float,
        typer.Option(help="Significance level; intervals cover with probability 1 - alpha"),
    ] = 0.05
    address: Address = None
    jobs: Jobs = 1
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Pieces to cut the log into [default: 4 per job, 256 on Ray]"),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of what a learning policy draws")] = 0
    bound: Annotated[
        float | None,
        typer.Option(
            help="Bound on importance weights, of method rejection"
            " [default: none, which needs a uniformly random log]"
        ),
    ] = None
    publish_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows after which a spec that learns acts by what it has learned [default: 100]",
        ),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            help="Skip older entries: a span before the end (24h), a time, or an entry id"
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(help="Skip decisions past this, of an archive: a time, or an entry id"),
    ] = None
    every: Annotated[
        list[str] | None,
        typer.Option(
            help="Say what each policy earns by windows of this span, too (5m, 1h, 7d), of methods"
            " ope and progressive; may be repeated"
        ),
    ] = None
    window_s: Window = None
    horizon: Annotated[
        int,
        typer.Option(
            min=1, help="Number of first decisions of a session, or slots of a page, that count"
        ),
    ] = 10
    gamma: Annotated[
        float, typer.Option(help="Discount per decision of a session's later rewards")
    ] = 1.0
    page_reward: Annotated[
        str,
        typer.Option(help="What a page earns, of slates: sum, or largest, of its slots' rewards"),
    ] = "sum"
    session: Annotated[
        str | None,
        typer.Option(
            help="Context feature that names a session [default: sessions by user and pause]"
        ),
    ] = None
    pause_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds without a decision that end a user's session")
    ] = 1800.0
    columns: Columns = None
    skip_bad: SkipBad = False
    redis_url: RedisUrl = None
    data_dir: DataDir = None
    search: Annotated[
        Path | None, typer.Option(help="Search this space (YAML) for a better policy")
    ] = None
    best: Annotated[
        Path | None, out_file("File to write the best spec of --search to (YAML)", "--best")
    ] = None
    model: Annotated[
        Path | None,
        out_file("File to write to what the best spec of --search has learned", "--model"),
    ] = None
    out: ReportFile = None
    as_json: AsJson = False
    html: Annotated[
        Path | None, out_file("File to write the report to as a self-contained page", "--html")
    ] = None

    @property
    def piece_count(self) -> int:
        """Number of pieces to cut the log into."""
        return self.shards or (SHARDS_ON_RAY if self.address else SHARDS_PER_JOB * self.jobs)


@app.command()
@options_from(ReplayOptions)
def replay(options: ReplayOptions) -> None:
    """Estimate what other policies would have earned on a log, and whether that can be trusted."""
    from serve_app.host.environment import join_clusters

    # Before Ray is imported, which reads it from the environment.
    if options.address not in {None, "local"}:
        join_clusters()

    from serve_app.cli.replay.run import run_replay
    from serve_app.cli.replay.tables import report_tables
    from simulator.replay.page import html_page

    with ray_kept_quiet(options.address):
        report = run_replay(options)

    if options.html is not None:
        options.html.write_text(html_page(report), encoding="utf-8")
    print_report(report, report_tables(report), options.out, as_json=options.as_json)
