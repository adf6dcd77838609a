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
    from serve_app.cli.migrate.exports import Carried, Exports


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
        typer.Option(
            help="Exported logs (dsjson), to learn from, or beside --model to know the features"
            " of its weights by: a file, a glob or a URI"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Exported model, model.vw or model.vw.zip: its policy is taken over, and with"
            " --logs its weights, too"
        ),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="Name to give the policy")] = "home",
    out: Annotated[Path, out_folder("Folder to write policy.yaml and model to")] = Path("migrated"),
    skip_bad: SkipBad = False,
) -> None:
    """Write a spec that does what the loop did, and a model that knows what it knew.

    The model is the loop's own where both --model and --logs are given, else one that has learned
    the logs. Says of each setting what has become of it. Serve the spec (banditloop serve
    OUT/policy.yaml), then have it go on from the model (banditloop snapshots warm-start OUT/model):
    its clients need another endpoint, and nothing else.
    """
    from policies.typed_yaml import encode_yaml
    from serve_app.cli.migrate.exports import migrated, read_exports
    from simulator.logs.exported.spaces import letters_here
    from simulator.logs.files import files_of

    exports = read_exports(config, model)
    made = migrated(policy, exports, None if logs is None else letters_here(files_of(logs)))
    trained, carried = None, made.carried
    if exports.model is not None:
        trained, of_model = _carried(made.spec, exports, logs)
        carried = [*carried, of_model]
    if trained is None and logs is not None:
        trained = _learned(made.spec, logs, skip_bad=skip_bad)

    # Nothing is written before all of it is there.
    out.mkdir(parents=True, exist_ok=True)
    (out / "policy.yaml").write_bytes(encode_yaml(made.written))
    if trained is not None:
        (out / "model").write_bytes(trained.encoded)

    table = empty_table("setting", "there", "here", whole=("setting",))
    for line in carried:
        table.add_row(line.setting, line.there, line.here)
    output.print(table)
    say(("written", "green"), f"  {out / 'policy.yaml'}")
    if trained is not None:
        say(
            ("written", "green"),
            f"  {out / 'model'}, which knows {trained.learned:,} decisions:"
            f" banditloop serve {out / 'policy.yaml'}, then banditloop snapshots warm-start"
            f" {out / 'model'}",
        )


def _carried(
    spec: "PolicySpec", exports: "Exports", logs: str | None
) -> "tuple[TrainedModel | None, Carried]":
    """Return a model with the weights of an exported one, if it can be, and what is said of it."""
    from bandits.errors import SpecError
    from serve_app.cli.migrate.exports import with_weights, without_weights
    from simulator.logs.exported.weights import carry_weights
    from simulator.logs.files import files_of

    if logs is None:
        return None, without_weights(
            "a weight tells no name. Give --logs as well: they say which features there are"
        )
    if exports.model is None or exports.made_with is None:
        return None, without_weights("it is no model with --cb_explore_adf; the logs are learned")
    try:
        with progress_count("decisions") as progress:
            task = progress.add_task("naming weights", total=None)
            weights = carry_weights(
                spec,
                exports.model,
                exports.made_with,
                files_of(logs),
                progress=lambda read: progress.update(task, completed=read),
            )
    except SpecError as error:
        return None, without_weights(f"{error.message}; the logs are learned")
    return weights.trained, with_weights(weights)


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
