"""``banditloop train``: candidate sources, a policy's learner on a log, or a policy of sessions in a world."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bandits.errors import ReplayError
from policies.spec import load_spec
from serve_app.admin.open import opened
from serve_app.cli.options import (
    Address,
    Columns,
    DataDir,
    LogFormat,
    Publish,
    RedisUrl,
    SkipBad,
    Window,
    group,
    out_file,
    out_folder,
)
from serve_app.cli.snapshots import warm_start
from serve_app.cli.terminal import notes, say, words, work_on_ray

app = group("Fit candidate sources, a policy on a log, or a policy of whole sessions.", alone=True)


@app.callback(invoke_without_command=True)
def sources(
    context: typer.Context,
    out: Annotated[Path, out_folder("Where to write the artifact")] = Path("artifacts/movielens"),
    data_path: Annotated[
        Path | None, typer.Option("--data", help="A MovieLens-100K folder [default: fetched]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice")] = 0,
) -> None:
    """Fit the candidate sources (ALS, item-kNN, deep, popular) on MovieLens-100K and write a versioned artifact."""
    if context.invoked_subcommand is not None:
        return
    from simulator.worlds.demo import load_world, train_movielens

    version = train_movielens(load_world(data_path), out, seed=seed)
    say(("trained", "green"), f"  {out}  version {version}")


@app.command(short_help="Learn from a log what a policy would know of it.")
def policy(
    spec: Annotated[Path, typer.Argument(help="The policy's spec (YAML)")],
    log: Annotated[
        str, typer.Option(help="The log: a file, a glob, a folder, or an archive's URI")
    ],
    log_format: LogFormat = "archive",
    out: Annotated[Path | None, out_file("Write the model to a file")] = None,
    publish: Publish = False,
    columns: Columns = None,
    skip_bad: SkipBad = False,
    window_s: Window = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Learn from a log what a policy would know had it seen it: a warm start, or a policy to evaluate.

    The file can be evaluated (banditloop replay --policy '{kind: trained, path: FILE}'), on rows
    that it was not trained on, and served later (banditloop snapshots warm-start FILE).
    """
    from serve_app.cli.replay import csv_columns
    from simulator.learners.trained import train_on_log
    from simulator.logs.formats import open_log
    from simulator.logs.left_out import left_out_of
    from simulator.logs.rows import caution_of, columns_of

    if out is None and not publish:
        raise ReplayError("say where the model goes: --out FILE, or --publish", "out")
    wanted = load_spec(spec)
    pieces = open_log(
        log,
        log_format,
        shards=1,
        skip_bad=skip_bad,
        columns=csv_columns(columns),
        extra=(),
        window_s=window_s,
    )
    what = (
        SpinnerColumn(),
        words("learning"),
        words("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*what, console=notes, transient=True) as progress:
        task = progress.add_task("learning", total=None)
        model = train_on_log(
            wanted, pieces, progress=lambda rows: progress.update(task, completed=rows)
        )
    left_out = left_out_of(pieces)
    said = f", left out: {left_out}" if left_out else ""
    say(("trained", "green"), f"  {wanted.name}  {model.learned:,} rows{said}")
    for name, kind in columns_of(pieces).items():
        say(f"column {name}: {kind}")
    if caution := caution_of(pieces):
        say(caution)
    if out is not None:
        out.write_bytes(model.encoded)
        say(f"written to {out}")
    if publish:
        with opened(wanted.name, redis_url, data_dir) as (stored, _):
            warm_start(stored, model)


@app.command(short_help="Train a policy of whole sessions by PPO (RLlib).")
def rl(
    out: Annotated[
        Path, out_folder("Folder of the model, its spec, the curve and the checkpoint")
    ] = Path("artifacts/rl"),
    world: Annotated[str, typer.Option(help="satiation, steady, small or movielens")] = "satiation",
    steps: Annotated[int, typer.Option(min=1, help="Decisions to train on")] = 120_000,
    gamma: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="What a reward counts one decision later; 0 is myopic"),
    ] = 0.97,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and sessions")] = 0,
    world_seed: Annotated[int, typer.Option(min=0, help="Of what the world draws once")] = 0,
    width: Annotated[int, typer.Option(min=1, max=1024, help="Hidden units of the network")] = 32,
    env_runners: Annotated[
        int, typer.Option(min=0, help="Ray actors that play; 0: this process")
    ] = 1,
    address: Address = "local",
    temperature: Annotated[
        float, typer.Option(min=1e-6, help="Of the softmax it is served with")
    ] = 1.0,
    floor: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the exploration it is served with")
    ] = 0.01,
    policy: Annotated[str, typer.Option("--policy", help="The policy's name")] = "sessions",
    name: Annotated[
        str | None, typer.Option("--name", hidden=True, help="The same as --policy")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out")
    ] = False,
    publish: Publish = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Train a policy of whole sessions by PPO (RLlib): it may give up a reward now for more of them later.

    Serve it with the spec it writes (banditloop serve OUT/policy.yaml, then banditloop snapshots
    warm-start OUT/model), evaluate it on a log before (banditloop replay --method sessions --policy
    '{kind: trained, path: OUT/model}').
    """
    import msgspec

    from bandits.log.codec import digest
    from simulator.rl.train import Training, TrainingPoint, train_rl

    called = name or policy
    training = Training(
        world=world,
        world_seed=world_seed,
        seed=seed,
        steps=steps,
        gamma=gamma,
        width=width,
        env_runners=env_runners,
    )
    what = words("{task.fields[earned]}"), TimeElapsedColumn(), TimeRemainingColumn()
    bars = Progress(words("training"), BarColumn(), MofNCompleteColumn(), *what, console=notes)
    with work_on_ray(address or "local"), bars as progress:
        task = progress.add_task("training", total=steps, earned="")

        def watched(point: TrainingPoint) -> None:
            earned = f"{point.session_return:.2f} a session of {point.session_length:.1f} decisions"
            progress.update(task, completed=point.steps, earned=earned)

        trained = train_rl(
            training, folder=out, resume=resume, progress=watched, address=address or "local"
        )
    spec = trained.spec(called, temperature=temperature, floor=floor)
    model = trained.model(spec)
    (out / "model").write_bytes(model.encoded)
    (out / "policy.yaml").write_bytes(msgspec.yaml.encode(spec))
    (out / "curve.json").write_bytes(msgspec.json.format(msgspec.json.encode(trained.curve)))
    say(
        ("trained", "green"), f"  {model.learned:,} decisions  {out}/model  {digest(model.encoded)}"
    )
    if publish:
        with opened(called, redis_url, data_dir) as (stored, _):
            warm_start(stored, model)
