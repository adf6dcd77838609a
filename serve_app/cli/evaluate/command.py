"""The command ``banditloop evaluate``: its options, training with bars, and the report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandits.errors import DataSetError
from serve_app.cli.options import AsJson, FittedWith, ReportFile, one_command, out_file
from serve_app.cli.terminal import print_report, progress_bar, say

if TYPE_CHECKING:
    from policies.data.data_set import DataSet
    from simulator.ranking.evaluate import Train

app = one_command()

Show = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""


@app.command()
def evaluate_data(
    data: Annotated[str, typer.Option(help="Folder or URI of the data set")],
    artifact: Annotated[
        Path | None,
        typer.Option(
            help="An artifact to evaluate instead of training, which must have been trained on the"
            " earlier part alone"
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Sources, separated by commas, or all [default: the usual ones that the data is"
            " enough for, and user_knn to compare with]"
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="How events are split: global-time, user-time or last-one")
    ] = "global-time",
    share: Annotated[
        float, typer.Option("--test-share", min=0.001, max=0.9, help="Share of events that test")
    ] = 0.2,
    k: Annotated[int, typer.Option("--k", min=1, max=100, help="Length of the lists")] = 10,
    users: Annotated[
        int, typer.Option(min=1, help="Users to ask for at most; of more, so many are drawn")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice")] = 0,
    fit: FittedWith = None,
    fusion: Annotated[
        bool, typer.Option("--fusion/--no-fusion", help="Evaluate fusions of the sources, too")
    ] = True,
    blend: Annotated[
        bool,
        typer.Option(
            "--blend/--no-blend",
            help="Judge a blend without each of its sources: what each is worth, in ms and MB, too",
        ),
    ] = False,
    out: ReportFile = None,
    html: Annotated[
        Path | None, out_file("File to write the report to as a self-contained page", "--html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge candidate sources by what users did later: every item is ranked, for each user.

    Sources are trained on the earlier part of the events; fusions of them are fitted on the last
    part of that. Figures have intervals, and sources are compared on the same users.
    """
    from policies.data.data_set import DataSet
    from serve_app.cli.evaluate.tables import ranking_tables
    from simulator.ranking.automatic import user_contexts
    from simulator.ranking.evaluate import RankingOptions, evaluate_sources
    from simulator.ranking.page import ranking_page
    from simulator.ranking.references.user_knn import NAME
    from simulator.ranking.splits import check_split_name

    if blend and not fusion and artifact is None:
        raise typer.BadParameter("--blend is taught what --fusion trains: leave --no-fusion out")
    if fit is not None and artifact is not None:
        raise typer.BadParameter("--fit is for training: an artifact is evaluated as it is")
    kind = check_split_name(split)
    names = _names(sources)
    beside = names is not None and NAME in names
    if names is not None and beside:
        names.remove(NAME)
        if not names:
            raise typer.BadParameter(f"{NAME} is compared with sources: name one beside it")
    opened = DataSet.open(data)
    with _bars() as show:
        report = evaluate_sources(
            opened.manifest.name,
            opened.coded(),
            opened.items(),
            opened.manifest.weights,
            RankingOptions(
                kind, share, k, seed, users, fusion, blend, user_knn=names is None or beside
            ),
            trainer(opened, artifact, names, seed, fit, show),
            contexts=user_contexts(opened),
            artifact=None if artifact is None else str(artifact),
            progress=show,
        )

    if html is not None:
        html.write_text(ranking_page(report), encoding="utf-8")
    print_report(report, ranking_tables(report), out, as_json=as_json)
    for path in (out, html):
        if path is not None:
            say(f"written to {path}")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def trainer(
    data: "DataSet",
    artifact: Path | None,
    names: list[str] | None,
    seed: int,
    fit: Path | None,
    show: Show,
) -> "Train":
    """Return what trains the sources on a part of the events, or gives those of an artifact.

    Args:
        data: the data set.
        artifact: is evaluated as it is; None: sources are trained.
        names: of the sources; None: the usual ones.
        seed: of every random choice.
        fit: the file of what sources are fitted with; None: the usual.
        show: told of steps.

    Raises:
        ArtifactError: the artifact or the file cannot be read, or names what there is not.
    """
    from policies.artifacts import source_artifact
    from policies.data.coded import CodedEvents
    from serve_app.cli.train.search import read_fit
    from simulator.ranking.asking import TrainedModels
    from simulator.ranking.training import models_of, train_on

    items = data.items()
    loaded = None if artifact is None else models_of(source_artifact.load(artifact), names)
    config = None if fit is None else read_fit(fit)

    def train(events: CodedEvents, purpose: str) -> TrainedModels:
        if loaded is not None:
            if purpose != "sources":
                raise DataSetError("an artifact is evaluated as it is: nothing is trained")
            return loaded
        from policies.training.prior import contexts_of

        return train_on(
            events,
            items,
            sources=names,
            config=config,
            contexts=contexts_of(data),
            seed=seed,
            progress=lambda source, done, total: show(f"{purpose}: {source}", done, total),
        )

    return train


@contextmanager
def _bars() -> Iterator[Show]:
    """Show a bar for each thing that is done."""
    with progress_bar(transient=True) as progress:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show
