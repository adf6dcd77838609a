"""Events in a few words, as training takes them."""

from collections.abc import Sequence

import numpy as np

from policies.data.coded import CodedEvents

Row = tuple[str, str, float] | tuple[str, str, float, str] | tuple[str, str, float, str, int]


def coded_events(rows: Sequence[Row]) -> CodedEvents:
    """Return events of (user, item, weight, type, ms); a type is ``view`` and a time is none.

    Rows of one user stay in their order.
    """
    full = [(*row, *("view", -1)[len(row) - 3 :]) for row in rows]
    columns = list(zip(*full, strict=True)) or [()] * 5
    users, user = np.unique(np.array(columns[0], str), return_inverse=True)
    items, item = np.unique(np.array(columns[1], str), return_inverse=True)
    types, kind = np.unique(np.array(columns[3], str), return_inverse=True)
    order = np.argsort(user, kind="stable")
    return CodedEvents(
        user_ids=tuple(users.tolist()),
        item_ids=tuple(items.tolist()),
        types=tuple(types.tolist()),
        user=user[order].astype(np.int32),
        item=item[order].astype(np.int32),
        type=kind[order].astype(np.int16),
        time=np.array(columns[4], np.int64)[order],
        value=np.full(len(rows), np.nan, np.float32),
        weight=np.array(columns[2], np.float32)[order],
    )
