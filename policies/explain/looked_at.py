"""What a decision's record says to whoever looks at it."""

import numpy as np

from banditloop_client.console_schemas import (
    DecisionCandidate,
    OwnChoice,
    PreviewResponse,
    RemovedActions,
)
from banditloop_client.explain_schemas import Explanation, SourceSaid
from banditloop_client.schemas import Chosen, PlacedItem, UnplacedItem
from bandits.log.records import DecisionRecord


def chosen_slots(record: DecisionRecord) -> list[Chosen]:
    """Return the slots of the page that something was drawn for."""
    return [
        Chosen(at, record.action_ids[k], record.propensity(slot))
        for slot, (at, k) in enumerate(zip(record.page_slots(), record.chosen, strict=True))
    ]


def own_choice(record: DecisionRecord) -> OwnChoice | None:
    """Return what an apprentice would have chosen; None: the policy is none."""
    if record.apprentice is None:
        return None
    return OwnChoice(record.apprentice.served, chosen_slots(record.own()))


def placed_items(record: DecisionRecord) -> list[PlacedItem]:
    """Return what stands on the page without a draw."""
    return [PlacedItem(each.slot, each.action_id) for each in record.placed]


def unplaced_items(record: DecisionRecord) -> list[UnplacedItem]:
    """Return what was to stand on the page without a draw, and could not."""
    if record.rules is None:
        return []
    return [UnplacedItem(each.slot, each.action_id, each.reason) for each in record.rules.unplaced]


def removed_actions(record: DecisionRecord) -> list[RemovedActions]:
    """Return what rules took away before anything had a probability."""
    if record.rules is None:
        return []
    return [
        RemovedActions(rule, each.ids, each.count)
        for rule, each in sorted(record.rules.removed.items())
    ]


def candidates_of(record: DecisionRecord) -> list[DecisionCandidate]:
    """Return the actions that a decision could choose, the likeliest first."""
    count = len(record.action_ids)
    pmf = record.pmfs()[0] if record.chosen else np.zeros(count)
    boosts = record.boosts
    slots = dict(zip(record.chosen, record.page_slots(), strict=True))
    own = record.own().pmfs()[0] if record.chosen and record.apprentice is not None else None
    return [
        DecisionCandidate(
            record.action_ids[at],
            float(pmf[at]),
            slots.get(at),
            said_of(record, at),
            0.0 if boosts is None else float(boosts[at]),
            None if record.features is None else record.features[at],
            None if own is None else float(own[at]),
        )
        for at in np.argsort(-(pmf if own is None else pmf + own), kind="stable").tolist()
    ]


def said_of(record: DecisionRecord, at: int) -> dict[str, SourceSaid]:
    """Return what each source says of an action, of those that say anything.

    Args:
        record: the decision.
        at: the action's place.
    """
    said = {}
    for name, scores in sorted(record.source_scores().items()):
        if not np.isnan(scores[at]):
            said[name] = SourceSaid(
                float(scores[at]), 1 + int(np.count_nonzero(scores > scores[at]))
            )
    return said


def previewed(record: DecisionRecord, explanation: Explanation) -> PreviewResponse:
    """Return what is told of a decision that is not logged.

    Args:
        record: the decision.
        explanation: why it is as it is.
    """
    rules = record.rules
    return PreviewResponse(
        record.policy,
        record.snapshot_id,
        chosen_slots(record),
        candidates_of(record),
        explanation,
        record.holdout,
        None if record.profile is None else record.profile != "",
        placed_items(record),
        unplaced_items(record),
        removed_actions(record),
        record.failed or {},
        None if rules is None else rules.short,
    )
