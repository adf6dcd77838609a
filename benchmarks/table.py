"""What a benchmark measured, goal beside measurement, printed as it is measured and kept as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe


class Table:
    """Rows with or without a goal."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        what: str,
        measured: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """``value`` is held against a goal, if there is one."""
        reached, goal = None, ""
        if at_least is not None:
            reached, goal = bool(value >= at_least), f"≥ {at_least:,g}"
        elif at_most is not None:
            reached, goal = bool(value <= at_most), f"≤ {at_most:,g}"
        self.rows.append(
            {
                "what": what,
                "measured": measured,
                "value": float(value),
                "goal": goal,
                "reached": reached,
            }
        )
        print(line(self.rows[-1]), flush=True)

    def finish(self, out: Path | None, **more: object) -> int:
        """Write the file, print how many goals were reached.

        The exit status, 1 if one was missed, 3 without rows.
        """
        reached, goals = summary(self.rows)
        if out is not None:
            report = {"machine": describe(), "rows": self.rows, "goals": [reached, goals], **more}
            out.write_text(json.dumps(report, indent=2) + "\n")
        print(
            f"goals reached: {reached} of {goals}"
            if self.rows
            else "nothing to check: nothing was measured"
        )
        return (0 if reached == goals else 1) if self.rows else 3


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    mark = "" if row["reached"] is None else "reached" if row["reached"] else "NOT reached"
    goal = f"goal {row['goal']}" if row["goal"] else ""
    return f"{row['what']:66s} {row['measured']:40s} {goal:13s} {mark}".rstrip()


def summary(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Goals reached, of how many."""
    held = [row["reached"] for row in rows if row["reached"] is not None]
    return sum(map(bool, held)), len(held)
