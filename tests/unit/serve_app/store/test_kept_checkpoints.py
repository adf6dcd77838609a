"""Which checkpoints are kept, and for how long a log can be cut at one."""

from serve_app.store.checkpoints import HOUR_MS, StoredCheckpoint, worth_keeping

DAY_MS = 24 * HOUR_MS


def test_a_log_with_a_checkpoint_each_hour_can_always_be_cut_a_month_ago():
    """There is one of 30 to 31 days ago at any hour, and few more than a day and a month have."""
    kept: list[StoredCheckpoint] = []
    for hour in range(70 * 24):
        now_ms = hour * HOUR_MS
        kept = worth_keeping([StoredCheckpoint(f"{now_ms}-0", "", "", hour), *kept])
        if hour > 40 * 24:
            ages = [now_ms - each.time_ms for each in kept]
            assert any(30 * DAY_MS <= age <= 31 * DAY_MS for age in ages)
            assert len(kept) < 10 + 24 + 33
