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
from serve_app.cli.terminal import progress_bar, progress_count, ray_kept_quiet, say
from serve_app.cli.train.command import app

if TYPE_CHECKING:
    from policies.artifacts.learner_model import TrainedModel


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
    world: Annotated[str, typer.Option(help="satiation, steady, small or movielens")] = "satiation",
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

    Evaluate it on a log (banditloop replay --method sessions --policy '{kind: trained, path:
    OUT/model}'), and serve it with the spec that this writes (banditloop serve OUT/policy.yaml,
    then banditloop snapshots warm-start OUT/model).
    """
    import msgspec

    from bandits.log.codec import digest
    from simulator.rl.train import Training, TrainingPoint, train_rl

    training = Training(
        world=world,
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
    (out / "policy.yaml").write_bytes(msgspec.yaml.encode(spec))
    (out / "curve.json").write_bytes(msgspec.json.format(msgspec.json.encode(trained.curve)))
    model_id = digest(model.encoded)
    say(("trained", "green"), f"  {model.learned:,} decisions  {out}/model  {model_id}")

    if publish:
        _publish(policy_name, model, redis_url, data_dir)


def _publish(
    policy_name: str, model: "TrainedModel", redis_url: str | None, data_dir: Path | None
) -> None:
    from serve_app.admin.control import warm_start
    from serve_app.admin.open import opened
    from serve_app.cli.snapshots import PATIENCE_S, say_outcome

    with opened(policy_name, redis_url, data_dir) as (stored, _):
        say_outcome(warm_start(stored, model, within_s=PATIENCE_S))
