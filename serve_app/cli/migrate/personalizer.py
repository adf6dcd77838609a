"""``banditloop migrate personalizer``: from what Azure AI Personalizer exports to a policy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.migrate.command import app
from serve_app.cli.options import SkipBad, out_folder
from serve_app.cli.terminal import empty_table, output, progress_count, say

if TYPE_CHECKING:
    from policies.artifacts.learner_model import TrainedModel
    from policies.spec import PolicySpec


@app.command("personalizer", short_help="A policy from an exported Azure AI Personalizer loop.")
def migrate_personalizer(
    config: Annotated[
        list[Path],
        typer.Option(
            help="JSON of the loop: what its API answers for configurations/service and for"
            " configurations/policy, or exported learning settings; may be repeated"
        ),
    ],
    logs: Annotated[
        str | None,
        typer.Option(help="Exported logs (dsjson), to learn from: a file, a glob or a URI"),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Exported model, model.vw or model.vw.zip, whose policy is taken over"),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="Name to give the policy")] = "home",
    out: Annotated[Path, out_folder("Folder to write policy.yaml and model to")] = Path("migrated"),
    skip_bad: SkipBad = False,
) -> None:
    """Write a spec that does what the loop did, and a model that has learned from its logs.

    Says of each setting what has become of it. Serve the spec (banditloop serve OUT/policy.yaml),
    then have it go on from the model (banditloop snapshots warm-start OUT/model): its clients need
    another endpoint, and nothing else.
    """
    import msgspec

    from serve_app.cli.migrate.exports import migrated, read_exports

    exports = read_exports(config, model)
    made = migrated(policy, exports)
    trained = None if logs is None else _learned(made.spec, logs, skip_bad=skip_bad)

    # Nothing is written before all of it is there.
    out.mkdir(parents=True, exist_ok=True)
    (out / "policy.yaml").write_bytes(msgspec.yaml.encode(made.written))
    if trained is not None:
        (out / "model").write_bytes(trained.encoded)

    table = empty_table("setting", "there", "here", whole=("setting",))
    for line in made.carried:
        table.add_row(line.setting, line.there, line.here)
    output.print(table)
    say(("written", "green"), f"  {out / 'policy.yaml'}")
    if trained is not None:
        say(
            ("written", "green"),
            f"  {out / 'model'}, which has learned from {trained.learned:,} rows:"
            f" banditloop serve {out / 'policy.yaml'}, then banditloop snapshots warm-start"
            f" {out / 'model'}",
        )


def _learned(spec: "PolicySpec", logs: str, *, skip_bad: bool) -> "TrainedModel":
    """Return what the policy knows after exported logs; say what of them was left out."""
    from simulator.learners.trained import train_on_log
    from simulator.logs.exported.personalizer import exported_pieces
    from simulator.logs.files import files_of
    from simulator.logs.left_out import left_out_of

    pieces = exported_pieces(files_of(logs), skip_bad=skip_bad)
    with progress_count("rows") as progress:
        task = progress.add_task("learning", total=None)
        trained = train_on_log(
            spec, pieces, progress=lambda rows: progress.update(task, completed=rows)
        )
    if left_out := left_out_of(pieces):
        say(f"left out of the logs: {left_out}")
    return trained
