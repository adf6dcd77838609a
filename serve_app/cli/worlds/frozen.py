"""``banditloop worlds tables`` and ``parameters``: the worlds that nobody tunes to."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from serve_app.cli.options import AsJson, folder_to_write
from serve_app.cli.terminal import empty_table, print_report, progress_count
from serve_app.cli.worlds.command import app

if TYPE_CHECKING:
    from simulator.worlds.frozen.committed import WorldParameters
    from simulator.worlds.frozen.tables import WorldTables

WORLD_NAMES = "shop, drift, attackers, positions or segments"
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Another value of a parameter, e.g. users=1000; may be repeated [default: the"
        " committed ones]",
    ),
]


@app.command("tables", short_help="Write a frozen world's tables, as a shop would export them.")
def write_world_tables(
    world: Annotated[str, typer.Argument(help=WORLD_NAMES)],
    folder: Annotated[Path, folder_to_write("Folder to write the tables to")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world")] = 0,
    changes: Changes = None,
    decisions: Annotated[
        bool,
        typer.Option(
            "--decisions",
            help="Write decisions.csv, too: what was shown, among what, and its propensity",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a frozen world's tables, as a shop would export them.

    They are events.csv, items.csv and users.csv. The same world, seed and parameters give the same
    bytes.
    """
    from simulator.worlds.frozen.committed import changes_from
    from simulator.worlds.frozen.make import frozen_world
    from simulator.worlds.frozen.tables import write_tables

    with progress_count("events") as progress:
        task = progress.add_task(f"making {world}", total=None)
        made = frozen_world(world, seed, **changes_from(changes or ()))
        written = write_tables(
            made,
            folder,
            decisions=decisions,
            progress=lambda events: progress.update(
                task, description=f"playing {world}", completed=events
            ),
        )
    line = Text(
        f"{written.visits:,} visits until {written.ends} · digest {written.digest}\n"
        f"written to {written.folder}"
    )
    print_report(written, [_tables_table(written), line], None, as_json=as_json)


@app.command("parameters", short_help="Show the parameters of the frozen worlds.")
def show_parameters(
    world: Annotated[str | None, typer.Argument(help=f"{WORLD_NAMES} [default: all]")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameters of the frozen worlds, and the digest of the committed file.

    The reference page of the frozen worlds says what each means.
    """
    from bandits.errors import InvalidFieldError
    from simulator.worlds.frozen.committed import (
        PARAMETERS,
        changes_from,
        frozen_parameters,
        parameters_digest,
    )

    if changes and world is None:
        raise InvalidFieldError("--set: name the world whose parameter it is", "set")

    shown = {
        name: frozen_parameters(name, changes_from(changes or ()))
        for name in ([world] if world is not None else PARAMETERS)
    }
    report = {"digest": parameters_digest(), "worlds": shown}
    tables = [_parameters_table(name, given) for name, given in shown.items()]
    line = Text(f"committed parameters  {parameters_digest()}")
    print_report(report, [*tables, line], None, as_json=as_json)


def _tables_table(written: "WorldTables") -> Table:
    table = empty_table(
        *("file", "rows"),
        title=f"{written.world} · version {written.version}, seed {written.seed}",
        numbers=("rows",),
    )
    for name, rows in written.rows.items():
        table.add_row(name, f"{rows:,}")
    return table


def _parameters_table(name: str, given: "WorldParameters") -> Table:
    from simulator.worlds.frozen.committed import allowed_values, frozen_parameters

    table = empty_table(*("parameter", "value", "allowed"), title=name, whole=("parameter",))
    allowed, committed = allowed_values(type(given)), frozen_parameters(name)
    for field, value in _fields(given):
        other = value != getattr(committed, field)
        shown = f"{value}, not {getattr(committed, field)}" if other else str(value)
        table.add_row(field, shown, allowed[field])
    return table


def _fields(given: "WorldParameters") -> Iterator[tuple[str, object]]:
    yield from msgspec.structs.asdict(given).items()
