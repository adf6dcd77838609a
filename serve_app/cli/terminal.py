"""The output of commands: results on standard output, messages and progress on standard error.

Nothing is read as markup: names, paths and messages are shown as they are, and styles are passed
apart from text. A table loses nothing on a narrow terminal: numbers stay whole, and text wraps.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console that takes square brackets, ``:names:`` and numbers for ordinary text."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


output = plain_console()
"""Standard output: the result that a command was asked for."""

messages = plain_console(stderr=True)
"""Standard error: what a command says while it works."""


def say(*parts: str | tuple[str, str], on: Console = messages) -> None:
    """Print one line, however long; a pair is a text and its style."""
    on.print(Text.assemble(*parts), soft_wrap=True)


def text_column(template: str) -> TextColumn:
    """Make a progress bar's column of text; ``template`` as in ``rich.progress.TextColumn``."""
    return TextColumn(template, markup=False)


def progress_bar(*details: str, console: Console = messages, transient: bool = False) -> Progress:
    """Make a bar of a known number of steps: description, count, details, and the time it takes.

    Args:
        details: Templates of further text columns, such as ``{task.fields[rate]}``.
        console: Where the bar is shown.
        transient: Whether the bar disappears when it ends.
    """
    return Progress(
        text_column("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *map(text_column, details),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
    )


def progress_count(unit: str) -> Progress:
    """Make a spinner that counts steps of an unknown number, and disappears at the end."""
    return Progress(
        SpinnerColumn(),
        text_column("{task.description}"),
        text_column("{task.completed:,.0f} " + unit),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
    )


def empty_table(
    *heads: str,
    title: str | None = None,
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
    caption: str | None = None,
    show_header: bool = True,
    show_lines: bool = False,
) -> Table:
    """Make a table without rows.

    Args:
        heads: The columns' heads.
        title: Line above the table.
        numbers: Heads of columns of numbers, which are right-aligned and never wrapped.
        whole: Heads of columns of text that is never wrapped; other text wraps where it must.
        caption: Line below the table.
        show_header: Whether the heads are shown.
        show_lines: Whether rows are separated by lines.
    """
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_header=show_header,
        show_lines=show_lines,
    )

    # A head above numbers takes one line per word, so that the numbers decide the width.
    for head in heads:
        if head in numbers:
            table.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
        else:
            table.add_column(head, overflow="fold", no_wrap=head in whole)
    return table


def print_report(
    report: Any, tables: Sequence[Table | Text], out: Path | None, *, as_json: bool
) -> None:
    """Write a report to a file if one is named, and print it.

    Args:
        report: The report, as msgspec encodes it.
        tables: The report for a person.
        out: File to write the report to, as JSON.
        as_json: Whether to print JSON instead of the tables.
    """
    data = msgspec.json.format(msgspec.json.encode(report))
    if out is not None:
        out.write_bytes(data)

    if as_json:
        typer.echo(data)
        return

    # A line of text may be wrapped by the terminal itself; a table has its width already.
    for part in tables:
        output.print(part, soft_wrap=isinstance(part, Text))


@contextlib.contextmanager
def ray_kept_quiet(address: str | None) -> Iterator[None]:
    """Keep off the screen what Ray prints, where a command works on Ray (``address`` is not None).

    Ray's output goes to a temporary file. It is left if the work failed and Ray printed anything.
    """
    if address is None:
        yield
        return

    log = Path(tempfile.gettempdir()) / f"banditloop-ray-{os.getpid()}.log"
    try:
        with screen_of_ours(log):
            yield
    except BaseException:
        if log.stat().st_size == 0:
            log.unlink()
        raise
    log.unlink()


@contextlib.contextmanager
def screen_of_ours(log: Path, *, also_theirs: bool = False) -> Iterator[None]:
    """Show only this project's messages; what Ray and its processes print goes to the file ``log``.

    Ray prints advice on settled matters, warnings of no danger, and traces of what was told to end.

    Args:
        log: File that receives all other output; it is overwritten.
        also_theirs: Whether to redirect nothing.
    """
    if also_theirs:
        yield
        return

    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    originals = {number: os.dup(number) for number in (1, 2)}

    with log.open("wb") as file, os.fdopen(os.dup(2), "w", buffering=1) as screen:
        # Our warnings and messages keep the screen.
        handler = logging.StreamHandler(screen)
        handler.setLevel(logging.WARNING)
        our_logger = logging.getLogger("banditloop")
        our_logger.addHandler(handler)
        messages.file = screen

        # Other processes inherit the file descriptors, so these are what is redirected.
        for number in originals:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in originals.items():
                os.dup2(original, number)
                os.close(original)
            # None stands for standard error, whatever that is by then.
            messages.file = None  # type: ignore[assignment]
            our_logger.removeHandler(handler)
