"""The options that several commands share: each is declared once, with one name, type and help."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperGroup

Values = TypeVar("Values")


def one_command() -> typer.Typer:
    """Make the application of a single command, whose help is its function's docstring."""
    # Typer would read square brackets in a help text as markup and leave them out: markup is off.
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def command_group(
    help_text: str, kind: type[TyperGroup] = TyperGroup, *, runs_alone: bool = False
) -> typer.Typer:
    """Make a group of commands.

    Args:
        help_text: The group's help.
        kind: The class that looks up the group's commands.
        runs_alone: Whether the group does something without a command, instead of showing its help.
    """
    app = one_command()
    app.info.cls, app.info.help, app.info.no_args_is_help = kind, help_text, not runs_alone

    # Without a callback, Typer would take a group of one command for that command.
    app.callback()(_do_nothing)
    return app


def _do_nothing() -> None:
    pass


def options_from(
    kind: type[Values],
) -> Callable[[Callable[[Values], None]], Callable[..., None]]:
    """Make a decorator that declares the fields of the dataclass ``kind`` as a command's options.

    The decorated function takes one ``kind`` with the values of the command line.
    """

    def declare(run: Callable[[Values], None]) -> Callable[..., None]:
        @functools.wraps(run)
        def command(**values: Any) -> None:
            run(kind(**values))

        # Typer reads a command's options from its signature.
        hints = get_type_hints(kind, include_extras=True)
        command.__annotations__ = hints
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=(
                        inspect.Parameter.empty
                        if field.default is dataclasses.MISSING
                        else field.default
                    ),
                    annotation=hints[field.name],
                )
                for field in dataclasses.fields(kind)  # type: ignore[arg-type]
            ]
        )
        return command

    return declare


# Output files and folders are checked before the work begins, not after it.


def _check_file(path: Path | None) -> Path | None:
    if path is None:
        return None

    folder = path.absolute().parent
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: name a file")
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}")

    _check_writable(path if path.exists() else folder)
    return path


def _check_folder(path: Path) -> Path:
    # A folder that does not exist yet is made inside the nearest one that does.
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise typer.BadParameter(f"{existing} is a file: name a folder")

    _check_writable(existing)
    return path


def _check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written to")


def out_file(help_text: str, name: str = "--out") -> Any:
    """Declare an option that names a file to write.

    Args:
        help_text: Help of the option.
        name: The option as it is typed.
    """
    return typer.Option(name, callback=_check_file, help=help_text)


def out_folder(help_text: str) -> Any:
    """Declare an option ``--out`` that names a folder to write to."""
    return typer.Option("--out", callback=_check_folder, help=help_text)


def folder_to_write(help_text: str) -> Any:
    """Declare an argument that names a folder to write to."""
    return typer.Argument(callback=_check_folder, help=help_text)


PolicyName = Annotated[
    str | None, typer.Option("--policy", help="Name of the policy [default: the only one there is]")
]
SpaceName = Annotated[
    str | None, typer.Option("--space", help="Name of the space [default: the only one there is]")
]
ProfileFiles = Annotated[
    list[str] | None,
    typer.Option("--profiles", help="File of profiles that has users, too; may be repeated"),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", help="URL of Redis [default: the embedded Valkey of --data-dir]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the embedded Valkey, the salt and the archive [default: .banditloop]",
    ),
]
KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys-file", help="File of API keys (YAML, or JSON if named .json); see banditloop keys"
    ),
]
Archive = Annotated[
    str | None,
    typer.Option(
        "--archive", help="Folder or URI of the archive, or none [default: DATA_DIR/archive]"
    ),
]
EventColumns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of the events, where their names do not tell, e.g. '{user: visitor, item:"
        " sku, time: null, time_unit: ms}'",
    ),
]
ItemColumns = Annotated[
    str | None,
    typer.Option(
        "--item-columns",
        help="Columns of the items, where their names do not tell, e.g. '{item: ref,"
        " text: [title, notes], available_from: since, time_unit: ms}'",
    ),
]
UserColumns = Annotated[
    str | None,
    typer.Option(
        "--user-columns",
        help="Column of the users, where its name does not tell, e.g. '{user: key}'",
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="A published layout, such as movielens-1m")
]
EventWeights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="What an event of each type is worth, e.g. '{view: 1, cart: 3}' [default: 1]",
    ),
]
RatingScale = Annotated[
    str | None,
    typer.Option("--rating-scale", help="Lowest and highest value, if values are ratings: 1:5"),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator", help="What separates cells: a character, or :: [default: found out]"
    ),
]
Quote = Annotated[str, typer.Option("--quote", help="What encloses cells; empty: nothing does")]
Encoding = Annotated[str, typer.Option("--encoding", help="Encoding of text, e.g. latin-1")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Do the work on a Ray cluster: local, auto or HOST:PORT"),
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Number of processes, unless Ray does the work")
]
FittedWith = Annotated[
    Path | None,
    typer.Option(
        "--fit",
        help="File (YAML) of what sources are fitted with, by source and field, where that is not"
        " the usual; a search writes one",
    ),
]
NoPrior = Annotated[
    bool, typer.Option("--no-prior", help="Policies begin with nothing: make or use no prior")
]
Publish = Annotated[
    bool,
    typer.Option(
        "--publish",
        help="Let the served policy of this name go on learning from the model; an entry of its log"
        " says so",
    ),
]
LogSource = Annotated[
    str, typer.Option("--log", help="The log: a file, a glob, a folder, or an archive's URI")
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="Format of the log: archive, dsjson, vw, obd (a campaign's folder) or csv",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of a CSV log, e.g. '{reward: click, propensity: p, event_id: id}'",
    ),
]
Window = Annotated[
    float | None,
    typer.Option(
        "--window-s",
        min=0.001,
        help="Seconds after a decision within which rewards of an archived log count, also where"
        " its window has not closed [default: the spec's window, once it has closed]",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave malformed rows out, and count them")
]
RewardModels = Annotated[
    list[str] | None,
    typer.Option(
        help="Reward model of dm and dr: ridge, logistic or gbm (needs scikit-learn); of several,"
        " the one that predicts unseen rewards best is used [default: ridge and logistic]"
    ),
]
ReportFile = Annotated[Path | None, out_file("File to write the report to, as JSON")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")]


POLICY_AS_ARGUMENT = {"allow_extra_args": True}
"""Context settings of a command that also takes its policy without ``--policy``."""
AND_POLICY = "[OPTIONS] [POLICY]"
"""How the help of such a command shows what it takes."""


def policy_name_of(option: str | None, context: typer.Context) -> str | None:
    """Return the policy named by ``--policy`` or by an argument; None if neither names one.

    Args:
        option: The value of ``--policy``.
        context: The command's context, with the arguments that no parameter took.

    Raises:
        BadParameter: Two policies are named.
    """
    names = {*context.args, *([] if option is None else [option])}
    if len(names) > 1:
        raise typer.BadParameter(
            f"one policy at a time, not {' and '.join(sorted(names))}", param_hint="'--policy'"
        )
    return names.pop() if names else None
