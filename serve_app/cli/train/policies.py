"""``banditloop train policy`` and ``train rl``: policies that learn from a log, or of sessions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandits.errors import ReplayError
from serve_app.cli.options import (
    Address,
    Columns,
    DataDir,
    LogFormat,
    LogSource,
    Publish,
    RedisUrl,
    SkipBad,
    Window,
    out_file,
    out_folder,
)
from serve_app.cli.terminal import (
    empty_table,
    output,
    progress_bar,
    progress_count,
    ray_kept_quiet,
    say,
)
from serve_app.cli.train.command import app

if TYPE_CHECKING:
    from policies.artifacts.learner_model import TrainedModel
    from policies.spec import PolicySpec
    from simulator.rl.train import Training


@app.command("policy", short_help="Train a policy on a log that others made.")
def train_policy(
    spec: Annotated[Path, typer.Argument(help="The policy's spec (YAML)")],
    log: LogSource,
    log_format: LogFormat = "archive",
    out: Annotated[Path | None, out_file("File to write the model to")] = None,
    publish: Publish = False,
    columns: Columns = None,
    skip_bad: SkipBad = False,
    window_s: Window = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Learn from a log what a policy would know had it seen it: a warm start, or one to evaluate.

    The model can be evaluated (banditloop replay --policy '{kind: trained, path: FILE}') on rows
    that it was not trained on, and served later (banditloop snapshots warm-start FILE).
    """
    from policies.spec import load_spec
    from serve_app.cli.replay.run import csv_columns
    from simulator.learners.trained import train_on_log
    from simulator.logs.formats import open_log
    from simulator.logs.left_out import left_out_of
    from simulator.logs.rows import caution_of, column_notes_of

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
    with progress_count("rows") as progress:
        task = progress.add_task("learning", total=None)
        model = train_on_log(
            wanted, pieces, progress=lambda rows: progress.update(task, completed=rows)
        )

    # What the log is, and what of it was left out, matters to whoever trusts the model.
    left_out = left_out_of(pieces)
    omission = f", left out: {left_out}" if left_out else ""
    say(("trained", "green"), f"  {wanted.name}  {model.learned:,} rows{omission}")
    for name, kind in column_notes_of(pieces).items():
        say(f"column {name}: {kind}")
    if caution := caution_of(pieces):
        say(caution)

    if out is not None:
        out.write_bytes(model.encoded)
        say(f"written to {out}")
    if publish:
        _publish(wanted.name, model, redis_url, data_dir)


