"""The entry point ``banditloop``: find the command asked for, and report errors in one line.

Adding a command takes one new module in this package, whose ``app`` is a ``typer.Typer``, and one
entry in ``COMMANDS``.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bandits.compiling import tell_once
from serve_app.cli.errors import say_error
from serve_app.cli.options import command_group
from serve_app.host.environment import prepare_environment

COMMANDS = {
    "serve": "Serve policies over HTTP until interrupted.",
    "apply": "Change what a running service serves, while requests go on.",
    "demo": "Watch a bandit learn on MovieLens-100K over real HTTP.",
    "doctor": "Audit a policy's log.",
    "report": "Say what a policy is worth, and how sure that is.",
    "replay": "Estimate what other policies would have earned on a log.",
    "evaluate": "Judge candidate sources on the later part of a data set.",
    "worlds": "Test policies and estimators where the truth is known.",
    "data": "Make data sets of tables, look at them, and fetch public ones.",
    "keys": "Manage the service's API keys.",
    "users": "Copy who users are, and bring them back.",
    "archive": "Inspect the log's Parquet files.",
    "snapshots": "Inspect, pin and verify a policy's stored models.",
    "spaces": "See which policies share users and items, and have one leave.",
    "profiles": "Compare profiles of users with the logs, and make them anew.",
    "artifact": "See which trained sources serve, and have others serve.",
    "train": "Fit candidate sources, or a policy.",
    "refresh": "Train a policy's sources anew on its log.",
    "migrate": "Make a policy of what another service has exported.",
    "explain": "Say why a decision of the log is as it is.",
    "preview": "Say what a running service would choose, and why.",
    "erase": "Forget users: nothing links them to what is logged.",
}
"""Each command's one line in the list; its module is ``serve_app.cli.<command>``."""

INTERRUPTED = 130


class LoadedOnDemand(Mapping[str, Any]):
    """Every command by its name; its module is imported when the command is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            help_line = COMMANDS[name]  # raises KeyError before anything is imported
            module = importlib.import_module(f"serve_app.cli.{name}")
            command = typer.main.get_command(module.app)
            command.name, command.short_help = name, help_line
            self._loaded[name] = command
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """The whole command line; listing its commands imports none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": None})
        self.commands: Any = LoadedOnDemand()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's signature
        """Write the list of commands in ``banditloop --help``."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = command_group(
    "Serve contextual bandits, and audit, evaluate and manage what they learn.", LazyGroup
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as version_of

        typer.echo(f"banditloop {version_of('banditloop')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit"
        ),
    ] = False,
) -> None:
    """Declare the options that stand before a command."""


def _say_it_compiles() -> None:
    from serve_app.cli.terminal import say

    say("compiling for this machine, once (a minute or two)")


def main() -> None:
    """Run a command; print an expected error in one line and exit with status 1."""
    # Ray and numpy read the environment when a command's module imports them.
    prepare_environment()
    tell_once(_say_it_compiles)

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not say_error(error):
            raise
        sys.exit(1)
