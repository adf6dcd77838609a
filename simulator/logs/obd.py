"""The Open Bandit Dataset (Saito et al. 2020, arXiv:2008.07146): a campaign's folder, as rows.

A row is one position of one page view. Its context is the position, 1 to 3, and the four user features; its actions are
the campaign's items, each with the item's features and the user's affinity to it. The data set holds the propensity of
the shown item only.
"""

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import overload

from bandits.errors import BadRowError, ReplayError
from bandits.values import MAX_NUMBER, FeatureMap, Value
from simulator.logs.base import LoggedDecision, check_row
from simulator.logs.csv_log import number_or_text
from simulator.logs.lines import PIECE_BYTES, Parsed, Record, RecordPiece, cut

AFFINITY = "user-item_affinity_"
USER = "user_feature_"
ITEMS = "item_context.csv"


class Items(Sequence[FeatureMap | None]):
    """The campaign's items for one user: made when they are looked at, since an estimate by weights never does."""

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
        """One item's features, or some."""
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        return {**self._items[at], "affinity": self._affinities[at]}


@dataclass(frozen=True, slots=True)
class ObdRow:
    """Reads one line of a campaign's file."""

    columns: dict[str, int]
    item_ids: tuple[str, ...]
    items: tuple[FeatureMap, ...]

    def __call__(self, record: Record) -> Parsed:
        """See RecordPiece. The header is no row."""
        if record.offset == 0:
            return None
        where = record.where()
        (cells,) = csv.reader([record.lines[0].decode(errors="replace")])
        if len(cells) != len(self.columns):
            raise BadRowError(f"{where}: {len(self.columns)} columns, not {len(cells)}", "columns")
        item = cells[self.columns["item_id"]]
        if item not in self.item_ids:
            raise BadRowError(f"{where}: item {item!r} is not in {ITEMS}", "item_id")
        users: dict[str, Value] = {name: cells[at] for name, at in self.columns.items() if name.startswith(USER)}
        affinities = [self._number(cells, f"{AFFINITY}{each}", where) for each in self.item_ids]
        row = LoggedDecision(
            event_id=f"{record.path.name}#{cells[0]}",
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
        try:
            value = float(cells[self.columns[column]])
        except ValueError:
            value = math.nan
        if not abs(value) <= MAX_NUMBER:
            raise BadRowError(f"{where}: {column} is a number, not {cells[self.columns[column]]!r}", column)
        return value

    def _time_ms(self, cells: list[str], where: str) -> int:
        try:
            return round(datetime.fromisoformat(cells[self.columns["timestamp"]]).timestamp() * 1000)
        except ValueError as error:
            raise BadRowError(f"{where}: timestamp is a time", "timestamp") from error


def obd_pieces(folder: Path, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False) -> list[RecordPiece]:
    """A campaign's folder, with ``item_context.csv`` and the campaign's own file, ``<campaign>.csv``.

    Raises:
        ReplayError: it is not such a folder; names the file and the column.
    """
    path = folder / f"{folder.name}.csv"
    _, items = _read(folder / ITEMS, {"item_id"})
    by_id: dict[str, FeatureMap] = {}
    for line in items:
        by_id[line["item_id"]] = {
            name: number_or_text(text) for name, text in line.items() if name.startswith("item_feature_")
        }
    item_ids = tuple(sorted(by_id, key=_by_number))
    affinities = {f"{AFFINITY}{each}" for each in item_ids}
    header, _ = _read(path, {"timestamp", "item_id", "position", "click", "propensity_score", *affinities}, limit=0)
    parse = ObdRow({name: at for at, name in enumerate(header)}, item_ids, tuple(by_id[each] for each in item_ids))
    return [RecordPiece(span, parse, skip_bad) for span in cut(path, piece_bytes=piece_bytes)]


def _read(path: Path, needed: set[str], limit: int | None = None) -> tuple[Sequence[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            rows = list(itertools.islice(reader, limit))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path}: not a campaign of the Open Bandit Dataset: {error}", "log") from error
    if missing := sorted(needed.difference(header)):
        raise ReplayError(f"{path}: no column {missing[0]!r}", "log")
    return header, rows


def _by_number(item_id: str) -> tuple[int, str]:
    return (int(item_id) if item_id.isdecimal() else -1, item_id)
