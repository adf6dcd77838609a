"""The entries of an archive as a join takes them: arrays of numbers, and ids as Arrow has them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.features.hashing import UInt64
from bandits.kernels.joins import DECISION
from bandits.types import Float64

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Bools = NDArray[np.bool_]
UNKNOWN_ACTION = -2
"""The action of a slot of which nobody had to know it yet."""


@dataclass(slots=True, eq=False)
class JoinEntries:
    """n decisions, rewards and activations, in the log's order: about 100 bytes each.

    Attributes:
        sequence: int64[n], grows along the log; from 0 within the piece, negative before it.
        kind: int8[n], of ``bandits.kernels.joins``.
        ms: int64[n], when.
        rule: int32[n], by number: a decision's own; of the others, the one in force.
        era: int32[n], grows where activations that wait are given up.
        deferred: bool[n], whether a decision is still to be activated.
        done: bool[n], whether a decision was settled before.
        slots: int32[n], of a decision; 0 of the others.
        value: float64[n], of a reward.
        signal: int32[n], of a reward, by number, 0 where it names none.
        slot: int32[n], of a reward, -1 where it names none.
        action: int32[n], of a reward, by number, -1 where it names none.
        event: string[n], the ids of their events.
        key: uint64[n], the keys of these, see ``key_of``; empty while they wait for what follows.
        reward: string[n], the ids of rewards, null where there is none.
        chosen: int32[S], by number, the action of each slot of each decision.
        on_page: int32[S], which slot of its page it is; empty where no items were placed on any.
    """

    sequence: Int64
    kind: NDArray[np.int8]
    ms: Int64
    rule: Int32
    era: Int32
    deferred: Bools
    done: Bools
    slots: Int32
    value: Float64
    signal: Int32
    slot: Int32
    action: Int32
    event: pa.StringArray
    key: UInt64
    reward: pa.StringArray
    chosen: Int32
    on_page: Int32

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def begins(self) -> Int64:
        """Where the slots of each entry begin, int64[n + 1]."""
        return offsets_of(self.slots)

    @property
    def page_slots(self) -> Int32:
        """Which slot of its page each drawn slot of each decision is, int32[S]."""
        if len(self.on_page):
            return self.on_page
        begins = self.begins
        return (np.arange(begins[-1]) - np.repeat(begins[:-1], self.slots)).astype(np.int32)

    @property
    def decisions(self) -> Bools:
        """Which entries are decisions, bool[n]."""
        decisions: Bools = self.kind == DECISION
        return decisions

    def take(self, kept: Bools) -> "JoinEntries":
        """Return some of the entries, by a mask."""
        mask, slots = pa.array(kept), np.repeat(kept, self.slots)
        values: dict[str, Any] = {
            field.name: getattr(self, field.name)[kept]
            for field in fields(self)
            if field.name not in {"event", "reward", "chosen", "on_page"}
        }
        return JoinEntries(
            **values,
            event=self.event.filter(mask),
            reward=self.reward.filter(mask),
            chosen=self.chosen[slots],
            on_page=self.on_page[slots] if len(self.on_page) else self.on_page,
        )


def join_entries_of(parts: Sequence[JoinEntries]) -> JoinEntries:
    """Return the entries of all parts, one part after the other; at least one part."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, Any] = {}
    for field in fields(JoinEntries):
        arrays = [getattr(part, field.name) for part in parts]
        if field.name == "on_page" and any(map(len, arrays)):
            arrays = [part.page_slots for part in parts]
        texts = field.name in {"event", "reward"}
        values[field.name] = pa.concat_arrays(arrays) if texts else np.concatenate(arrays)
    return JoinEntries(**values)


def offsets_of(counts: NDArray[Any]) -> Int64:
    """Return where the members of each group begin, int64[n + 1], from how many there are."""
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out
