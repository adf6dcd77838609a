"""The columns that readers of the archive ask for, and how they follow from the records.

A file of the newest layout holds them. Of a file of an older one, which has fewer, the others are
derived while it is read, by the same function that writes them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from bandits.errors import CodecError
from bandits.log.codec import decode
from bandits.log.positions import log_order
from bandits.log.records import (
    ArtifactRecord,
    CatalogueRecord,
    DecisionRecord,
    LogRecord,
    RewardRecord,
    SpecRecord,
    kind_of,
)
from bandits.values import FeatureMap
from policies.archive.arrays import (
    CODED,
    INT64_MAX,
    flat_column,
    list_column,
    list_of,
    map_column,
    map_to,
    numbers_column,
)
from policies.archive.parts.rest import rest_of
from policies.archive.parts.ruled import RULED, ruled_column

UNDECODABLE = "undecodable"

FEATURE = pa.struct(
    [
        ("number", pa.float64()),
        ("flag", pa.bool_()),
        ("text", CODED),
        ("texts", list_of(CODED)),
    ]
)
"""The value of a feature: one of the four, the others are null."""
FEATURES = map_to(FEATURE)
CREDIT = pa.struct(
    [
        ("sources", list_of(CODED)),
        ("pmf", list_of(pa.float64())),
        ("credited", list_of(pa.int32())),
    ]
)
APPRENTICE = pa.struct(
    [
        ("served", CODED),
        ("pmf", list_of(pa.float64())),
        ("chosen", list_of(pa.int32())),
    ]
)
COLUMNS = pa.schema(
    [
        # Of every entry.
        pa.field("id", pa.string(), nullable=False),
        pa.field("ms", pa.int64(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("kind", CODED, nullable=False),
        # Of decisions, rewards and activations.
        ("event_id", pa.string()),
        # Of rewards.
        ("reward", pa.float64()),
        ("signal", CODED),
        ("reward_id", pa.string()),
        ("slot", pa.int64()),
        ("action_id", CODED),
        # Of decisions. First what they chose in slot 0, and how many slots and actions they have.
        ("propensity", pa.float64()),
        ("action", CODED),
        ("slots", pa.int32()),
        ("actions", pa.int32()),
        ("chosen", list_of(pa.int32())),
        ("action_ids", list_of(CODED)),
        ("pmf", list_of(pa.float64())),
        ("scores", map_to(list_of(pa.float32()))),
        ("context", FEATURES),
        ("features", list_of(FEATURES, nullable=True)),
        # Spec, catalogue and artifact are also of the entries that change them.
        ("spec", CODED),
        ("snapshot_id", CODED),
        ("catalogue", CODED),
        ("artifact", CODED),
        ("user", CODED),
        ("profile", CODED),
        ("deferred", pa.bool_()),
        ("holdout", pa.bool_()),
        ("unserved", pa.bool_()),
        ("failed", map_to(pa.string())),
        ("credit", CREDIT),
        *RULED,
        ("apprentice", APPRENTICE),
        # Kept for what later builds record; null today.
        ("challenger", CODED),
    ]
)
"""The columns of ``ArchiveReader.columns``; only ``features`` has lists with null elements."""


def decoded(data: bytes) -> LogRecord | None:
    """Return the record of an entry, None if it does not decode."""
    try:
        return decode(data)
    except CodecError:
        return None


def columns_of(
    ids: Sequence[str],
    records: Sequence[LogRecord | None],
    names: Iterable[str] = tuple(COLUMNS.names),
) -> pa.RecordBatch:
    """Return the columns that follow from n entries.

    Args:
        ids: their positions, [n].
        records: what they say, [n]; None of one that does not decode.
        names: the columns that are asked for, of COLUMNS.
    """
    return EntryRows(ids, records).columns(names)


class EntryRows:
    """Entries, and their decisions and rewards each at the entry's place."""

    def __init__(self, ids: Sequence[str], records: Sequence[Any]) -> None:
        """Take entries.

        Args:
            ids: their positions, [n].
            records: what they say, [n]; None of one that does not decode.
        """
        self.ids = ids
        self.records = records

    def columns(self, names: Iterable[str]) -> pa.RecordBatch:
        """Return columns, of COLUMNS."""
        fields = [COLUMNS.field(name) for name in names]
        arrays = []
        for field in fields:
            make = _MAKE.get(field.name)
            made = pa.nulls(len(self.ids), field.type) if make is None else make(self)
            arrays.append(made if isinstance(made, pa.Array) else pa.array(made, type=field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    @cached_property
    def decisions(self) -> list[Any]:
        """The decisions, None in the places of other entries."""
        return [record if type(record) is DecisionRecord else None for record in self.records]

    @cached_property
    def rewards(self) -> list[Any]:
        """The rewards, likewise."""
        return [record if type(record) is RewardRecord else None for record in self.records]

    def of_decisions(self, name: str) -> list[Any]:
        """Return what decisions say under a name, None in the places of other entries."""
        return [row and getattr(row, name) for row in self.decisions]

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of each entry."""
        return [UNDECODABLE if record is None else kind_of(record) for record in self.records]

    def rest(self, data: Sequence[bytes]) -> list[bytes]:
        """Return what the columns leave of each entry, from its bytes; see parts/rest.py."""
        return [rest_of(record, whole) for record, whole in zip(self.records, data, strict=True)]

    @cached_property
    def order(self) -> list[tuple[int, int]]:
        """The two numbers of each id."""
        return [log_order(entry_id) for entry_id in self.ids]

    @cached_property
    def chosen(self) -> pa.Array:
        """The column of this name."""
        lists = [row and row.chosen for row in self.decisions]
        return pa.array(lists, COLUMNS.field("chosen").type)

    @cached_property
    def action_ids(self) -> pa.Array:
        """The column of this name."""
        lists = [row and row.action_ids for row in self.decisions]
        return pa.array(lists, COLUMNS.field("action_ids").type)

    @cached_property
    def pmf(self) -> pa.Array:
        """The column of this name."""
        parts = [row and row.pmf for row in self.decisions]
        return numbers_column(parts, "<f8", COLUMNS.field("pmf").type)

    @cached_property
    def scores(self) -> pa.Array:
        """The column of this name."""
        kind = COLUMNS.field("scores").type
        maps = [row and row.scores for row in self.decisions]
        lists = [data for each in maps if each for data in each.values()]
        return map_column(maps, numbers_column(lists, "<f4", kind.item_type), kind)

    @cached_property
    def context(self) -> pa.Array:
        """The column of this name."""
        return feature_maps([row and row.context for row in self.decisions])

    @cached_property
    def features(self) -> pa.Array:
        """The column of this name."""
        lists = [row and row.features for row in self.decisions]
        maps = list(chain.from_iterable(each for each in lists if each))
        return list_column(lists, feature_maps(maps), COLUMNS.field("features").type)

    @cached_property
    def failed(self) -> pa.Array:
        """The column of this name."""
        maps = [row and row.failed for row in self.decisions]
        reasons = [reason for each in maps if each for reason in each.values()]
        return map_column(maps, pa.array(reasons, pa.string()), COLUMNS.field("failed").type)

    @cached_property
    def rules(self) -> list[Any]:
        """What the rules of each entry depended on, None where there are none."""
        return self.of_decisions("rules")

    @cached_property
    def credit(self) -> pa.Array:
        """The column of this name."""
        made = [row and row.credit for row in self.decisions]
        sources = [each and each.sources for each in made]
        credited = [each and each.credited for each in made]
        return pa.StructArray.from_arrays(
            [
                list_column(sources, flat_column(sources, CODED), CREDIT.field("sources").type),
                numbers_column(
                    [each and each.pmf for each in made], "<f8", CREDIT.field("pmf").type
                ),
                list_column(
                    credited, flat_column(credited, pa.int32()), CREDIT.field("credited").type
                ),
            ],
            fields=list(CREDIT),
            mask=pa.array([each is None for each in made], pa.bool_()),
        )

    @cached_property
    def apprentice(self) -> pa.Array:
        """The column of this name."""
        made = self.of_decisions("apprentice")
        if not any(made):
            return pa.nulls(len(made), APPRENTICE)
        chosen = [each and each.chosen for each in made]
        return pa.StructArray.from_arrays(
            [
                pa.array([each and each.served for each in made], CODED),
                numbers_column(
                    [each and each.pmf for each in made], "<f8", APPRENTICE.field("pmf").type
                ),
                list_column(
                    chosen, flat_column(chosen, pa.int32()), APPRENTICE.field("chosen").type
                ),
            ],
            fields=list(APPRENTICE),
            mask=pa.array([each is None for each in made], pa.bool_()),
        )


def _slots(rows: EntryRows) -> list[int | None]:
    # A slot may be larger than the column holds; nothing was ever shown at either.
    return [
        None if row is None or row.slot is None else min(row.slot, INT64_MAX)
        for row in rows.rewards
    ]


def _counts(lists: pa.Array) -> pa.Array:
    lengths = np.diff(lists.offsets.to_numpy()).astype(np.int32)
    return pa.array(lengths, mask=lengths == 0)


def _first(rows: EntryRows, of: pa.Array) -> pa.Array:
    """Return which of the elements that lists have by action belongs to what slot 0 chose."""
    offsets = rows.chosen.offsets.to_numpy()
    is_drawn = np.diff(offsets) > 0
    places = np.zeros(len(rows.ids), np.int64)
    chosen = rows.chosen.values.to_numpy()[offsets[:-1][is_drawn]]
    places[is_drawn] = of.offsets.to_numpy()[:-1][is_drawn] + chosen
    return of.values.take(pa.array(places, mask=~is_drawn))


def _named(rows: EntryRows, name: str, changed_by: type, field: str) -> list[str | None]:
    """Return what decisions name, and the entries that change it."""
    return [
        getattr(record, field) if type(record) is changed_by else named
        for named, record in zip(rows.of_decisions(name), rows.records, strict=True)
    ]


def _event_ids(rows: EntryRows) -> list[str | None]:
    own = zip(rows.of_decisions("event_id"), rows.records, strict=True)
    return [made or getattr(record, "event_id", None) for made, record in own]


def _holdouts(rows: EntryRows) -> list[bool | None]:
    # A decision that the holdout's policy could not serve belongs to neither group.
    own = zip(rows.of_decisions("holdout"), rows.of_decisions("unserved"), strict=True)
    return [None if unserved else holdout for holdout, unserved in own]


def feature_maps(maps: Sequence[FeatureMap | None]) -> pa.Array:
    """Return feature maps as one column; see FEATURES."""
    values = [value for each in maps if each for value in each.values()]
    kinds = list(map(type, values))
    parts: list[pa.Array] = []
    for field, kind in zip(FEATURE, (float, bool, str, list), strict=True):
        if kind not in kinds:
            parts.append(pa.nulls(len(values), field.type))
            continue

        own = [value if one is kind else None for value, one in zip(values, kinds, strict=True)]
        parts.append(
            list_column(own, flat_column(own, CODED), field.type)
            if kind is list
            else pa.array(own, field.type)
        )
    return map_column(maps, pa.StructArray.from_arrays(parts, fields=list(FEATURE)), FEATURES)


_MAKE: dict[str, Callable[[EntryRows], Any]] = {
    "id": lambda rows: rows.ids,
    # Ids may be larger than a Parquet column holds; the id itself is a column too.
    "ms": lambda rows: [min(milliseconds, INT64_MAX) for milliseconds, _ in rows.order],
    "seq": lambda rows: [min(sequence, INT64_MAX) for _, sequence in rows.order],
    "kind": lambda rows: rows.kinds,
    "event_id": _event_ids,
    "reward": lambda rows: [row and row.value for row in rows.rewards],
    "reward_id": lambda rows: [row and row.reward_id for row in rows.rewards],
    "signal": lambda rows: [row and row.signal for row in rows.rewards],
    "slot": _slots,
    "action_id": lambda rows: [row and row.action_id for row in rows.rewards],
    "propensity": lambda rows: _first(rows, rows.pmf),
    "action": lambda rows: _first(rows, rows.action_ids),
    "slots": lambda rows: _counts(rows.chosen),
    "actions": lambda rows: _counts(rows.action_ids),
    "chosen": lambda rows: rows.chosen,
    "action_ids": lambda rows: rows.action_ids,
    "pmf": lambda rows: rows.pmf,
    "scores": lambda rows: rows.scores,
    "context": lambda rows: rows.context,
    "features": lambda rows: rows.features,
    "spec": lambda rows: _named(rows, "spec", SpecRecord, "digest"),
    "snapshot_id": lambda rows: rows.of_decisions("snapshot_id"),
    "catalogue": lambda rows: _named(rows, "catalogue", CatalogueRecord, "digest"),
    "artifact": lambda rows: _named(rows, "artifact", ArtifactRecord, "version"),
    "user": lambda rows: rows.of_decisions("user"),
    "profile": lambda rows: rows.of_decisions("profile"),
    "deferred": lambda rows: rows.of_decisions("deferred"),
    "holdout": _holdouts,
    "unserved": lambda rows: rows.of_decisions("unserved"),
    "failed": lambda rows: rows.failed,
    "credit": lambda rows: rows.credit,
    "apprentice": lambda rows: rows.apprentice,
    **{
        name: lambda rows, name=name: ruled_column(name, rows.rules)  # type: ignore[misc]
        for name in RULED.names
    },
}
"""By column, what makes it; a column that nothing makes is null."""
