"""The course of ``banditloop train``: data set, sources, artifact, profiles, spec."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandits.errors import DataSetError
from policies.spec import load_spec
from serve_app.cli.terminal import progress_count, ray_kept_quiet, say
from serve_app.cli.train.specs import spec_text

if TYPE_CHECKING:
    from policies.data.coded import CodedEvents
    from policies.data.data_set import DataSet
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
    name, events, items, data = _data_of(asked)

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
        text = spec_text(name, list(run.artifact.sources), asked.out, profiles, asked.spec_out)
        asked.spec_out.write_text(text, encoding="utf-8")
        load_spec(asked.spec_out)
        say(f"banditloop serve {asked.spec_out}")


def _data_of(
    asked: SourceTraining,
) -> "tuple[str, CodedEvents, list[dict[str, Any]], str]":
    """Return the name, the events to learn from, the catalogue and the digest of the data."""
    from policies.data.data_set import DataSet

    if asked.events:
        return _all_of(_imported(asked))
    if asked.data is not None:
        return _all_of(DataSet.open(asked.data))

    from simulator.worlds.demo import load_world

    world = load_world()
    return "movielens", world.train_events, list(world.catalogue), world.digest


def _all_of(data: "DataSet") -> "tuple[str, CodedEvents, list[dict[str, Any]], str]":
    return data.manifest.name, data.coded(), data.items(), data.digest


def _imported(asked: SourceTraining) -> "DataSet":
    from importlib import import_module

    import_data: Any = import_module("simulator.imports").import_data

    with progress_count("rows") as bar:
        tasks: dict[str, Any] = {}

        def show(doing: str, rows: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=None)
            bar.update(tasks[doing], advance=rows)

        data: DataSet = import_data(
            asked.out / "data",
            asked.events,
            items=asked.items,
            users=asked.users,
            columns=_columns(asked.columns),
            name=asked.out.absolute().name,
            progress=show,
        )

    manifest, counts = data.manifest, data.manifest.counts
    say(
        f"imported {counts.events:,} events of {counts.users:,} users and {counts.items:,} items"
        f" into {data.root}"
    )
    columns = (f"{field} is {column}" for field, column in manifest.columns.items())
    say(f"columns: {', '.join(columns)}")
    for reason, dropped in manifest.dropped.items():
        say(f"left out: {dropped.rows:,} rows: {reason}")
    for note in manifest.notes:
        say(note)
    return data


def _columns(text: str | None) -> Mapping[str, Any]:
    """Return the columns in the text of an option, YAML."""
    from bandits.errors import InvalidFieldError
    from policies.typed_yaml import parse_yaml

    if text is None:
        return {}
    try:
        columns = parse_yaml(text.encode())
    except InvalidFieldError as error:
        raise DataSetError(f"--columns: {error.message}", "columns") from error
    if not isinstance(columns, dict):
        raise DataSetError("--columns is like '{user: visitor, item: sku, time: at}'", "columns")
    return columns


@contextmanager
def _where_to_fit(asked: SourceTraining) -> "Iterator[MapTasks | None]":
    """Yield a map over processes or a cluster, None for this process."""
    from simulator.parallel import OnRay, in_processes

    if asked.address is not None:
        with ray_kept_quiet(asked.address):
            yield OnRay(asked.address)
    else:
        yield in_processes(asked.jobs) if asked.jobs > 1 else None
