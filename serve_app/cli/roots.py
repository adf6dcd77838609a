"""What the commands that state roots of logs have in common."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bandits.log.positions import position_ms
from serve_app.cli.terminal import output, say

if TYPE_CHECKING:
    from policies.archive.listing import ListedFile

Age = Annotated[str, typer.Argument(help="Age of the root, as 30d: a number and s, m, h, d or w")]
RemoveOlder = Annotated[
    bool,
    typer.Option("--remove", help="Then remove the archive's files that nothing needs any more"),
]


def say_root(position: str, digest: str, older: "Sequence[ListedFile]", *, removed: bool) -> None:
    """Say where a log begins, and what is before it.

    Args:
        position: the root's.
        digest: that of the state there.
        older: the archive's files before it.
        removed: whether they were removed.
    """
    time = datetime.fromtimestamp(position_ms(position) / 1000, UTC)
    done = "before it were removed" if removed else "are before it"
    size = sum(file.size for file in older)
    say(("root", "green"), f"  {position} UTC {time:%Y-%m-%d %H:%M:%S}", on=output)
    say(f"      {digest}: {len(older):,} files, {size:,} bytes {done}", on=output)
