"""One decision, with all that its record says and what has come of it."""

from collections.abc import Callable
from datetime import UTC, datetime

from banditloop_client.console_schemas import DecisionEvent, EarnedSlot
from bandits.log.positions import position_ms
from bandits.log.records import DecisionRecord
from policies.explain.looked_at import (
    candidates_of,
    chosen_slots,
    own_choice,
    placed_items,
    removed_actions,
    unplaced_items,
)
from serve_app.admin.decided.joining import came_of
from serve_app.store.history import History

MOST_JOINED = 500_000
"""Entries that are looked at for the rewards of one decision."""


def decision_event(
    history: History,
    partition: int,
    found: tuple[str, DecisionRecord],
    is_erased: Callable[[str], bool],
) -> DecisionEvent:
    """Return what there is to say of a decision.

    Args:
        history: the log of its partition.
        partition: which that is.
        found: its entry, and what it says.
        is_erased: whether nothing may be logged any more under a pseudonym.

    Raises:
        LogGapError, ArchiveError: the log cannot be read.
    """
    entry, record = found
    came = came_of(history, {entry: (record.event_id, record.spec)}, most=MOST_JOINED)[entry]
    rules, credit = record.rules, record.credit

    return DecisionEvent(
        record.event_id,
        record.policy,
        entry,
        partition,
        _time(position_ms(entry)),
        came.outcome,
        _time(came.closes_ms),
        record.context,
        chosen_slots(record),
        candidates_of(record),
        record.snapshot_id,
        record.spec,
        record.catalogue,
        came.rule.default_reward,
        came.rule.aggregation,
        record.artifact,
        record.user,
        record.user is not None and is_erased(record.user),
        record.holdout,
        record.deferred,
        placed_items(record),
        unplaced_items(record),
        removed_actions(record),
        record.failed or {},
        None if rules is None else rules.short,
        None if rules is None else rules.filter,
        [] if credit is None else [credit.sources[at] for at in credit.credited],
        came.rewards,
        [
            EarnedSlot(at, record.action_ids[k], came.earned.get(slot))
            for slot, (at, k) in enumerate(zip(record.page_slots(), record.chosen, strict=True))
        ],
        came.outcome != "not_read",
        own_choice(record),
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
