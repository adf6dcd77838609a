"""``banditloop train``: candidate sources of a data set, with profiles and a spec to serve them."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import (
    Address,
    DataDir,
    Encoding,
    EventColumns,
    EventWeights,
    FittedWith,
    ItemColumns,
    Jobs,
    NoPrior,
    Preset,
    Quote,
    RatingScale,
    Separator,
    UserColumns,
    command_group,
    out_file,
    out_folder,
)

app = command_group(
    "Fit candidate sources, a policy on a log, or a policy of whole sessions.", runs_alone=True
)

Files = list[str] | None


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    out: Annotated[Path, out_folder("Folder to write the artifact and profiles.parquet to")] = Path(
        "artifacts/movielens"
    ),
    data: Annotated[
        str | None,
        typer.Option(help="Folder or URI of the data set [default: MovieLens-100K, fetched]"),
    ] = None,
    events: Annotated[
        Files,
        typer.Option(
            help="Files of what users did, instead of --data (CSV, JSON Lines, Parquet; a glob; may"
            " be repeated): imported into OUT/data, as banditloop data import does"
        ),
    ] = None,
    items: Annotated[Files, typer.Option(help="Files of the items, beside --events")] = None,
    users: Annotated[Files, typer.Option(help="Files of the users, beside --events")] = None,
    columns: EventColumns = None,
    item_columns: ItemColumns = None,
    user_columns: UserColumns = None,
    preset: Preset = None,
    weights: EventWeights = None,
    rating_scale: RatingScale = None,
    separator: Separator = None,
    quote: Quote = '"',
    encoding: Encoding = "utf-8",
    sources: Annotated[
        str | None,
        typer.Option(
            help="Sources, separated by commas, or all [default: the usual ones that the data is"
            " enough for]"
        ),
    ] = None,
    spec_out: Annotated[
        Path | None,
        out_file(
            "File to write a spec to that serves the artifact [default: OUT/policy.yaml, with"
            " --events or --data]",
            "--spec-out",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice")] = 0,
    fit: FittedWith = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search for what each source is fitted with, by what users did later (Ray Tune)",
        ),
    ] = False,
    search_trials: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Trials of each source in a search [default: 9]"),
    ] = None,
    search_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Minutes after which a search ends")
    ] = None,
    no_prior: NoPrior = False,
    jobs: Jobs = 1,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Workers that fit each network together, on Ray: of this machine, or of --address",
        ),
    ] = 1,
    address: Address = None,
    data_dir: DataDir = None,
) -> None:
    """Fit candidate sources on a data set, and write them as a versioned artifact.

    What is known of its users is written beside, by pseudonyms under the salt of --data-dir or
    BANDITLOOP_SALT: serve with the same one. No user is in the artifact itself.

    A training that was interrupted goes on when the same command is given again: networks keep how
    far they have come in OUT/checkpoints, until the artifact is written.
    """
    if context.invoked_subcommand is not None:
        return

    from serve_app.cli.train.sources import SourceTraining, train_and_report

    if events and data:
        raise typer.BadParameter("name a data set or files of events, not both: leave --data out")
    of_tables = (
        *(items, users, columns, item_columns, user_columns),
        *(preset, weights, rating_scale, separator),
    )
    if not events and (any(of_tables) or (quote, encoding) != ('"', "utf-8")):
        raise typer.BadParameter(
            "--items, --users, --columns, --item-columns, --user-columns, --preset, --weights,"
            " --rating-scale, --separator, --quote and --encoding go with --events"
        )

    if not search and (search_trials or search_minutes):
        raise typer.BadParameter("--search-trials and --search-minutes go with --search")

    train_and_report(
        SourceTraining(
            out=out,
            data=data,
            events=tuple(events or ()),
            items=tuple(items or ()),
            users=tuple(users or ()),
            columns=columns,
            item_columns=item_columns,
            user_columns=user_columns,
            preset=preset,
            weights=weights,
            rating_scale=rating_scale,
            separator=separator,
            quote=quote,
            encoding=encoding,
            sources=_names(sources),
            spec_out=spec_out or (out / "policy.yaml" if events or data else None),
            seed=seed,
            fit=fit,
            search=search,
            search_trials=search_trials,
            search_minutes=search_minutes,
            no_prior=no_prior,
            jobs=jobs,
            workers=workers,
            address=address,
            data_dir=data_dir,
        )
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
