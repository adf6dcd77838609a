"""A kind of learner: a config that makes it and says what it can do.

A new kind is a room of its own (see ``bandits/ridge``, ``bandits/vw``, ``bandits/rl``) and one line
in ``bandits/learner_kinds.py``. Everybody else asks the config.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import msgspec

from bandits.alike import AlikeDecisions
from bandits.errors import SnapshotError, SpecError
from bandits.exploration import Exploration, ScoreExploration, pmf_of_each
from bandits.features.columns import FeatureIndex
from bandits.terms import TermsOf
from bandits.types import ActionSet, Context, Explore, Float64, Learner, Pmf, Row, Snapshot

Standbys = Annotated[int, msgspec.Meta(ge=0, le=8)]
"""How many learners fold the log along, ready to take over."""

Merges = Literal["never", "sums", "gains"]
"""How the models of a policy's partitions become one; see ``LearnerConfig.merges``."""


class LearnerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every learner's config: what can be asked of one, and the usual answers.

    It has no fields, so that a subclass decides the order in which its own are written. Each
    declares ``standbys: Standbys = 0``, and methods import their learner only when they are called:
    a spec is read in processes that learn nothing.

    ``learns``: it learns from the log; without, only a warm start changes it.

    ``corrects``: it can change the reward of what it has learned (``Learner.correct_row``).

    ``merges``: how the models of several partitions become one. ``sums``: a checkpoint holds all
    that one log has taught; merging adds them up, and a partition goes on from its own. ``gains``:
    a checkpoint rests on the model merged before; merging adds what each has gained since, and a
    partition goes on from the merged model. ``never``: the policy has one partition.

    ``explorations``: those that can act on its model. ``policy_kinds``: the policies it is for.

    ``snapshots``: the kinds of its snapshots; for each, the arrays of numbers in the payload with
    their type, or None if two payloads compare by their bytes alone.

    ``has_columns``: its model has a column per feature, and runs out of them; see ``columns``.

    ``largest_number``: the largest number, or product of crossed numbers, that it learns from; of
    an example with a larger one it learns nothing.
    """

    learns: ClassVar[bool] = True
    corrects: ClassVar[bool] = False
    merges: ClassVar[Merges] = "never"
    explorations: ClassVar[tuple[type[msgspec.Struct], ...]] = get_args(ScoreExploration)
    policy_kinds: ClassVar[tuple[str, ...]] = ("blend", "mixture")
    snapshots: ClassVar[Mapping[str, Mapping[str, str] | None]] = {}
    has_columns: ClassVar[bool] = False
    largest_number: ClassVar[float] = math.inf

    @property
    def kind(self) -> str:
        """The name of this kind of learner in a spec."""
        return str(self.__struct_config__.tag)

    @property
    def without_standbys(self) -> Self:
        """The config as the log has it: standbys differ by machine and change no model."""
        return msgspec.structs.replace(self, standbys=0)

    @property
    def basis(self) -> "LearnerConfig":
        """The part that a checkpoint depends on: a config of another basis starts afresh.

        It is a part of the name of a model in the log (``PolicySpec.model_digest``), so that of an
        existing kind stays as it is, byte for byte.
        """
        return self.without_standbys

    @property
    def crossed(self) -> Iterable[tuple[str, str]]:
        """The pairs of namespaces that the config crosses by name."""
        return ()

    @property
    def tells_actions_apart(self) -> bool:
        """Whether it can learn which action is better without any feature of them."""
        return False

    def make(
        self, exploration: Exploration, *, salt: bytes, checkpoint: bytes | None = None
    ) -> Learner:
        """Return the learner, fresh or resumed.

        Args:
            exploration: the policy's, since a snapshot holds what it needs.
            salt: the secret that seeds what is drawn at random.
            checkpoint: what the learner goes on from.

        Raises:
            SpecError: no learner can be made of this config.
            SnapshotError: the checkpoint is corrupt, or of a learner of another config.
        """
        raise NotImplementedError

    def load(self, snapshot: Snapshot, exploration: Exploration) -> Explore:
        """Return what a replica serves: from a context and its actions to a PMF.

        Args:
            snapshot: one of the kinds in ``snapshots``.
            exploration: how the policy explores with the model.

        Raises:
            SnapshotError: the snapshot is corrupt, or was made for another exploration.
        """
        raise NotImplementedError

    def merge(self, base: bytes, given: Sequence[bytes]) -> bytes:
        """Return the checkpoint of a model that has learned what all partitions have.

        Args:
            base: the checkpoint of the model merged before, or of a fresh learner.
            given: a checkpoint of each partition, in their order.

        Raises:
            SpecError: models of this kind do not merge.
        """
        raise SpecError(f"models of a {self.kind} learner do not merge", "partitions")

    def carry(self, merged: bytes, since: bytes, now: bytes) -> bytes:
        """Return ``merged`` with what a partition gained from ``since`` to ``now``.

        Only where ``merges`` is ``gains``.

        Args:
            merged: the checkpoint that the partition adopts.
            since: its own checkpoint as ``merged`` knows it.
            now: its checkpoint by now.
        """
        raise NotImplementedError

    def check_mergeable(self) -> None:
        """Refuse a config whose models do not merge.

        Raises:
            SpecError: names the field of the spec.
        """

    def check_learns(self, exploration: Exploration, default_reward: float) -> None:
        """Refuse a config that would not learn, whether a file brings it or Python.

        Args:
            exploration: the policy's.
            default_reward: the reward of a decision that nobody rewarded.

        Raises:
            SpecError: names the field of the spec, the reason and what to do.
        """

    def idle(self, namespaces: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield each field that would be without effect, and what to do about it.

        Args:
            namespaces: those that the learner sees.
        """
        yield from ()

    def terms(self, snapshot: Snapshot) -> TermsOf | None:
        """Return what a snapshot's scores are sums of; None where they are no plain sums.

        Args:
            snapshot: one of the kinds in ``snapshots``.

        Raises:
            SnapshotError: the snapshot is corrupt.
        """
        return None

    def columns(self, snapshot: Snapshot) -> "ModelColumns":
        """Return the columns of a snapshot's model; only where ``has_columns``.

        Raises:
            SnapshotError: the snapshot is corrupt.
        """
        raise NotImplementedError

    def magnitude(self, shared: Row, own: Row) -> tuple[float, str]:
        """Return the largest number the learner makes of these features, and of which namespaces.

        Args:
            shared: the features of a context.
            own: the features of an action.
        """
        return 0.0, ""

    def check_exploration(self, exploration: Exploration) -> None:
        """Refuse an exploration that cannot act on this learner's model.

        Raises:
            SpecError: names those that can.
        """
        if not isinstance(exploration, self.explorations):
            able = ", ".join(str(kind.__struct_config__.tag) for kind in self.explorations)
            asked = exploration.__struct_config__.tag
            raise SpecError(
                f"a {self.kind} learner does not explore by {asked}, but by one of {able}",
                "exploration.kind",
            )


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The columns of a model that has one per feature, and the config it was made with."""

    config: LearnerConfig
    index: FeatureIndex


@dataclass(frozen=True, slots=True, eq=False)
class ExploredScores:
    """A model of scores, and how it is explored.

    ``of_each``: the scores of several decisions at once, float64[N]; None where it has none.
    """

    exploration: ScoreExploration
    scores: Callable[[Context, ActionSet], Float64]
    learned: float
    of_each: Callable[[AlikeDecisions], Float64 | None] | None = None

    def __call__(self, context: Context, actions: ActionSet) -> Pmf:
        """Return the PMF of a decision, float64[K]."""
        return self.exploration.pmf(actions.boosted(self.scores(context, actions)), self.learned)

    def pmf_of_each(self, decisions: AlikeDecisions) -> Float64 | None:
        """Return the PMFs of several decisions; see ``PolicyOfEach``."""
        scores = None if self.of_each is None else self.of_each(decisions)
        if scores is None:
            return None
        return pmf_of_each(self.exploration, scores, decisions.starts, self.learned)


def explore_scores(
    exploration: Exploration,
    scores: Callable[[Context, ActionSet], Float64],
    learned: float,
    of_each: Callable[[AlikeDecisions], Float64 | None] | None = None,
) -> ExploredScores:
    """Return how an exploration acts on a model of scores.

    Args:
        exploration: one that asks for scores alone.
        scores: float64[K] of a decision; higher is better.
        learned: how many interactions the model has learned, or what they are still worth.
        of_each: the same scores of several decisions at once, float64[N], or None where the model
            has to be asked one by one, as always without it.

    Raises:
        SnapshotError: the exploration asks for more than scores.
    """
    if not isinstance(exploration, ScoreExploration):
        raise SnapshotError(
            f"a model of scores cannot explore as {type(exploration).__name__}", "exploration.kind"
        )

    return ExploredScores(exploration, scores, learned, of_each)


def is_set(struct: Any, field: str) -> bool:
    """Return whether a field of a msgspec struct has another value than its default.

    Args:
        struct: any struct; its required fields are taken as they are.
        field: the name of a field that has a default.
    """
    required = len(struct.__struct_fields__) - len(struct.__struct_defaults__)
    given = {name: getattr(struct, name) for name in struct.__struct_fields__[:required]}
    return bool(getattr(struct, field) != getattr(type(struct)(**given), field))
