"""The course of ``banditloop train``: data set, sources, artifact, profiles, spec."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.spec import load_spec
from serve_app.cli.terminal import ray_kept_quiet, say
from serve_app.cli.train.search import read_fit, searched, write_search
from serve_app.cli.train.specs import SpecPaths, choose_text, write_text

if TYPE_CHECKING:
    from bandits.values import FeatureMap
    from policies.data.coded import CodedEvents
    from policies.data.data_set import DataSet
    from policies.data.manifest import WeightOptions
    from policies.training.fits import TrainConfig
    from policies.training.train import TrainingRun
    from simulator.training.place import Place
    from simulator.tuning.report import TuningReport

PROFILES = "profiles.parquet"
"""The name of the file of profiles in the folder of an artifact's versions."""
CHECKPOINTS = "checkpoints"
"""The name of the folder beside it, of how far a training has come that has not ended."""


@dataclass(frozen=True, slots=True)
class SourceTraining:
    """A request of ``banditloop train``; the fields are its options."""

    out: Path
    data: str | None = None
    events: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    columns: str | None = None
    item_columns: str | None = None
    user_columns: str | None = None
    preset: str | None = None
    weights: str | None = None
    rating_scale: str | None = None
    separator: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    sources: tuple[str, ...] | None = None
    spec_out: Path | None = None
    seed: int = 0
    fit: Path | None = None
    search: bool = False
    search_trials: int | None = None
    search_minutes: float | None = None
    no_prior: bool = False
    jobs: int = 1
    workers: int = 1
    address: str | None = None
    data_dir: Path | None = None


def train_and_report(asked: SourceTraining) -> None:
    """Train, write what came of it, and say where it is.

    Raises:
        BanditloopError: the data cannot be read, or nothing can be trained on it.
    """
    from policies.artifacts import source_artifact
    from policies.artifacts.profile_file import write_profiles
    from serve_app.settings import Settings
    from simulator.training.place import training_place

    # A salt that cannot be had is said before the work, not after it.
    salt = Settings.with_options(data_dir=asked.data_dir).secret()
    what = _data_of(asked)
    config, search = _fitted_with(asked, what)

    checkpoints = asked.out / CHECKPOINTS
    if checkpoints.exists():
        say(f"goes on from {checkpoints}, where the data, the options and the build are the same")
    try:
        with (
            ray_kept_quiet(asked.address or ("local" if asked.workers > 1 else None)),
            training_place(
                jobs=asked.jobs,
                workers=asked.workers,
                address=asked.address,
                checkpoints=checkpoints,
            ) as place,
        ):
            run, prior, text = _trained(asked, what, config, place)
    except KeyboardInterrupt:
        if checkpoints.exists():
            say(f"how far it has come is in {checkpoints}: the same command goes on from there")
        raise

    version = source_artifact.write(replace(run.artifact, prior=prior), asked.out)
    shutil.rmtree(checkpoints, ignore_errors=True)
    names, profiles = list(run.artifact.sources), asked.out / PROFILES
    say(("trained", "green"), f"  {', '.join(names)}  {asked.out}  {version}")
    if search is not None:
        write_search(search, asked.out, run.artifact, version)

    write_profiles(profiles, run.histories, salt=salt, data=what.digest, artifact=version)
    say(f"profiles of {len(run.histories.users):,} users in {profiles}")

    if asked.spec_out is not None and text is not None:
        write_text(asked.spec_out, text)
        load_spec(asked.spec_out)
        say(("chosen", "green"), f"  {asked.spec_out}, each choice with what was measured")
        say(f"banditloop serve {asked.spec_out}")


def _fitted_with(
    asked: SourceTraining, what: "_LearnedFrom"
) -> "tuple[TrainConfig | None, TuningReport | None]":
    """Return what sources are fitted with, None for the usual, and how that was found."""
    given = None if asked.fit is None else read_fit(asked.fit)
    if given is not None:
        _say_of_unused(given, asked.sources)
    if not asked.search:
        return given, None

    from simulator.tuning.search import BRACKET, SearchBudget

    return searched(
        what.name,
        what.events,
        what.items,
        what.weights,
        SearchBudget(asked.search_trials or BRACKET, asked.search_minutes),
        sources=asked.sources,
        config=given,
        contexts=what.contexts,
        seed=asked.seed,
        address=asked.address,
    )


def _say_of_unused(config: "TrainConfig", sources: Collection[str] | None) -> None:
    """Say what of a file is of no account, since no source that reads it is to be trained.

    Args:
        config: what the file says that sources are fitted with.
        sources: those that were asked for; None: the usual ones.
    """
    from policies.artifacts.fitted_with import changes_of
    from policies.training.fits import EVERY, FITS, READS_CONTENT

    wanted = set(sources or (name for name, each in FITS.items() if each.usual))
    if EVERY in wanted:
        return
    for source in changes_of(config, [each.name for each in fields(config)]):
        if source not in wanted and not (source == "content" and READS_CONTENT & wanted):
            say(
                f"--fit: {source} is not trained, so what it says of that is of no account: name it"
                " with --sources"
            )


