"""The config of a Vowpal Wabbit learner, and what such a learner can do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec

from bandits.exploration import Exploration, VwExploration
from bandits.learner_config import LearnerConfig, Merges, Standbys, explore_scores, is_set
from bandits.terms import TermsOf
from bandits.types import Explore, Learner, Row, Snapshot
from bandits.vw.accepted_arguments import INTERACTIONS, KNOWN, check_arguments
from bandits.vw.arguments import read_arguments
from bandits.vw.magnitudes import LARGEST, largest

WEIGHTS_KIND = "vw-weights"
MODEL_KIND = "vw-model"


class VwConfig(LearnerConfig, frozen=True, forbid_unknown_fields=True, tag="vw", tag_field="kind"):
    """Vowpal Wabbit, with an ``--cb_explore_adf`` argument string.

    Namespaces: context, item, features, scores.

    Attributes:
        args: the arguments; docs/reference/vw-arguments.md says which are taken.
        standbys: learners that fold the log along, ready to take over.
    """

    args: str = "--cb_explore_adf --cb_type mtr -q cs -q cf"
    standbys: Standbys = 0

    merges: ClassVar[Merges] = "gains"
    explorations: ClassVar[tuple[type[msgspec.Struct], ...]] = (
        *LearnerConfig.explorations,
        VwExploration,
    )
    snapshots: ClassVar[Mapping[str, Mapping[str, str] | None]] = {
        WEIGHTS_KIND: {"values": "<f4"},
        MODEL_KIND: None,
    }
    largest_number: ClassVar[float] = LARGEST

    def make(
        self,
        exploration: Exploration,
        *,
        salt: bytes,  # noqa: ARG002
        checkpoint: bytes | None = None,
    ) -> Learner:
        """Return a learner, fresh or resumed.

        Args:
            exploration: VW's own needs snapshots of VW's whole model; for others weights do, where
                they give exact scores.
            salt: unused; the learner draws nothing at random.
            checkpoint: what the learner goes on from; None for a fresh one.

        Raises:
            SpecError: arguments that are not allowed, or that VW refuses.
            SnapshotError: the checkpoint is corrupt, or of a learner with other arguments.
        """
        from bandits.vw.learner import VwLearner

        own = isinstance(exploration, VwExploration)
        return VwLearner(self.args, own_exploration=own, by_row=True, checkpoint=checkpoint)

    def load(self, snapshot: Snapshot, exploration: Exploration) -> Explore:
        """Return what a replica serves: from a context and its actions to a PMF.

        Args:
            snapshot: VW's weights, or a whole model, which gives VW's own PMF.
            exploration: how the policy acts on scores from weights; a whole model ignores it.

        Raises:
            SnapshotError: the snapshot is corrupt, its arguments are refused, or it holds weights
                and the exploration is VW's own.
        """
        from bandits.vw.learner import VwModel, load_vw

        model = load_vw(snapshot)
        if isinstance(model, VwModel):
            return model.pmf
        return explore_scores(exploration, model.scores, model.learned, model.scorer.scores_of_each)

    def terms(self, snapshot: Snapshot) -> TermsOf | None:
        """Return what the scores are sums of; None of a whole model, whose PMF is VW's own."""
        from bandits.vw.learner import VwWeights, load_vw
        from bandits.vw.terms import VwTerms

        model = load_vw(snapshot)
        return VwTerms(model.scorer).of if isinstance(model, VwWeights) else None

    def merge(self, base: bytes, given: Sequence[bytes]) -> bytes:
        """Return the checkpoint of a model that has learned what all partitions have.

        Args:
            base: the checkpoint of the model merged before, or of a fresh learner.
            given: a checkpoint of each partition, in their order, each gone on from ``base``.

        Raises:
            SnapshotError: a checkpoint is corrupt.
        """
        from bandits.vw.merge import merge_vw

        return merge_vw(self.args, base, given)

    def carry(self, merged: bytes, since: bytes, now: bytes) -> bytes:
        """Return the checkpoint that a partition goes on from after a merge.

        Args:
            merged: the checkpoint that the partition adopts.
            since: its own checkpoint as ``merged`` knows it.
            now: its checkpoint by now, whose gains on ``since`` are added to ``merged``.

        Raises:
            SnapshotError: a checkpoint is corrupt.
        """
        from bandits.vw.merge import carry_vw

        return carry_vw(self.args, merged, since, now)

    def check_mergeable(self) -> None:
        """Refuse arguments whose models VW cannot merge."""
        from bandits.vw.merge import check_mergeable

        check_mergeable(self.args)

    def check_learns(self, exploration: Exploration, default_reward: float) -> None:
        """Refuse arguments that would not learn here, or not do what they say.

        Args:
            exploration: VW's own follows the arguments; any other acts on VW's scores.
            default_reward: the reward of a decision that nobody rewarded.

        Raises:
            SpecError: names the option, the reason and what to do.
        """
        own = isinstance(exploration, VwExploration)
        check_arguments(self.args, own_exploration=own, default_reward=default_reward)

    def idle(self, namespaces: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the interactions with a letter that no namespace begins with."""
        if not is_set(self, "args"):
            return
        letters = {name[0] for name in namespaces}
        for option, values in read_arguments(self.args, KNOWN).items():
            for value in values if option in INTERACTIONS else ():
                missing = [letter for letter in value if letter != ":" and letter not in letters]
                if missing:
                    seen = (
                        f"the learner sees {', '.join(namespaces)}, and nothing else that begins"
                        f" with {missing[0]}"
                    )
                    yield "learner.args", f"--{option} {value} changes nothing: {seen}"

    def magnitude(self, shared: Row, own: Row) -> tuple[float, str]:
        """Return the largest feature, or product of crossed features, that VW would see.

        Args:
            shared: the features of a context.
            own: the features of an action.

        Returns:
            Its absolute value, and the namespaces it is made of, as ``a x b``; 0 and no name
            without features.
        """
        return largest(self.args, shared, own)
