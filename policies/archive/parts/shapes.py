"""A decision's lists have as many elements as it has slots and actions: readers rely on it."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LISTS = frozenset({"chosen", "action_ids", "pmf", "features", "scores", "boosts"})


PLACED = "placed"


def shape_of(names: Iterable[str]) -> set[str]:
    """Return the columns that say how many elements the lists among some columns have."""
    return {"kind", "slots", "actions"} if LISTS.intersection(names) else set()


def misshapen(batch: pa.RecordBatch) -> str | None:
    """Return what is wrong with the lists of some rows, None if nothing is.

    Args:
        batch: columns of a row group; where there are lists, ``shape_of`` them too, and what was
            placed, if the layout has it.
    """
    names = LISTS.intersection(batch.schema.names)
    if not names:
        return None
    slots, actions = (
        batch[name].fill_null(0).to_numpy().astype(np.int64) for name in ("slots", "actions")
    )
    wrong = _without(batch, slots, actions)
    if wrong.any():
        return f"row {np.argmax(wrong)}: a decision has slots and actions, here it has none"

    expected = {
        "chosen": slots,
        "action_ids": actions,
        "pmf": slots * actions,
        "features": actions,
        "boosts": actions,
    }
    for name in sorted(names & expected.keys()):
        column, lengths = batch[name], _lengths(batch[name])
        # Features and boosts alone may be missing where there are actions.
        wrong = lengths != expected[name]
        if name in ("features", "boosts"):
            wrong &= column.is_valid().to_numpy(zero_copy_only=False)
        if wrong.any():
            row = int(np.argmax(wrong))
            return (
                f"row {row}: column {name!r} has {lengths[row]} elements, where {slots[row]} slots"
                f" and {actions[row]} actions need {expected[name][row]}"
            )

    if "scores" in names:
        sources = _lengths(batch["scores"])
        per_source = np.repeat(np.arange(len(batch)), sources)
        lengths = _lengths(elements_of(batch["scores"], batch["scores"].items))
        wrong = lengths != actions[per_source]
        if wrong.any():
            row = int(per_source[np.argmax(wrong)])
            return (
                f"row {row}: column 'scores' has not one score for each of {actions[row]} actions"
            )

    if "chosen" in names:
        chosen = elements_of(batch["chosen"], batch["chosen"].values).to_numpy()
        per_slot = np.repeat(np.arange(len(batch)), slots)
        wrong = (chosen < 0) | (chosen >= actions[per_slot])
        if wrong.any():
            row = int(per_slot[np.argmax(wrong)])
            return f"row {row}: column 'chosen' names none of its {actions[row]} actions"
    return None


def bounds_of(column: pa.Array) -> NDArray[np.int32]:
    """Return where the elements of each row of a list or map column begin, int32[n + 1], from 0."""
    offsets: NDArray[np.int32] = column.offsets.to_numpy()
    from_zero: NDArray[np.int32] = offsets - offsets[0]
    return from_zero


def elements_of(column: pa.Array, child: pa.Array) -> pa.Array:
    """Return what of a list or map column's elements belongs to its rows.

    Args:
        column: the lists or maps.
        child: their elements, keys or items.
    """
    offsets = column.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    return child.slice(first, last - first)


def _without(
    batch: pa.RecordBatch, slots: NDArray[np.int64], actions: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which rows are decisions that lack slots or actions, bool[n]."""
    kinds = batch["kind"]
    decision = pc.index(kinds.dictionary, "decision").as_py()
    wrong: NDArray[np.bool_] = (kinds.indices.to_numpy() == decision) & (
        np.minimum(slots, actions) < 1
    )
    if wrong.any() and PLACED in batch.schema.names:
        # Where all of a page is placed, nothing was drawn or chosen from.
        wrong &= (np.maximum(slots, actions) > 0) | (_lengths(batch[PLACED]) == 0)
    return wrong


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = np.diff(bounds_of(column)).astype(np.int64)
    return lengths
