"""From a snapshot to a policy: a model scores, exploration makes a PMF, a floor holds it."""

from dataclasses import dataclass

from bandits.alike import AlikeDecisions
from bandits.errors import SnapshotError
from bandits.exploration import each_with_floor, with_floor
from bandits.learner_config import ExploredScores
from bandits.types import ActionSet, Context, Explore, Float64, Learner, Pmf, Policy, Snapshot
from policies.spec import PolicySpec


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A PMF of any kind, mixed with ``floor`` of uniform exploration."""

    explore: Explore
    floor: float

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """Return float64[K]; every action has at least floor/K.

        Args:
            context: what the actions share.
            actions: K of them, at least one.
        """
        return with_floor(self.explore(context, actions), self.floor)

    def pmf_of_each(self, decisions: AlikeDecisions) -> Float64 | None:
        """Return the PMFs of several decisions; see ``PolicyOfEach``."""
        explore = self.explore
        pmfs = explore.pmf_of_each(decisions) if isinstance(explore, ExploredScores) else None
        return None if pmfs is None else each_with_floor(pmfs, decisions.starts, self.floor)


def make_learner(spec: PolicySpec, *, salt: bytes, checkpoint: bytes | None = None) -> Learner:
    """Return the learner that a spec describes, fresh or resumed.

    Args:
        spec: its learner and its exploration matter.
        salt: the secret that seeds what is drawn at random.
        checkpoint: what the learner goes on from.

    Raises:
        SpecError: no learner can be made of this spec.
        SnapshotError: the checkpoint is corrupt, or of a learner of another config.
    """
    return spec.learner.make(spec.exploration, salt=salt, checkpoint=checkpoint)


def load_policy(spec: PolicySpec, snapshot: Snapshot) -> Policy:
    """Return the policy that a replica serves.

    Args:
        spec: the one in force.
        snapshot: of a model that a learner of this spec has made.

    Raises:
        SnapshotError: the snapshot is corrupt, or of another kind than the spec's learner makes.
    """
    if snapshot.kind not in spec.learner.snapshots:
        raise SnapshotError(
            f"a snapshot of kind {snapshot.kind} does not fit this spec's learner", "snapshot.kind"
        )
    return Blend(spec.learner.load(snapshot, spec.exploration), spec.floor)
