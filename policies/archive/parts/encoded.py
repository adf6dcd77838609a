"""Archived entries as a fold takes them, from the columns of records that were put together.

They say what ``bandits.log.encoded_decisions.read_entries`` finds in the same bytes. Nobody looks
at these: that such a record is valid was found when it was taken apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64
from bandits.kernels.records import LONGEST
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import EncodedDecision, LogEntry, RewardRecord
from policies.archive.parts.objects import plain_values, truths_of
from policies.archive.parts.shapes import bounds_of, elements_of

OF_REWARDS = ("event_id", "reward", "reward_id", "slot", "action_id", "signal")
"""The columns that hold a reward, in the order of RewardRecord's fields."""
OF_DECISIONS = ["event_id", "spec", "catalogue", "deferred", "holdout", "placed"]
"""Those of a decision that a fold asks for before it comes to its features."""


def encoded_entries(
    batch: pa.RecordBatch, ids: Sequence[str], data: Sequence[bytes], are_records: Sequence[bool]
) -> list[LogEntry]:
    """Return n entries.

    Args:
        batch: their columns.
        ids: their positions, [n].
        data: their bytes, [n].
        are_records: which were put together of the columns, [n].
    """
    made, kinds = np.array(are_records, np.bool_), batch["kind"]
    named, codes = kinds.dictionary.to_pylist(), kinds.indices.to_numpy()
    records: list[Any] = [None] * len(ids)
    if "decision" in named:
        rows = np.flatnonzero(made & (codes == named.index("decision")))
        _put_decisions(batch, rows, data, records)
    if "reward" in named:
        rows = np.flatnonzero(made & (codes == named.index("reward")))
        _put_rewards(batch, rows, records)

    # All others, and decisions of which a fold asks more than these columns say.
    if None in records:
        rest = [row for row, record in enumerate(records) if record is None]
        entries = read_entries([(ids[row], data[row]) for row in rest], lambda *_: None)
        for row, entry in zip(rest, entries, strict=True):
            records[row] = entry.record
    return list(map(LogEntry, ids, records))


def _put_rewards(batch: pa.RecordBatch, rows: Int64, records: list[Any]) -> None:
    columns = [plain_values(batch[name].take(pa.array(rows))) for name in OF_REWARDS]
    for row, *fields in zip(rows.tolist(), *columns, strict=True):
        records[row] = RewardRecord(*fields)


def _put_decisions(
    batch: pa.RecordBatch, rows: Int64, data: Sequence[bytes], records: list[Any]
) -> None:
    slots = batch["slots"].fill_null(0).to_numpy()
    rows = rows[_ask_no_more(batch, slots)[rows]]
    part = batch.select(OF_DECISIONS)
    if len(rows) < len(batch):
        part = part.take(pa.array(rows))
    columns = (
        *(plain_values(part[name]) for name in ("event_id", "spec", "catalogue")),
        slots[rows].tolist(),
        truths_of(part["deferred"]),
        # Of an unserved decision the column does not say: it was to be held out.
        truths_of(part["holdout"].fill_null(True)),
        truths_of(part["placed"].is_valid()),
    )
    for row, *fields in zip(rows.tolist(), *columns, strict=True):
        whole = data[row]
        if len(whole) <= LONGEST:
            records[row] = EncodedDecision(whole, *fields)


def _ask_no_more(batch: pa.RecordBatch, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return of which decisions a fold asks no more, bool[n].

    They have slots, credit no sources, and no rounding has left a propensity beyond 1.
    """
    found: NDArray[np.bool_] = (slots > 0) & batch["credit"].is_null().to_numpy(
        zero_copy_only=False
    )
    chosen, pmf = (elements_of(batch[name], batch[name].values) for name in ("chosen", "pmf"))
    begins = bounds_of(batch["pmf"])[:-1].astype(np.int64)
    actions = batch["actions"].fill_null(0).to_numpy().astype(np.int64)

    owner = np.repeat(np.arange(len(slots)), slots)
    slot = np.arange(len(owner)) - bounds_of(batch["chosen"])[:-1][owner]
    places = begins[owner] + slot * actions[owner] + chosen.to_numpy()
    beyond = ~(pmf.to_numpy()[places] <= 1.0)
    found[owner[beyond]] = False
    return found
