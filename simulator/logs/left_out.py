"""What of a log is no row, and why: counted, so that nothing is left out in silence."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BAD = "bad rows"
MARKER = "lines that do not begin with {"
EMPTY_LOG_ADVICE = "give a log that is not empty"
"""Where there is nothing that was left out."""


@dataclass(slots=True)
class LeftOut:
    """``counts``: how many records are no rows, by why.

    ``first_bad``: what is wrong with the first bad one.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""

    @property
    def skipped(self) -> int:
        """Bad rows and lines that are no records; the others are what such a log holds, too."""
        return self.counts[BAD] + self.counts[MARKER]

    def add(self, why: str, message: str = "") -> None:
        """One more. ``message``: of a bad one."""
        self.counts[why] += 1
        self.first_bad = self.first_bad or message

    def merge(self, other: "LeftOut") -> None:
        """Add those of a later part of the log."""
        self.counts.update(other.counts)
        self.first_bad = self.first_bad or other.first_bad

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.counts)

    def __str__(self) -> str:
        """For a reader, empty if there is nothing to say."""
        said = []
        for why, count in self.counts.items():
            first = f" (the first: {self.first_bad})" if why == BAD and self.first_bad else ""
            said.append(f"{why}: {count:,}{first}")
        return "; ".join(said)


def left_out_of(pieces: Iterable[Any]) -> LeftOut:
    """What some pieces, when they were read last, have left out.

    Those that do not say why had bad rows only.
    """
    total = LeftOut()
    for piece in pieces:
        known = getattr(piece, "left_out", None)
        if isinstance(known, LeftOut):
            total.merge(known)
        elif piece.skipped:
            total.merge(LeftOut(Counter({BAD: piece.skipped})))
    return total
