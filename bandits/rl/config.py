"""The config of a policy trained by reinforcement learning, and what can be done with it."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from bandits.exploration import EpsilonGreedy, Exploration, Greedy, Softmax
from bandits.learner_config import LearnerConfig, Standbys, explore_scores
from bandits.types import Explore, Learner, Snapshot

KIND = "rl"


class RlConfig(LearnerConfig, tag=KIND, tag_field="kind", frozen=True, forbid_unknown_fields=True):
    """A network that was trained on whole sessions; it learns nothing from the log.

    Attributes:
        features: the digest of the feature schema that the network was trained on, as ``banditloop
            train rl`` prints it.
        standbys: processes that fold the log along, ready to take over.
    """

    features: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
    standbys: Standbys = 0

    learns: ClassVar[bool] = False
    # SquareCB needs expected rewards, and a network has scores.
    explorations: ClassVar[tuple[type[msgspec.Struct], ...]] = (EpsilonGreedy, Softmax, Greedy)
    policy_kinds: ClassVar[tuple[str, ...]] = ("rl",)
    snapshots: ClassVar[Mapping[str, Mapping[str, str] | None]] = {KIND: None}

    def make(
        self,
        exploration: Exploration,  # noqa: ARG002
        *,
        salt: bytes,  # noqa: ARG002
        checkpoint: bytes | None = None,
    ) -> Learner:
        """Return what holds a network and hands it on.

        Args:
            exploration: unused; a snapshot is the network, however the policy explores.
            salt: unused; nothing is drawn at random.
            checkpoint: the network; without, there is none yet.

        Raises:
            SnapshotError: the checkpoint is corrupt, or was made for other features.
        """
        from bandits.rl.network import RlLearner

        return RlLearner(self, checkpoint=checkpoint)

    def load(self, snapshot: Snapshot, exploration: Exploration) -> Explore:
        """Return how an exploration acts on the scores of a network.

        Args:
            snapshot: it holds the network, or none yet; then all scores are 0.
            exploration: one that asks for scores alone.

        Raises:
            SnapshotError: the snapshot is corrupt or was made for other features, or the
                exploration asks for more than scores.
        """
        from bandits.rl.network import RlModel

        model = RlModel(self, snapshot)
        return explore_scores(exploration, model.scores, model.learned)
