"""What a learner says of itself, for metrics, commands and reports."""

from collections import Counter
from collections.abc import Sequence

import msgspec


class Stats(msgspec.Struct, frozen=True):
    """What the leading learner has counted. ``outcomes``: by the join, and what was refused.

    Of one partition of several, ``merge`` is the newest that it has adopted, and ``late`` (of
    partition 0) are those without which that was made. Of a ridge model ``columns`` are those that
    features have, of ``max_columns``.
    """

    position: str
    learned: int
    snapshots: int
    snapshot_id: str
    published_ms: int
    outcomes: dict[str, int]
    checkpoint: str = ""
    pinned: str | None = None
    merge: int = 0
    late: list[int] = []
    columns: int = 0
    max_columns: int = 0


def summed(stats: Sequence[Stats]) -> Stats:
    """Of a policy's partitions: what the first, partition 0, says of snapshots and merges.

    Of the rest the sums.
    """
    outcomes: Counter[str] = Counter()
    for each in stats:
        outcomes.update(each.outcomes)
    learned = sum(each.learned for each in stats)
    columns = max(each.columns for each in stats)
    return msgspec.structs.replace(
        stats[0], learned=learned, outcomes=dict(outcomes), columns=columns
    )
