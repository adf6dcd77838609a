"""The probabilities of a decision, derived again from its record and the model that made it."""

from collections.abc import Iterator

import numpy as np

from bandits.decide import left_after
from bandits.log.records import DecisionRecord
from bandits.types import Pmf, Policy, Snapshot
from policies.blend import load_policy
from policies.decisions.mixture import Mixture
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec


def deciding_policy(spec: PolicySpec, snapshot: Snapshot) -> Policy:
    """Return what chooses among items.

    Args:
        spec: the policy.
        snapshot: its model.

    Raises:
        SnapshotError: it is corrupt.
    """
    policy = load_policy(spec, snapshot)
    return Mixture(policy, spec.within, spec.floor) if spec.kind == "mixture" else policy


def derived_pmfs(
    spec: PolicySpec, snapshot: Snapshot, catalogue: Catalogue, record: DecisionRecord
) -> Iterator[Pmf]:
    """Yield the PMF of each slot, float64[K], given the actions that were chosen before it.

    Args:
        spec: the one that the record names.
        snapshot: the model that may have made it.
        catalogue: the one that the record names.
        record: a decision that was not held out.
    """
    policy = deciding_policy(spec, snapshot)
    context, actions = featurise_record(spec, catalogue, record)
    for slot in range(len(record.chosen)):
        remaining, left = left_after(actions, record.chosen[:slot], record.page)
        pmf = np.zeros(len(actions))
        pmf[remaining] = policy.pmf(context, left)
        yield pmf


def follow_from(
    spec: PolicySpec, snapshot: Snapshot, catalogue: Catalogue, record: DecisionRecord
) -> bool:
    """Return whether the logged probabilities follow from a model, byte for byte.

    Args:
        spec: the one that the record names.
        snapshot: the model that may have made it.
        catalogue: the one that the record names.
        record: a decision that was not held out.
    """
    if not record.chosen:  # all was placed, nothing drawn
        return True
    derived = derived_pmfs(spec, snapshot, catalogue, record)
    pairs = zip(derived, record.pmfs(), strict=True)
    return all(made.tobytes() == logged.tobytes() for made, logged in pairs)
