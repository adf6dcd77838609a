"""The counts of a learner, for metrics, commands and reports."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from policies.fold.known_prior import KnownPrior
from policies.rules.quotas.quota import QuotaState


class Stats(msgspec.Struct, frozen=True):
    """The counts of the leading learner.

    ``outcomes`` are those of the join, and what was refused. In a policy of several partitions,
    ``merge`` is the newest that this one has adopted, and ``late`` (in partition 0) are those
    without which it was made. A ridge model has a column for each feature: ``columns``, of
    ``max_columns``. ``prior``: the newest of the log, and what became of it. ``signals``: how many
    rewards of each signal counted, and the sum of their values. ``quotas``: by name, how each
    stands, in the learner that holds them.
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
    prior: KnownPrior | None = None
    signals: dict[str, tuple[int, float]] = {}
    quotas: dict[str, QuotaState] = {}


def summed(stats: Sequence[Stats]) -> Stats:
    """Return the counts of a whole policy from those of its partitions, partition 0 first.

    Snapshots and merges are counted by partition 0; the rest is added up.
    """
    outcomes: Counter[str] = Counter()
    for partition in stats:
        outcomes.update(partition.outcomes)
    signals: dict[str, tuple[int, float]] = {}
    for partition in stats:
        for name, (count, total) in partition.signals.items():
            before = signals.get(name, (0, 0.0))
            signals[name] = before[0] + count, before[1] + total
    learned = sum(partition.learned for partition in stats)
    columns = max(partition.columns for partition in stats)

    return msgspec.structs.replace(
        stats[0], learned=learned, outcomes=dict(outcomes), columns=columns, signals=signals
    )
