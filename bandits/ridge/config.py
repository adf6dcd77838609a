"""The config of a ridge learner, and what such a learner can do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError
from bandits.exploration import Exploration, LinTs, LinUcb, greedy, votes
from bandits.learner_config import (
    LearnerConfig,
    Merges,
    ModelColumns,
    Standbys,
    explore_scores,
    is_set,
)
from bandits.terms import TermsOf
from bandits.types import Explore, Learner, Snapshot

KIND = "ridge"
Looked = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""The probability that something is looked at."""
MOST_SLOTS = 49
"""Slots of a page below the first one."""
SHORTEST_MS = 1000
"""The shortest half-life."""


class RidgeConfig(
    LearnerConfig, tag=KIND, tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """Bayesian ridge regression with a bias per item.

    Attributes:
        l2: prior precision of the weights that all actions share.
        action_bias: whether each item has a bias of its own.
        bias_l2: prior precision of the items' biases.
        interactions: pairs of namespaces whose features are crossed.
        max_features: how many features the model has columns for; a feature first met when there is
            none left is not learned.
        standbys: learners that fold the log along, ready to take over.
        intercept: whether all actions share a constant; without it, an action without features of
            its own is worth 0 before its bias is learned. Written only if it is false, so that
            specs from before this field keep their bytes.
        half_life: after so long a decision counts half, as ``30d``: a number and s, m, h, d or w,
            at least 1s (docs/explanation/forgetting.md). Without it nothing is forgotten.
        examination: by slot of a page, the first one first, the probability that it is looked at;
            the last one is that of all slots below (docs/how-to/learn-from-lists.md). A score is
            then what an action earns once it is looked at. Without it all slots are alike.
        slot_biases: how many slots of a page, below the first one, have a bias each: what is earned
            there more or less, whatever stands there; slots below have the last one's
            (docs/how-to/learn-from-lists.md). A score is then what an action earns in the first
            slot.
    """

    l2: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    action_bias: bool = True
    bias_l2: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    interactions: list[tuple[str, str]] = msgspec.field(default_factory=list)
    max_features: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    standbys: Standbys = 0
    intercept: bool | msgspec.UnsetType = msgspec.UNSET
    half_life: str | msgspec.UnsetType = msgspec.UNSET
    examination: list[Looked] | msgspec.UnsetType = msgspec.UNSET
    slot_biases: Annotated[int, msgspec.Meta(ge=1, le=MOST_SLOTS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )

    def __post_init__(self) -> None:
        """Make sure that there is one way to say the usual case, and that a half-life is one."""
        if self.intercept:
            msgspec.structs.force_setattr(self, "intercept", msgspec.UNSET)
        if self.half_life is not msgspec.UNSET:
            _demand_half_life(self.half_life)
        if self.examination == []:
            raise SpecError(
                "examination names one slot at least: leave it out where all are looked at",
                "learner.examination",
            )
        if self.slot_biases is not msgspec.UNSET:
            self._check_slots(self.slot_biases)

    def _check_slots(self, count: int) -> None:
        """Refuse biases beside what says the same, or with no room for a feature beside them."""
        if self.examination is not msgspec.UNSET:
            raise SpecError(
                "examination says already what slots do: leave one of the two out",
                "learner.slot_biases",
            )
        if count + 1 >= self.max_features:
            raise SpecError(
                f"{count} slots leave no room among {self.max_features} max_features: the intercept"
                " takes one, and features need the rest",
                "learner.slot_biases",
            )

    corrects: ClassVar[bool] = True
    merges: ClassVar[Merges] = "sums"
    has_columns: ClassVar[bool] = True
    explorations: ClassVar[tuple[type[msgspec.Struct], ...]] = (
        *LearnerConfig.explorations,
        LinUcb,
        LinTs,
    )
    snapshots: ClassVar[Mapping[str, Mapping[str, str] | None]] = {
        KIND: {
            **dict.fromkeys(("weights", "bias", "covariance", "shift", "shrink", "worth"), "<f8"),
            **dict.fromkeys(("weight_draws", "bias_draws"), "<f4"),
        }
    }

    @property
    def half_life_ms(self) -> int | None:
        """After how many milliseconds a decision counts half; None: it always counts in full."""
        return None if self.half_life is msgspec.UNSET else duration_ms(self.half_life)

    @property
    def crossed(self) -> Sequence[tuple[str, str]]:
        """The pairs of namespaces whose features are crossed."""
        return self.interactions

    @property
    def tells_actions_apart(self) -> bool:
        """Whether each action has a bias of its own."""
        return self.action_bias

    def make(
        self, exploration: Exploration, *, salt: bytes, checkpoint: bytes | None = None
    ) -> Learner:
        """Return a learner, fresh or resumed.

        Args:
            exploration: decides what snapshots hold beside means: posterior draws for LinTs, the
                covariance for LinUcb.
            salt: the secret that seeds posterior draws; its first 64 bytes count.
            checkpoint: what the learner goes on from; None for a fresh one.

        Raises:
            SnapshotError: the checkpoint is corrupt.
        """
        from bandits.ridge.learner import RidgeLearner

        return RidgeLearner(
            self,
            sampling=exploration if isinstance(exploration, LinTs) else None,
            uncertainty=isinstance(exploration, LinUcb),
            salt=salt,
            checkpoint=checkpoint,
        )

    def load(self, snapshot: Snapshot, exploration: Exploration) -> Explore:
        """Return how an exploration acts on a posterior.

        Args:
            snapshot: the posterior, made for this exploration.
            exploration: LinTs acts on its draws, LinUcb on its upper bounds, others on its means.

        Raises:
            SnapshotError: the snapshot is corrupt, or the exploration is VW's own. A snapshot that
                lacks the draws or the covariance is refused only when a PMF is asked for.
        """
        from bandits.ridge.model import RidgeModel

        model = RidgeModel(snapshot)
        if isinstance(exploration, LinTs):
            return lambda context, actions: votes(actions.boosted(model.draws(context, actions)))
        if isinstance(exploration, LinUcb):
            alpha = exploration.alpha
            return lambda context, actions: greedy(
                actions.boosted(model.upper_bounds(context, actions, alpha))
            )
        return explore_scores(exploration, model.comparable, model.worth)

    def merge(self, base: bytes, given: Sequence[bytes]) -> bytes:  # noqa: ARG002
        """Return the checkpoint of a learner of all the logs: the sums, added up.

        Args:
            base: unused; each partition's sums already hold all that its log has taught.
            given: a checkpoint of each partition, in their order.

        Raises:
            SnapshotError: a checkpoint is corrupt.
        """
        from bandits.ridge.merge import merge_ridge

        return merge_ridge(self, given)

    def terms(self, snapshot: Snapshot) -> TermsOf:
        """Return what the posterior means are sums of."""
        from bandits.ridge.terms import RidgeTerms

        return RidgeTerms(snapshot).of

    def columns(self, snapshot: Snapshot) -> ModelColumns:
        """Return the columns of a snapshot's features."""
        from bandits.ridge.payloads import RidgePayload, decode_struct, index_of

        payload: RidgePayload = decode_struct(snapshot.payload, RidgePayload)
        return ModelColumns(payload.config, index_of(payload.config, payload.hashes))

    def idle(self, namespaces: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield a prior of biases that are not there, and interactions that cross nothing."""
        if is_set(self, "bias_l2") and not self.action_bias:
            yield (
                "learner.bias_l2",
                "there is no action_bias that it could hold back: leave bias_l2 out",
            )

        for first, second in self.interactions:
            missing = [name for name in (first, second) if name not in namespaces]
            if missing:
                yield (
                    "learner.interactions",
                    f"[{first}, {second}] crosses nothing: the learner does not see {missing[0]}",
                )
        if len({frozenset(pair) for pair in self.interactions}) < len(self.interactions):
            yield "learner.interactions", "two namespaces are crossed twice: once is enough"


def _demand_half_life(text: str) -> None:
    """Refuse what is no half-life."""
    try:
        half_life_ms = duration_ms(text)
    except InvalidFieldError as error:
        raise SpecError(error.message, "learner.half_life") from error
    if half_life_ms < SHORTEST_MS:
        raise SpecError(
            f"a half-life is 1s at least, not {text}: leave it out to forget nothing",
            "learner.half_life",
        )
