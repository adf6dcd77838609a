"""The command ``banditloop demo``: its options."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import one_command, out_file

app = one_command()


@app.command()
def demo(
    rounds: Annotated[int, typer.Option(min=100, help="Decisions to make over HTTP")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of users, delays and training")] = 0,
    port: Annotated[int, typer.Option(help="HTTP port")] = 8000,
    out: Annotated[
        Path, out_file("File to write the report to; the picture goes beside it as .png")
    ] = Path("demo-report.json"),
) -> None:
    """Train, serve, and watch a bandit learn on MovieLens-100K over real HTTP."""
    from serve_app.cli.demo.run import run_demo

    run_demo(rounds=rounds, seed=seed, port=port, out=out)
