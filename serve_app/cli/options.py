"""The options that several commands have: one name, one type and one sentence for each, wherever it stands."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serve_app.settings import Settings


def group(help_: str, *, alone: bool = False) -> typer.Typer:
    """Commands; ``alone``: it is one itself, too.

    By default typer takes what stands in square brackets in a help text for markup, and leaves it
    out.
    """
    return typer.Typer(
        no_args_is_help=not alone,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=help_,
    )


def _new_file(path: Path | None) -> Path | None:
    """Said before the work begins, not after it."""
    if path is not None:
        folder = path.absolute().parent
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder: name a file")
        if not folder.is_dir():
            raise typer.BadParameter(f"there is no folder {folder}")
        _demand_writable(path if path.exists() else folder)
    return path


def _new_folder(path: Path) -> Path:
    """The same of a folder, which is made if need be."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is a file: name a folder")
    _demand_writable(there)
    return path


def _demand_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written to")


def out_file(help_: str, name: str = "--out") -> Any:
    """An option that names a file to be written."""
    return typer.Option(name, callback=_new_file, help=help_)


def out_folder(help_: str) -> Any:
    """An option that names a folder to be written to."""
    return typer.Option("--out", callback=_new_folder, help=help_)


PolicyName = Annotated[
    str | None, typer.Option("--policy", help="The policy's name [default: the only one there is]")
]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", help="Redis to use [default: that of --data-dir]")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the embedded Valkey, the salt and the archive live [default: .banditloop]",
    ),
]
KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys-file", help="API keys (YAML, or JSON if named .json); see banditloop keys"
    ),
]
Archive = Annotated[
    str | None,
    typer.Option(
        "--archive", help="Folder or URI of the archive, or none [default: DATA_DIR/archive]"
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Work on Ray: local, auto or HOST:PORT")
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Processes, where the work is not done on Ray")
]
Publish = Annotated[
    bool,
    typer.Option(
        "--publish", help="Let the served policy of this name go on from it: an entry of its log"
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--format", help="Of the log: archive, dsjson, vw, obd (a campaign's folder) or csv"
    ),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Of a CSV, e.g. '{reward: click, propensity: p, event_id: id}'"),
]
Window = Annotated[
    float | None,
    typer.Option(
        "--window-s",
        min=0.001,
        help="Of an archive: count rewards of so many seconds, before windows have closed",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Count malformed rows and leave them out")
]
ReportFile = Annotated[Path | None, out_file("Write the report to a file, as JSON")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")]


ALSO_WITHOUT = {"allow_extra_args": True}
"""Context settings of a command that takes its policy without ``--policy`` as well, as some always did."""


def the_name(option: str | None, context: typer.Context) -> str | None:
    """What was named, by ``--policy`` or without.

    Raises:
        UsageError: two policies are named.
    """
    named = {*context.args, *([] if option is None else [option])}
    if len(named) > 1:
        raise typer.BadParameter(
            f"one policy at a time, not {' and '.join(sorted(named))}", param_hint="'--policy'"
        )
    return named.pop() if named else None


def settings_of(**given: Any) -> "Settings":
    """The environment's settings, and over them what was given.

    Raises:
        ValidationError: names the setting.
    """
    from serve_app.settings import Settings  # noqa: PLC0415 - imports Redis, which --help can do without

    return Settings.with_options(**given)


RewardModels = Annotated[
    list[str] | None,
    typer.Option(
        help="Of dm and dr: ridge, logistic or gbm (needs scikit-learn); of several, the one that"
        " predicts unseen"
        " rewards best [default: ridge and logistic]"
    ),
]
