"""The course of ``banditloop train``: data set, sources, artifact, profiles, spec."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.spec import load_spec
from serve_app.cli.terminal import ray_kept_quiet, say
from serve_app.cli.train.specs import SpecPaths, choose_text, write_text

if TYPE_CHECKING:
    from policies.data.coded import CodedEvents
    from policies.data.data_set import DataSet
    from policies.data.manifest import WeightOptions
    from policies.training.train import MapTasks

PROFILES = "profiles.parquet"
"""The name of the file of profiles in the folder of an artifact's versions."""


@dataclass(frozen=True, slots=True)
class SourceTraining:
    """What ``banditloop train`` was asked for; the fields are its options."""

    out: Path
    data: str | None = None
    events: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    columns: str | None = None
    preset: str | None = None
    sources: tuple[str, ...] | None = None
    spec_out: Path | None = None
    seed: int = 0
    jobs: int = 1
    address: str | None = None
    data_dir: Path | None = None


def train_and_report(asked: SourceTraining) -> None:
    """Train, write what came of it, and say where it is.

    Raises:
        BanditloopError: the data cannot be read, or nothing can be trained on it.
    """
    from policies.artifacts import source_artifact
    from policies.artifacts.profile_file import write_profiles
    from policies.training.train import progress_bars, run_training
    from serve_app.settings import Settings

    # A salt that cannot be had is said before the work, not after it.
    salt = Settings.with_options(data_dir=asked.data_dir).secret()
    name, events, items, weights, data = _data_of(asked)

    with _where_to_fit(asked) as map_tasks, progress_bars() as progress:
        run = run_training(
            events,
            items,
            sources=asked.sources,
            seed=asked.seed,
            progress=progress,
            map_tasks=map_tasks,
        )
    for source, reason in run.left_out.items():
        say(f"left out: {source}: {reason}")

    version = source_artifact.write(run.artifact, asked.out)
    say(("trained", "green"), f"  {', '.join(run.artifact.sources)}  {asked.out}  {version}")

    profiles = asked.out / PROFILES
    write_profiles(profiles, run.histories, salt=salt, data=data, artifact=version)
    say(f"profiles of {len(run.histories.users):,} users in {profiles}")

    if asked.spec_out is not None:
        paths = SpecPaths(asked.spec_out, asked.out, profiles)
        text = choose_text(
            name, events, items, weights, list(run.artifact.sources), paths, asked.seed
        )
        write_text(asked.spec_out, text)
        load_spec(asked.spec_out)
        say(("chosen", "green"), f"  {asked.spec_out}, each choice with what was measured")
        say(f"banditloop serve {asked.spec_out}")


def _data_of(
    asked: SourceTraining,
) -> "tuple[str, CodedEvents, list[dict[str, Any]], WeightOptions, str]":
    """Return the name, the events, the catalogue, what events are worth, and the data's digest."""
    from policies.data.data_set import DataSet

    if asked.events:
        return asked.out.absolute().name, *_all_of(_imported(asked))[1:]
    if asked.data is not None:
        return _all_of(DataSet.open(asked.data))

    from simulator.worlds.demo import load_world
    from simulator.worlds.movielens import RATINGS

    world = load_world()
    return "movielens", world.train_events, list(world.catalogue), RATINGS, world.digest


def _all_of(data: "DataSet") -> "tuple[str, CodedEvents, list[dict[str, Any]], WeightOptions, str]":
    manifest = data.manifest
    return manifest.name, data.coded(), data.items(), manifest.weights, data.digest


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
        preset=asked.preset,
    )
    return DataSet.open(folder)


@contextmanager
def _where_to_fit(asked: SourceTraining) -> "Iterator[MapTasks | None]":
    """Yield a map over processes or a cluster, None for this process."""
    from simulator.parallel import OnRay, in_processes

    if asked.address is not None:
        with ray_kept_quiet(asked.address):
            yield OnRay(asked.address)
    else:
        yield in_processes(asked.jobs) if asked.jobs > 1 else None
