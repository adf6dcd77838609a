"""The contenders that are compared: a blend's weights over the scores of an artifact."""

from dataclasses import dataclass

from bandits.types import Policy, Snapshot
from policies.blend import load_policy
from policies.spec import PolicySpec
from simulator.refresh.rescoring import Rescorer

CURRENT, TAUGHT_AGAIN = "current", "taught again"
"""Whose weights a blend has: those that serve, or those taught with the new artifact's scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A blend that is compared.

    ``weights`` is CURRENT or TAUGHT_AGAIN; ``snapshot`` holds them; ``policy`` chooses by them.
    """

    name: str
    weights: str
    rescorer: Rescorer
    snapshot: Snapshot
    policy: Policy

    @classmethod
    def of(
        cls, name: str, weights: str, rescorer: Rescorer, spec: PolicySpec, snapshot: Snapshot
    ) -> "Contender":
        """Return the blend of a snapshot and an artifact.

        Args:
            name: its name in the report.
            weights: whose weights they are.
            rescorer: scores with the artifact.
            spec: the policy.
            snapshot: the model.

        Raises:
            SnapshotError: the model is not one of this spec.
        """
        return cls(name, weights, rescorer, snapshot, load_policy(spec, snapshot))
