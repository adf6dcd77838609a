"""The Open Bandit Dataset (Saito et al. 2020, arXiv:2008.07146): a campaign's folder, as rows.

A row is one position of one page view. Its context is the position, 1 to 3, and the four user
features; its actions are the campaign's items, each with the item's features and the user's
affinity to it. The data set holds the propensity of the shown item only.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import overload

import pyarrow as pa

from bandits.errors import BadRowError
from bandits.values import MAX_NUMBER, FeatureMap, Value
from simulator.logs.rows import LoggedDecision, check_row
from simulator.logs.tables import ColumnEvidence, column_features, number_of, read_header, read_rows
from simulator.logs.text_records import PIECE_BYTES, Parsed, RecordPiece, TextRecord, cut_into_spans

AFFINITY = "user-item_affinity_"
USER = "user_feature_"
ITEM_FEATURE = "item_feature_"
ITEMS = "item_context.csv"


class Items(Sequence[FeatureMap | None]):
    """A campaign's items for one user, each with its features.

    They are made when they are looked at, which an estimate by weights never does.
    """

    def __init__(self, items: Sequence[FeatureMap], affinities: Sequence[float]) -> None:
        self._items = items
        self._affinities = affinities

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> FeatureMap | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[FeatureMap | None]: ...
    def __getitem__(self, at: int | slice) -> FeatureMap | Sequence[FeatureMap | None] | None:
        """Return one item's features, or those of some."""
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        return {**self._items[at], "affinity": self._affinities[at]}


@dataclass(frozen=True, slots=True)
class ObdRow:
    """Reads one line of a campaign's file.

    Attributes:
        width: How many columns the file has.
        columns: Place of each column by name.
        item_ids: Ids of the campaign's items.
        items: Their features, in the same order.
        index: Place of the column of row numbers, which has no name, if there is one.
    """

    width: int
    columns: dict[str, int]
    item_ids: tuple[str, ...]
    items: tuple[FeatureMap, ...]
    index: int | None

    def __call__(self, record: TextRecord) -> Parsed:
        """Return a line as a row; the header is none. See RecordPiece.

        Raises:
            BadRowError: The line is malformed.
        """
        if record.offset == 0:
            return None

        where = record.where()
        (cells,) = csv.reader([record.lines[0].decode(errors="replace")])
        if len(cells) != self.width:
            raise BadRowError(f"{where}: {self.width} columns, not {len(cells)}", "columns")
        item = cells[self.columns["item_id"]]
        if item not in self.item_ids:
            raise BadRowError(f"{where}: item {item!r} is not in {ITEMS}", "item_id")

        # A row without a number is named by its place in the file.
        number = "" if self.index is None else cells[self.index].strip()
        numbered = f"{record.called or record.path.name}#{number}"

        users: dict[str, Value] = {
            name: cells[at] for name, at in self.columns.items() if name.startswith(USER)
        }
        affinities = [self._number(cells, f"{AFFINITY}{name}", where) for name in self.item_ids]
        row = LoggedDecision(
            event_id=numbered if number else record.event_id,
            context={"position": self._number(cells, "position", where), **users},
            action_ids=self.item_ids,
            chosen=self.item_ids.index(item),
            propensity=self._number(cells, "propensity_score", where),
            reward=self._number(cells, "click", where),
            features=Items(self.items, affinities),
            time_ms=self._time_ms(cells, where),
        )
        return check_row(row, where), 1.0

    def _number(self, cells: list[str], column: str, where: str) -> float:
        value = number_of(cells[self.columns[column]])
        if not abs(value) <= MAX_NUMBER:
            raise BadRowError(
                f"{where}: {column} is a number, not {cells[self.columns[column]]!r}", column
            )
        return value

    def _time_ms(self, cells: list[str], where: str) -> int:
        try:
            return round(
                datetime.fromisoformat(cells[self.columns["timestamp"]]).timestamp() * 1000
            )
        except ValueError as error:
            raise BadRowError(f"{where}: timestamp is a time", "timestamp") from error


def obd_pieces(
    folder: Path, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False
) -> list[RecordPiece]:
    """Return the pieces of a campaign's folder: ``item_context.csv`` and ``<campaign>.csv``.

    Args:
        folder: The folder, which has the campaign's name.
        piece_bytes: Size of a piece, about.
        skip_bad: Whether bad rows are counted and left out, rather than an error.

    Raises:
        ReplayError: It is not such a folder; names the file and the column.
    """
    path = folder / f"{folder.name}.csv"
    items, notes = _items(folder / ITEMS)
    item_ids = tuple(sorted(items, key=_by_number))

    affinities = [f"{AFFINITY}{name}" for name in item_ids]
    wanted = ["timestamp", "item_id", "position", "click", "propensity_score", *affinities]
    header = read_header(path, wanted, delimiter=",").names
    index = header.index("") if "" in header else None
    columns = {name: at for at, name in enumerate(header) if name}

    parse = ObdRow(len(header), columns, item_ids, tuple(items[name] for name in item_ids), index)
    return [
        RecordPiece(span, parse, skip_bad, column_notes=notes)
        for span in cut_into_spans(path, piece_bytes=piece_bytes)
    ]


def _items(path: Path) -> tuple[dict[str, FeatureMap], dict[str, str]]:
    """Return the features of each item, and how their columns were read.

    All items decide whether a column is of numbers or of text.
    """
    header, rows = read_rows(path, ["item_id"], "log")
    items: dict[str, FeatureMap] = {cells[header.names.index("item_id")]: {} for _, cells in rows}
    notes: dict[str, str] = {}
    for at, name in enumerate(header.names):
        if not name.startswith(ITEM_FEATURE):
            continue

        column = pa.array([cells[at] for _, cells in rows], pa.string())
        evidence = ColumnEvidence()
        evidence.add(column)
        notes[name] = evidence.note
        values = column_features(column, evidence.kind)
        for features, value in zip(items.values(), values, strict=True):
            if value is not None:
                features[name] = value
    return items, notes


def _by_number(item_id: str) -> tuple[int, str]:
    return (int(item_id) if item_id.isdecimal() else -1, item_id)