@app.command("rl", short_help="Train a policy of whole sessions by PPO (RLlib).")
def train_sessions(
    out: Annotated[
        Path, out_folder("Folder to write the model, its spec, the curve and the checkpoint to")
    ] = Path("artifacts/rl"),
    world: Annotated[
        str | None,
        typer.Option(help="satiation, steady, small or movielens [default: satiation]"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder or URI of a data set whose users play, instead of a world"),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Sources that propose to the users of --data, separated by commas, named as the"
            " policy will name them [default: item_knn,popular]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Decisions to train on")] = 120_000,
    gamma: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Discount per decision of later rewards; 0 ignores them"
        ),
    ] = 0.97,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and the sessions")] = 0,
    world_seed: Annotated[
        int, typer.Option(min=0, help="Seed of what the world draws only once")
    ] = 0,
    width: Annotated[int, typer.Option(min=1, max=1024, help="Hidden units of the network")] = 32,
    env_runners: Annotated[
        int, typer.Option(min=0, help="Ray actors that play sessions; 0: this process plays")
    ] = 1,
    address: Address = "local",
    temperature: Annotated[
        float,
        typer.Option(min=1e-6, help="Temperature of the softmax that the policy is served with"),
    ] = 1.0,
    floor: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of uniform exploration when served")
    ] = 0.01,
    policy: Annotated[str, typer.Option("--policy", help="Name to give the policy")] = "sessions",
    name: Annotated[
        str | None, typer.Option("--name", hidden=True, help="The same as --policy")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in --out")
    ] = False,
    publish: Publish = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Train a policy of whole sessions by PPO (RLlib): it may give up a reward now for more later.

    Sessions are those of a world, or of a data set's users (--data): sources trained on the earlier
    part of its events propose, what users turned to in the later part is their reward, and they
    leave as they do in the data.

    Evaluate it on a log (banditloop replay --method sessions --policy '{kind: trained, path:
    OUT/model}'), and serve it with the spec that this writes (banditloop serve OUT/policy.yaml,
    then banditloop snapshots warm-start OUT/model).
    """
    import msgspec

    from bandits.log.codec import digest
    from policies.typed_yaml import encode_yaml
    from simulator.rl.train import Training, TrainingPoint, train_rl

    if data is not None and world is not None:
        raise typer.BadParameter("sessions are of a world or of a data set: leave --world out")
    if sources is not None and data is None:
        raise typer.BadParameter("--sources go with --data")

    where, data_digest = ("", "") if data is None else _named(data)
    training = Training(
        world=world or ("satiation" if data is None else "data"),
        data=where,
        digest=data_digest,
        sources=[name.strip() for name in (sources or "").split(",") if name.strip()],
        world_seed=world_seed,
        seed=seed,
        steps=steps,
        gamma=gamma,
        width=width,
        env_runners=env_runners,
    )
    cluster = address or "local"
    with ray_kept_quiet(cluster), progress_bar("{task.fields[earned]}") as progress:
        task = progress.add_task("training", total=steps, earned="")

        def show(point: TrainingPoint) -> None:
            earned = f"{point.session_return:.2f} a session of {point.session_length:.1f} decisions"
            progress.update(task, completed=point.steps, earned=earned)

        trained = train_rl(training, folder=out, resume=resume, progress=show, address=cluster)

    # A hidden --name is how --policy was called before.
    policy_name = name or policy
    spec = trained.spec(policy_name, temperature=temperature, floor=floor)
    model = trained.model(spec)
    (out / "model").write_bytes(model.encoded)
    (out / "policy.yaml").write_bytes(encode_yaml(spec))
    (out / "curve.json").write_bytes(msgspec.json.format(msgspec.json.encode(trained.curve)))
    model_id = digest(model.encoded)
    say(("trained", "green"), f"  {model.learned:,} decisions  {out}/model  {model_id}")
    if data is not None:
        _say_of_data(training, spec, model, out)

    if publish:
        _publish(policy_name, model, redis_url, data_dir)


def _named(data: str) -> tuple[str, str]:
    """Return where a data set is, for every process of this machine, and its digest."""
    from policies.data.data_set import DataSet

    where = data if "://" in data else str(Path(data).absolute())
    return where, DataSet.open(where).digest


def _say_of_data(
    training: "Training", spec: "PolicySpec", model: "TrainedModel", out: Path
) -> None:
    """Show what users who played no session earn under the model, and how it becomes a source."""
    import msgspec

    from bandits.log.codec import digest
    from policies.typed_yaml import encode_yaml
    from simulator.rl.judging import judge_on_tested
    from simulator.sessions.data_set import DataSetSessions

    world = training.make_world()
    assert isinstance(world, DataSetSessions)  # noqa: S101 - that of --data
    with progress_bar(transient=True) as progress:
        task = progress.add_task("playing the last sessions", total=None)
        rows = judge_on_tested(
            world,
            spec,
            model,
            seed=training.seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    heads = ("reward", "from", "to", "decisions")
    table = empty_table(
        "shows the best of",
        *heads,
        title=f"{rows[0].sessions} sessions of users who played in none of the training",
        numbers=heads,
        caption="from, to: 95% interval of the reward of a session",
    )
    for row in rows:
        figures = (row.mean, row.low, row.high, row.decisions)
        table.add_row(row.policy, *(f"{figure:.2f}" for figure in figures))
    output.print(table)
    (out / "judged.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))

    source = {
        "kind": "rl",
        "name": "longterm",
        "model": str((out / "model").absolute()),
        "digest": digest(model.encoded),
    }
    (out / "source.yaml").write_bytes(encode_yaml([source]))
    say(
        f"{out}/source.yaml is a line of the sources of a policy that also has"
        f" {' and '.join(world.sources)} of an artifact; let requests say place and liked"
    )


def _publish(
    policy_name: str, model: "TrainedModel", redis_url: str | None, data_dir: Path | None
) -> None:
    from serve_app.admin.control import warm_start
    from serve_app.admin.open import opened
    from serve_app.cli.snapshots import PATIENCE_S, say_outcome

    with opened(policy_name, redis_url, data_dir) as (stored, _):
        say_outcome(warm_start(stored, model, within_s=PATIENCE_S))
