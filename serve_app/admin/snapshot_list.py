"""The stored snapshots of a policy, and which of them is served, pinned, or kept for good."""

from datetime import UTC, datetime

from banditloop_client.console_schemas import SnapshotsResponse, SnapshotSummary
from bandits.log.positions import position_ms
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.snapshots import Published


def listed_snapshots(stored: StoredPolicy) -> SnapshotsResponse:
    """Return the snapshots that are still stored, the newest first."""
    stats, served = stored.stats(), stored.head()
    pinned = None if stats is None else stats.pinned
    kept = {checkpoint.snapshot_id for checkpoint in stored.checkpoints.list()}

    summaries = []
    for name, published in reversed(stored.snapshots()):
        states = name == served, name == pinned, name in kept, published is None
        summaries.append(_summary_of(name, published, states))
    return SnapshotsResponse(served, pinned, summaries)


def _summary_of(
    name: str, published: Published | None, states: tuple[bool, bool, bool, bool]
) -> SnapshotSummary:
    """Return what is told of a snapshot: of one whose bytes are damaged only the id is known."""
    if published is None:
        return SnapshotSummary(name, None, None, 0, 0, None, None, None, *states)
    return SnapshotSummary(
        name,
        published.position,
        datetime.fromtimestamp(position_ms(published.position) / 1000, UTC),
        published.learned,
        len(published.payload),
        published.spec,
        published.catalogue,
        published.artifact,
        *states,
    )
