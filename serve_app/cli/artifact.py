"""``banditloop artifact``: which version of a policy's trained sources serves, and another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.options import DataDir, RedisUrl, command_group
from serve_app.cli.terminal import empty_table, output, say

if TYPE_CHECKING:
    from policies.spec import PolicySpec

app = command_group("See which artifact serves, and have another serve.")

PATIENCE_S = 10.0
"""Seconds to wait for a learner, and for the replicas after it."""

SpecFile = Annotated[
    Path, typer.Argument(help="The policy's spec (YAML), which names the artifact's folder")
]


@app.command("use", short_help="Serve another version, without a restart.")
def use_version(
    spec_file: SpecFile,
    version: Annotated[
        str | None, typer.Argument(help="The version [default: the folder's current one]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve it although a replica cannot load it")
    ] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have another version of the policy's artifact serve, without a restart.

    All replicas load it first. If one cannot, nothing changes. Then the log says that it serves,
    and they swap it in between two decisions.

    Exit status 0: it serves. 1: it does not, with the reason. 3: it is in the log, and no learner
    has read it yet.
    """
    from policies.artifacts.fetch import load_artifact, load_version
    from serve_app.admin.artifacts import items_lacking, use_artifact
    from serve_app.admin.open import opened
    from serve_app.cli.snapshots import say_outcome

    spec = _spec_with_artifact(spec_file)
    where = str(spec.artifact)
    artifact = load_artifact(where) if version is None else load_version(where, version)
    with opened(spec.name, redis_url, data_dir) as (stored, _):
        if lacking := items_lacking(artifact, stored.catalogue()).said:
            say(lacking, on=output)
        say_outcome(use_artifact(stored, spec, artifact, within_s=PATIENCE_S, force=force))


@app.command("show", short_help="Show which version each replica serves.")
def show_artifact(
    spec_file: SpecFile, redis_url: RedisUrl = None, data_dir: DataDir = None
) -> None:
    """Show the version that the log says, the folder's current one, and that of each replica."""
    from policies.artifacts.fetch import pinned
    from serve_app.admin.open import opened

    spec = _spec_with_artifact(spec_file)
    with opened(spec.name, redis_url, data_dir) as (stored, _):
        current = Path(pinned(str(spec.artifact)).partition("?")[0]).name
        table = empty_table("what", "version", "", title=spec.name, whole=("version",))
        table.add_row("the log says", stored.artifact() or "nothing yet", "")
        table.add_row(f"current in {spec.artifact}", current, "")
        for name, report in stored.served_artifacts().items():
            trouble = f"cannot load {report.wanted}: {report.reason}" if report.wanted else ""
            table.add_row(f"replica {name}", report.serves or "", trouble)
        output.print(table)
        if stored.artifact() not in {None, current}:
            say(f"to serve the current one: banditloop artifact use {spec_file}", on=output)


def _spec_with_artifact(path: Path) -> "PolicySpec":
    from bandits.errors import SpecError
    from policies.spec import load_spec

    spec = load_spec(path)
    if spec.artifact is None:
        raise SpecError(f"{path}: artifact: the spec names none", "artifact")
    return spec
