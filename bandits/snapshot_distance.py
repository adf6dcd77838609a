"""How far two snapshots of one position are apart: 0 within a build, rounding across builds."""

import math
from typing import Any, get_args

import msgspec
import numpy as np

from bandits.errors import SnapshotError
from bandits.learner_kinds import LearnerKind
from bandits.log.trends import decode_trends
from bandits.types import Snapshot

# The arrays in a payload by kind of snapshot, with their type; everything else has to be the same.
_ARRAYS = {
    name: arrays for kind in get_args(LearnerKind) for name, arrays in kind.snapshots.items()
}


def distance(first: Snapshot, second: Snapshot) -> float:
    """Return the largest |a - b| / (1 + |a|) over all numbers of two models.

    It is infinite if their structure differs. Where payloads compare by their bytes alone, as a
    whole VW model, it is 0 or infinite.

    Args:
        first: a snapshot.
        second: another of the same position.

    Raises:
        SnapshotError: a payload is corrupt.
    """
    if (first.kind, first.position, first.learned) != (
        second.kind,
        second.position,
        second.learned,
    ):
        return math.inf

    # The usual case, within a build.
    trends = 0.0 if first.trends == second.trends else _trends_apart(first, second)
    if first.payload == second.payload:
        return trends
    arrays = _ARRAYS.get(first.kind)
    if arrays is None:
        return math.inf

    one, two = _decoded(first), _decoded(second)
    if one.keys() != two.keys():
        return math.inf
    apart = [_apart(arrays.get(name), value, two[name]) for name, value in one.items()]
    return max([trends, *apart])


def _trends_apart(first: Snapshot, second: Snapshot) -> float:
    """Return how far the counts of items are apart; infinite if they are of other items."""
    if first.trends is None or second.trends is None:
        return math.inf
    one, two = decode_trends(first.trends), decode_trends(second.trends)
    if one.keys() != two.keys():
        return math.inf

    apart = 0.0
    for half_life_ms, trend in one.items():
        counts = dict(zip(trend.ids, trend.counts, strict=True))
        others = dict(zip(two[half_life_ms].ids, two[half_life_ms].counts, strict=True))
        if counts.keys() != others.keys():
            return math.inf
        for item_id, count in counts.items():
            apart = max(apart, abs(count - others[item_id]) / (1 + abs(count)))
    return apart


def _apart(kind: str | None, value: Any, other: Any) -> float:
    if kind is None:
        return 0.0 if value == other else math.inf
    if len(value) != len(other):
        return math.inf
    a, b = (
        np.frombuffer(value, kind).astype(np.float64),
        np.frombuffer(other, kind).astype(np.float64),
    )
    return float((np.abs(a - b) / (1.0 + np.abs(a))).max(initial=0.0))


def _decoded(snapshot: Snapshot) -> dict[str, Any]:
    try:
        return msgspec.msgpack.decode(snapshot.payload, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"not a snapshot's payload: {error}", "payload") from error
