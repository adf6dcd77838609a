"""A target policy that is a table of probabilities, in a CSV."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.types import Float64, Pmf
from bandits.values import FeatureMap, Value
from simulator.logs.actions.columns import FeatureColumns
from simulator.logs.rows import LogBatch, LoggedDecision
from simulator.logs.tables import MISSING, number_of, read_rows
from simulator.ope.targets import RowTarget, demand_actions

SUM_SLACK = 1e-3
"""How far from 1 the probabilities of a table may sum; they are then normalised."""
_NO_MATCH = object()
"""Stands for a cell that cannot be the value."""
_Key = tuple[Any, ...]
"""A context's values, in the order of the table's columns."""


class TableTarget(RowTarget):
    """Probabilities by context and action, from a CSV: ``[context column ...,]action,probability``.

    A row of the log finds its row of the table by what the log's values are: a text finds the same
    text, a number any cell that is this number (1.5 finds 1.50), true and false these words, and a
    missing value an empty cell.

    Raises:
        ReplayError: the file is no such table.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        super().__init__(name or path.stem)
        self._path = path
        self._columns, self._rows = _read_table(path)
        self._by_kinds: dict[tuple[type, ...], dict[_Key, dict[str, float]]] = {}

        # Rounded probabilities are normalised, and the report says so.
        off = sum(abs(sum(row.values()) - 1.0) > 1e-12 for row in self._rows.values())
        self._rows = {
            at: {a: p / sum(row.values()) for a, p in row.items()} for at, row in self._rows.items()
        }
        if off:
            note = (
                f"{path}: the probabilities of {off} contexts summed to 1 only nearly, and were"
                " normalised"
            )
            self.notes = (note,)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        probabilities = self._row_of(row.context)
        return np.array([probabilities.get(action_id, 0.0) for action_id in row.action_ids])

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the probabilities of all rows' actions; see Target.

        The table is looked at once for each of the contexts that differ.
        """
        actions = demand_actions(batch, self.name)
        places = {name: at for at, name in enumerate(actions.names)}
        out, by_name = np.empty(len(actions.ids)), np.empty(len(places))

        for rows in self._alike(actions.context):
            by_name[:] = 0.0
            for action_id, probability in self._row_of(
                actions.context.feature_map(int(rows[0]))
            ).items():
                if action_id in places:
                    by_name[places[action_id]] = probability
            for row in rows.tolist():
                mine = slice(actions.offsets[row], actions.offsets[row + 1])
                out[mine] = by_name[actions.ids[mine]]
        return out

    def _row_of(self, context: FeatureMap) -> dict[str, float]:
        """Return the table's row of a context: the probability by action id.

        Raises:
            ReplayError: it has none.
        """
        values = [context.get(column) for column in self._columns]
        kinds = tuple(type(value) for value in values)
        if kinds not in self._by_kinds:
            self._by_kinds[kinds] = self._rows_by_value(kinds)

        at = tuple("|".join(value) if isinstance(value, list) else value for value in values)
        probabilities = self._by_kinds[kinds].get(at)
        if probabilities is None:
            where = ", ".join(
                f"{name}={_shown(value)}" for name, value in zip(self._columns, values, strict=True)
            )
            raise ReplayError(
                f"the table of {self.name!r} has no row for {where or 'any context'}", "policy"
            )
        return probabilities

    def _alike(self, context: FeatureColumns) -> Iterable[NDArray[np.intp]]:
        """Return the rows whose contexts are one to the table, group by group."""
        wanted = np.array([term.name in self._columns for term in context.terms], np.bool_)
        kept = wanted[context.codes] if wanted.size else np.zeros(0, np.bool_)
        codes, values = context.codes[kept], context.values[kept]
        ends = np.concatenate([[0], np.cumsum(kept)])[context.offsets].tolist()

        groups: dict[bytes, list[int]] = {}
        for row, (first, stop) in enumerate(pairwise(ends)):
            key = codes[first:stop].tobytes() + values[first:stop].tobytes()
            groups.setdefault(key, []).append(row)
        return (np.array(rows) for rows in groups.values())

    def _rows_by_value(self, kinds: tuple[type, ...]) -> dict[_Key, dict[str, float]]:
        """Return the rows that values of these types can find, by the values.

        Raises:
            ReplayError: two rows are of one context.
        """
        rows: dict[_Key, dict[str, float]] = {}
        texts: dict[_Key, tuple[str, ...]] = {}

        # Of the ways to write that there is no value, an empty cell comes before a "NA".
        for cells in sorted(self._rows, key=lambda cells: sum(map(bool, cells))):
            at = tuple(
                _VALUE_OF_CELL.get(kind, str)(cell) for kind, cell in zip(kinds, cells, strict=True)
            )
            if _NO_MATCH in at:
                continue
            if at not in rows:
                rows[at], texts[at] = self._rows[cells], cells
                continue

            # Cells that are one value must be one text, but for those of no value.
            pairs = zip(kinds, texts[at], cells, strict=True)
            if any(one != other for kind, one, other in pairs if kind is not type(None)):
                both = " and ".join(", ".join(row) for row in (texts[at], cells))
                raise ReplayError(
                    f"{self._path}: the rows of {both} are of one context, since the log's values"
                    " are numbers: declare the column a text (--columns '{kinds: {NAME: text}}'),"
                    " or leave one of the rows out",
                    "policy",
                )
        return rows


def _number(cell: str) -> Any:
    value = number_of(cell)
    return _NO_MATCH if math.isnan(value) else value


_VALUE_OF_CELL: Mapping[type, Callable[[str], Any]] = {
    float: _number,
    int: _number,
    bool: lambda cell: {"true": True, "false": False}.get(cell.strip().lower(), _NO_MATCH),
    type(None): lambda cell: None if cell in MISSING else _NO_MATCH,
}
"""What a cell of a table is to a value of the log, by the value's type; of others, its text."""


def _read_table(path: Path) -> tuple[Sequence[str], dict[tuple[str, ...], dict[str, float]]]:
    """Read a table: its context columns, and by context the probability of each action.

    Raises:
        ReplayError: it is no such table.
    """
    header, lines = read_rows(path, ("action", "probability"), "policy")
    if header.names[-2:] != ["action", "probability"]:
        raise ReplayError(
            f"{path}: the header of a table is [context column,...]action,probability", "policy"
        )
    if "" in header.names:
        raise ReplayError(
            f"{path}: column {header.names.index('') + 1} has no name: leave it out (of pandas:"
            " index=False)",
            "policy",
        )

    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for line, (*at, action, text) in lines:
        row = rows.setdefault(tuple(at), {})
        if action in row:
            raise ReplayError(f"{path}:{line}: action {action!r} twice for one context", "policy")
        row[action] = number_of(text)
        if not 0.0 <= row[action] <= 1.0:
            raise ReplayError(
                f"{path}:{line}: a probability is a number in [0, 1], with a point, not {text!r}",
                "policy",
            )

    # A sum that is off by rounding is normalised by whoever reads the table.
    for context, row in rows.items():
        if abs(sum(row.values()) - 1.0) > SUM_SLACK:
            where, total = ", ".join(context) or "all actions", sum(row.values())
            raise ReplayError(
                f"{path}: the probabilities of {where} sum to {total:.6g}, not 1", "policy"
            )
    return header.names[:-2], rows


def _shown(value: Value | None) -> str:
    """Return a value as a table would have it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
