"""What commands print.

Nothing of it is markup: names, paths and messages are shown as they are; styles are given.

A table loses nothing where the terminal is narrow: numbers stay whole, text goes on below.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table
from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """On which square brackets, ``:names:`` and numbers are text like any other."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


printed, notes = console(), console(stderr=True)
"""A command's result; what it says meanwhile."""


def say(*words: str | tuple[str, str], on: Console = notes) -> None:
    """One line, however long. A pair is a text and its style."""
    on.print(Text.assemble(*words), soft_wrap=True)


def words(template: str) -> TextColumn:
    """A column of a progress bar; ``template`` as in ``rich.progress.TextColumn``."""
    return TextColumn(template, markup=False)


def table(
    *heads: str,
    title: str | None = None,
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
    caption: str | None = None,
    show_header: bool = True,
    show_lines: bool = False,
) -> Table:
    """A table with these heads; those in ``numbers`` are of numbers, to the right.

    Neither they nor what stands below the heads in ``whole`` is divided; other text is, where it
    must be.
    """
    made = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_header=show_header,
        show_lines=show_lines,
    )
    for head in heads:
        if head in numbers:
            made.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
        else:
            made.add_column(head, overflow="fold", no_wrap=head in whole)
    return made


@contextlib.contextmanager
def work_on_ray(address: str | None) -> Iterator[None]:
    """The same for a command that works on Ray, if it does.

    The file is left if the work failed and Ray said why.
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
    """What this project says is on the screen.

    What Ray says, and every process of its, goes to the file ``log``.

    That is advice on what is settled already, warnings of what is no danger, and traces of what was
    told to end.
    """
    if also_theirs:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with log.open("wb") as file, os.fdopen(os.dup(2), "w", buffering=1) as screen:
        handler = logging.StreamHandler(screen)
        handler.setLevel(logging.WARNING)
        ours = logging.getLogger("banditloop")
        ours.addHandler(handler)
        notes.file = screen
        for number in kept:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in kept.items():
                os.dup2(before, number)
                os.close(before)
            notes.file = None  # type: ignore[assignment]  # standard error, whatever that is by then
            ours.removeHandler(handler)