def _trained(
    asked: SourceTraining, what: "_LearnedFrom", config: "TrainConfig | None", place: "Place"
) -> "tuple[TrainingRun, bytes | None, str | None]":
    """Return what was trained, its prior, and the text of a spec that serves it.

    Args:
        asked: the options.
        what: is trained on.
        config: what sources are fitted with; None for the usual.
        place: where sources are fitted.
    """
    from policies.training.train import progress_bars, run_training

    with progress_bars() as progress:
        run = run_training(
            what.events,
            what.items,
            sources=asked.sources,
            config=config,
            contexts=what.contexts,
            seed=asked.seed,
            progress=progress,
            map_tasks=place.map_tasks,
            checkpoints=place.checkpoints,
        )
    for source, reason in run.left_out.items():
        say(f"left out: {source}: {reason}")

    # The prior is about the candidates of the policy that will be served.
    names, text = list(run.artifact.sources), None
    if asked.spec_out is not None:
        paths = SpecPaths(asked.spec_out, asked.out, asked.out / PROFILES)
        text = choose_text(
            what.name,
            what.events,
            what.items,
            what.weights,
            what.contexts,
            names,
            paths,
            asked.seed,
            config,
            place,
        )
    prior = None if asked.no_prior else _prior(asked, what, names, text, config, place)
    return run, prior, text


def _prior(
    asked: SourceTraining,
    what: "_LearnedFrom",
    names: list[str],
    text: str | None,
    config: "TrainConfig | None",
    place: "Place",
) -> bytes | None:
    """Return what a policy's model is taught before its first decision; say what became of it.

    Args:
        asked: the options.
        what: is trained on.
        names: the sources that were trained.
        text: the policy's spec, if one was chosen.
        config: what sources are fitted with; None for the usual.
        place: where sources are fitted.
    """
    from policies.data.coded import weights_as_rewards
    from policies.training.prior import LIMIT, make_prior
    from policies.training.train import progress_bars
    from policies.typed_yaml import parse_yaml

    blended, limit = [name for name in names if name in what.blended] or names, LIMIT
    if text is not None:
        spec = parse_yaml(text.encode())
        blended, limit = [source["name"] for source in spec["sources"]], spec["limit"]

    with progress_bars() as progress:
        made = make_prior(
            what.events,
            what.items,
            sources=blended,
            limit=limit,
            contexts=what.contexts,
            worth=weights_as_rewards(what.events, what.weights),
            config=config,
            seed=asked.seed,
            progress=lambda step, done, total: progress(f"prior: {step}", done, total),
            map_tasks=place.map_tasks,
            checkpoints=place.checkpoints,
        )
    if made.rows is None:
        say(f"no prior: {made.reason}")
        return None
    say(
        f"prior: {len(made.rows):,} rows of {made.users:,} users, {made.rewarded:.1%} of them with"
        " a reward"
    )
    return made.rows.encoded


@dataclass(frozen=True, slots=True)
class _LearnedFrom:
    """The events and items that sources are trained on.

    Attributes:
        name: its name.
        events: what users did.
        items: the catalogue.
        weights: what events are worth.
        digest: of the data.
        contexts: by user, what a caller will send.
        blended: the sources that will be served together, where that is known.
    """

    name: str
    events: "CodedEvents"
    items: list[dict[str, Any]]
    weights: "WeightOptions"
    digest: str
    contexts: "Mapping[str, FeatureMap]"
    blended: tuple[str, ...] = ()


def _data_of(asked: SourceTraining) -> _LearnedFrom:
    """Return what is trained on."""
    from policies.data.data_set import DataSet

    if asked.events:
        return _all_of(_imported(asked))
    if asked.data is not None:
        return _all_of(DataSet.open(asked.data))

    from simulator.worlds.demo import BLENDED, contexts_of_users, load_world
    from simulator.worlds.movielens import RATINGS

    world = load_world()
    return _LearnedFrom(
        "movielens",
        world.train_events,
        list(world.catalogue),
        RATINGS,
        world.digest,
        contexts_of_users(world),
        BLENDED,
    )


def _all_of(data: "DataSet") -> _LearnedFrom:
    from policies.training.prior import contexts_of

    manifest = data.manifest
    return _LearnedFrom(
        manifest.name,
        data.coded(),
        data.items(),
        manifest.weights,
        data.digest,
        contexts_of(data),
    )


def _imported(asked: SourceTraining) -> "DataSet":
    """Import the files of events as ``banditloop data import`` does."""
    from policies.data.data_set import DataSet
    from serve_app.cli.data.imports import import_tables

    folder = asked.out / "data"
    import_tables(
        folder=folder,
        events=list(asked.events),
        items=list(asked.items),
        users=list(asked.users),
        columns=asked.columns,
        item_columns=asked.item_columns,
        user_columns=asked.user_columns,
        preset=asked.preset,
        weights=asked.weights,
        rating_scale=asked.rating_scale,
        separator=asked.separator,
        quote=asked.quote,
        encoding=asked.encoding,
    )
    return DataSet.open(folder)
