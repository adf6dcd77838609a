"""Records of a log that are no rows, and why: counted, so that none is left out in silence."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BAD = "bad rows"
MARKER = "lines that do not begin with {"
EMPTY_LOG_ADVICE = "give a log that is not empty"
"""Advice where a log has no rows and nothing was left out."""


@dataclass(slots=True)
class LeftOut:
    """How many records of a log are no rows, and why.

    Attributes:
        counts: Number of records by reason.
        first_bad: What is wrong with the first bad record.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""

    @property
    def skipped(self) -> int:
        """Bad rows and lines that are no records; all else belongs in such a log."""
        return self.counts[BAD] + self.counts[MARKER]

    def add(self, why: str, message: str = "") -> None:
        """Count one record.

        Args:
            why: The reason, in words that a count can stand before.
            message: What is wrong with the record, if it is bad.
        """
        self.counts[why] += 1
        self.first_bad = self.first_bad or message

    def merge(self, other: "LeftOut") -> None:
        """Add the counts of a later part of the log."""
        self.counts.update(other.counts)
        self.first_bad = self.first_bad or other.first_bad

    def __bool__(self) -> bool:
        """Tell whether anything was left out."""
        return bool(self.counts)

    def __str__(self) -> str:
        """Describe what was left out; empty if nothing was."""
        reasons = []
        for why, count in self.counts.items():
            first = f" (the first: {self.first_bad})" if why == BAD and self.first_bad else ""
            reasons.append(f"{why}: {count:,}{first}")
        return "; ".join(reasons)


def left_out_of(pieces: Iterable[Any]) -> LeftOut:
    """Return what some pieces have left out when they were last read.

    Pieces that do not say why have left out bad rows only.
    """
    total = LeftOut()
    for piece in pieces:
        reasons = getattr(piece, "left_out", None)
        if isinstance(reasons, LeftOut):
            total.merge(reasons)
        elif piece.skipped:
            total.merge(LeftOut(Counter({BAD: piece.skipped})))
    return total
