"""What a policy sees of a row of a log."""

from collections.abc import Sequence

import numpy as np

from bandits.errors import ReplayError
from bandits.types import ActionSet, Context
from policies.features import featurise, featurise_record
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.rows import LoggedDecision

_NO_ITEMS = Catalogue()


def featurise_row(spec: PolicySpec, row: LoggedDecision) -> tuple[Context, ActionSet]:
    """Return what a policy sees of a row.

    Where the log is the project's, that includes source scores and the catalogue's features.

    Args:
        spec: The policy.
        row: A row of a log.

    Raises:
        ReplayError: A feature is too large for a policy, which computes with float32.
    """
    catalogue = row.catalogue or _NO_ITEMS
    if row.record is not None:
        context, actions = featurise_record(spec, catalogue, row.record)
        return context, actions.take(_places(row.action_ids, row.record.action_ids))

    with np.errstate(over="ignore"):
        context, actions = featurise(spec, catalogue, row.context, row.action_ids, row.features, {})
    namespaces = (*context.namespaces, *actions.namespaces)
    if not all(np.isfinite(namespace.values).all() for namespace in namespaces):
        raise too_large(row.event_id)
    return context, actions


def too_large(event_id: str) -> ReplayError:
    """Return the error of a row with a feature that float32 does not hold."""
    return ReplayError(
        f"decision {event_id} has a feature beyond {np.finfo(np.float32).max:.3g},"
        " too large for a policy: leave such rows out, or give it in another unit",
        "features",
    )


def _places(ids: Sequence[str], among: Sequence[str]) -> list[int]:
    at = {action_id: place for place, action_id in enumerate(among)}
    return [at[action_id] for action_id in ids]
