"""``banditloop apply``: change what a service that runs on this machine serves."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.options import DataDir, NoPrior, one_command
from serve_app.cli.terminal import empty_table, output, say

if TYPE_CHECKING:
    from serve_app.admin.changes import PolicyChange

app = one_command()


@app.command()
def apply(
    specs: Annotated[list[Path], typer.Argument(help="Specs (YAML) of all policies to serve")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing")
    ] = False,
    data_dir: DataDir = None,
    no_prior: NoPrior = False,
) -> None:
    """Serve these policies from now on, and no others, while requests go on.

    Shows what changes, then has the running service change it: new replicas and learners start
    beside the old ones, which answer until the new ones do. A policy that is left out is served no
    more; its log stays. An artifact that banditloop train has written since is swapped in.

    Exit status 0: all of it is served. 1: it is not, with the reason, and what was served before
    still is.
    """
    from serve_app.host.environment import STARTING

    os.nice(STARTING)  # the imports take longest

    import msgspec

    from banditloop_client.errors import ServiceError
    from policies.spec import load_spec
    from serve_app.admin.changes import ApplyAnswer, ApplyRequest
    from serve_app.host.door import call
    from serve_app.settings import Settings

    wanted = [load_spec(path) for path in specs]
    if no_prior:
        wanted = [spec.without_prior for spec in wanted]
    asked = ApplyRequest([msgspec.Raw(msgspec.json.encode(spec)) for spec in wanted], dry_run)
    folder = Settings.with_options(data_dir=data_dir).data_dir

    for data in call(folder, msgspec.json.encode(asked)):
        answer = msgspec.json.decode(data, type=ApplyAnswer)
        if answer.code:
            raise ServiceError(0, answer.code, answer.note)
        if answer.changes is not None:
            _show(answer.changes)
            if not answer.changes:
                return
        elif answer.note:
            say(answer.note)
        if answer.seconds is not None:
            say(("done", "green"), f"  served after {answer.seconds:.1f} s", on=output)
            return
    if not dry_run:
        raise ServiceError(0, "interrupted", "the service has ended in the middle of the change")


def _show(changes: "list[PolicyChange]") -> None:
    if not changes:
        say("nothing changes: all of it is served already", on=output)
        return
    table = empty_table("policy", "what changes", whole=("policy",))
    for change in changes:
        table.add_row(change.policy, _said(change))
    output.print(table)


def _said(change: "PolicyChange") -> str:
    """Return a change in words."""
    if change.what == "added":
        return "one more policy"
    if change.what == "removed":
        return "served no more; its log stays"

    said = []
    if change.fields:
        anew = ": its model is of another shape, and learns anew" if change.anew else ""
        said.append(f"{', '.join(change.fields)}{anew}")
    if change.artifact is not None:
        said.append(f"artifact {change.artifact[0]} -> {change.artifact[1]}")
    return "; ".join(said)
