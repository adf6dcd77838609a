"""Interactions as the columns of their chosen actions."""

from collections.abc import Sequence

import numpy as np

from bandits.types import ChosenRow, ChosenRows, Interaction


def columns_of(interactions: Sequence[Interaction]) -> ChosenRows:
    """The columns that say what ``ChosenRow.of`` does of each."""
    rows = [ChosenRow.of(each) for each in interactions]
    shared = list(dict.fromkeys(space.name for row in rows for space in row.shared))
    own = list(dict.fromkeys(space.name for row in rows for space in row.own))
    ids = sorted({row.action_id for row in rows})

    nothing = np.zeros(0, np.uint32), np.zeros(0, np.float32)
    cells = []
    for row in rows:
        named = {space.name: (space.hashes, space.values) for space in (*row.shared, *row.own)}
        cells += [named.get(name, nothing) for name in (*shared, *own)]
    return ChosenRows(
        ids,
        np.array([ids.index(row.action_id) for row in rows], np.int64),
        (*shared, *own),
        len(shared),
        np.cumsum([0, *(values.size for _, values in cells)]),
        np.concatenate([nothing[0], *(hashes for hashes, _ in cells)]),
        np.concatenate([nothing[1], *(values for _, values in cells)]),
        np.array([row.reward for row in rows], np.float64),
        np.array([row.available for row in rows], np.int64),
        np.array([row.propensity for row in rows], np.float64),
        times_ms=np.array([row.time_ms for row in rows], np.int64),
        slots=np.array([row.slot for row in rows], np.int64),
    )
