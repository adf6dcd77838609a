"""The page of the command line, from the commands that typer makes."""

from collections.abc import Iterator
from typing import Any

import typer
from describe import paragraphs, single_backticks, table, type_text

from serve_app.cli import main as cli


def command_line() -> str:
    """Return the page of all commands and their options."""
    parts = [
        "# Command line",
        (
            "`banditloop COMMAND --help` prints the same. Every error is one line on stderr, with"
            " exit status 1 unless a command says otherwise."
        ),
    ]
    for name, command in commands().items():
        parts += [f"## {name}", *paragraphs(command.help or "")]
        arguments = filter(_is_argument, command.params)
        usage = " ".join([name, "[OPTIONS]", *(_argument(each) for each in arguments)])
        parts.append(f"Usage: `{usage}`")

        rows = [
            (
                _flags(each),
                _parameter_type(each),
                _parameter_default(each),
                single_backticks(each.help or ""),
            )
            for each in command.params
            if each.name != "help"
        ]
        if rows:
            parts.append(table(("option", "type", "default", "meaning"), rows))
    return "\n\n".join(parts)


def commands() -> dict[str, Any]:
    """Return all commands by their full name, in the order of the help."""
    return dict(_walk("banditloop", typer.main.get_command(cli.app)))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and those below it, but no group that does nothing itself."""
    children = getattr(command, "commands", {})
    if not children or getattr(command, "invoke_without_command", False):
        yield name, command
    for child, below in children.items():
        yield from _walk(f"{name} {child}", below)


def _is_argument(parameter: Any) -> bool:
    """Say whether a parameter is an argument, not an option."""
    return not parameter.opts[0].startswith("-")


def _argument(argument: Any) -> str:
    """Return an argument as a usage line has it."""
    name = str(argument.name).upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    """Return how a parameter is written."""
    if _is_argument(parameter):
        return f"`{_argument(parameter)}`"
    return ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))


def _parameter_type(parameter: Any) -> str:
    """Return the type of a parameter, with its limits."""
    text = type_text(parameter.type_descriptor.annotation)
    limits = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", parameter.min), ("≤", parameter.max))
        if bound is not None
    ]
    return ", ".join([text, *limits])


def _parameter_default(parameter: Any) -> str:
    """Return the default of a parameter, if it is more than nothing."""
    if parameter.required:
        return "required"
    default = parameter.default
    nothing = default is None or default is False or callable(default)
    return "" if nothing else f"`{default}`"
