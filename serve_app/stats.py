"""What a learner says of itself, for metrics, commands and reports."""

import msgspec


class Stats(msgspec.Struct, frozen=True):
    """What the leading learner has counted. ``outcomes``: by the join, and what was refused."""

    position: str
    learned: int
    snapshots: int
    snapshot_id: str
    published_ms: int
    outcomes: dict[str, int]
    checkpoint: str = ""
    pinned: str | None = None
