"""Vowpal Wabbit as a learner, and as what replicas score with.

VW minimises costs; everything outside this room speaks of rewards. A cost is minus a reward.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from vowpal_wabbit_next import CBLabel, Example, LabelType, PredictionType, Workspace

from bandits.errors import (
    InvalidFieldError,
    InvalidPmfError,
    NonFiniteNumberError,
    SnapshotError,
    SpecError,
)
from bandits.types import (
    ActionSet,
    ChosenRow,
    ChosenRows,
    Context,
    DecisionRows,
    Float64,
    Interaction,
    Learner,
    Pmf,
    Snapshot,
)
from bandits.vw.accepted_arguments import KNOWN
from bandits.vw.arguments import CLAIMED, read_arguments, read_bits
from bandits.vw.config import MODEL_KIND, WEIGHTS_KIND
from bandits.vw.examples import NO_LABEL, Examples
from bandits.vw.payloads import (
    VwWeightsPayload,
    decode_model,
    decode_payload,
    encode_model,
)
from bandits.vw.weights import WeightScorer, parse_arguments

# without the counters a resumed model's header differs
_OURS = ("--quiet", "--preserve_performance_counters")
_PMF_SLACK = 1e-4  # VW's probabilities are float32; further from 1 than this is no rounding


class _Workspace(Workspace[bool]):  # type: ignore[misc]
    """A workspace that asks for no label's type with each example, as the library does."""

    @cached_property
    def label_type(self) -> LabelType:
        """What VW says the first time; it never changes."""
        kind: LabelType = super().label_type
        return kind

    def _check_label(self, example: Example | list[Example]) -> None:
        """Take examples as they come: all that are made here have a label of this type."""


def _open(args: str, model: bytes | None = None) -> tuple[Workspace[bool], int]:
    """Return a workspace, empty or with a serialised model, and its number of index bits.

    Raises:
        SpecError: arguments that this project does not allow or, without a model, that VW refuses.
        SnapshotError: VW cannot load the model with these arguments.
        MemoryError: there is too little memory for so many bits.
    """
    options = read_arguments(args, KNOWN)
    if "cb_explore_adf" not in options:
        raise SpecError("a VW learner's arguments include --cb_explore_adf", "learner.args")

    bits = read_bits(options)
    words = args.split()
    if model is not None and "random_seed" in options:
        words = _without_seed(words)
    try:
        workspace = _Workspace([*words, *_OURS], model_data=model)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "allocate" in reason or "bad_alloc" in reason:  # no fault of the arguments
            raise MemoryError(reason) from error
        if model is None:
            raise SpecError(f"VW refuses '{args}': {reason}", "learner.args") from error
        raise SnapshotError(f"VW cannot load the model: {reason}", "payload.model") from error

    if (
        workspace.label_type != LabelType.CB
        or workspace.prediction_type != PredictionType.ActionProbs
    ):
        raise SpecError(f"'{args}' does not make a PMF over actions", "learner.args")
    return workspace, bits


def open_workspace(args: str, model: bytes) -> Workspace[bool]:
    """Return a workspace of its own with a serialised model.

    Args:
        args: the learner's arguments.
        model: the bytes that VW has serialised.

    Raises:
        SnapshotError: VW cannot load the model with these arguments.
    """
    return _open(" ".join(args.split()), model)[0]


def _without_seed(words: list[str]) -> list[str]:
    """Return the words without a seed: a model has its own, and VW takes no other."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--random_seed":
            kept.pop()
        elif not word.startswith("--random_seed="):
            kept.append(word)
    return kept


def _check(interaction: Interaction) -> None:
    if not 0 <= interaction.chosen < len(interaction.actions):
        raise InvalidFieldError(f"{interaction.chosen} is not the index of an action", "chosen")
    _check_numbers(interaction.propensity, interaction.reward)
    for namespace in (*interaction.context.namespaces, *interaction.actions.namespaces):
        if not np.isfinite(namespace.values).all():
            raise NonFiniteNumberError("feature values are finite", f"features.{namespace.name}")


def _check_numbers(propensity: float, reward: float) -> None:
    if not 0.0 < propensity <= 1.0:
        raise InvalidFieldError(f"a propensity is in (0, 1], not {propensity!r}", "propensity")
    if not math.isfinite(reward):
        raise NonFiniteNumberError(f"a reward is finite, not {reward!r}", "reward")


def _needs_only_the_chosen(args: str) -> bool:
    """Return whether VW learns from the chosen action's features alone.

    With ``--cb_type mtr`` VW learns the chosen action, weighted by 1 / propensity and by the share
    of one action in all that there have been (``event_sum / action_sum`` in VW's
    ``gen_cs_example``); it only scores the others. SquareCB explores by changing the labels.
    """
    options = read_arguments(args, CLAIMED)
    return set(options.get("cb_type", [])) <= {"mtr"} and "squarecb" not in options


class VwLearner(Learner):
    """Learns with VW from the features' hashes, exactly as VW would from the equivalent text.

    Not thread-safe. A snapshot is the weights, for ``bandits.vw.weights``, where that is exact;
    else the whole model.

    Args:
        args: any ``--cb_explore_adf`` argument string made of ``KNOWN`` options.
        checkpoint: what it goes on from.
        own_exploration: VW's own PMF is wanted, so a snapshot is the whole model.
        by_row: VW is shown the chosen action alone where the arguments let it learn from that. The
            weights are the same, byte for byte, but VW's own counters in a serialised model are
            not. So a model that has learned goes on in the way in which it was taught.

    Raises:
        SpecError: arguments that are not allowed, or that VW refuses; the message says why.
        SnapshotError: ``checkpoint`` is corrupt, or of a learner with other arguments.
    """

    takes_decisions = True

    def __init__(
        self,
        args: str,
        *,
        checkpoint: bytes | None = None,
        own_exploration: bool = False,
        by_row: bool = False,
    ) -> None:
        self.args = " ".join(args.split())
        self.learned = self._available = 0
        model = None
        if checkpoint is not None:
            saved = decode_model(checkpoint)
            if saved.args != self.args:
                raise SnapshotError(
                    f"the checkpoint is of '{saved.args}', not of '{self.args}'", "learner.args"
                )
            self.learned, self._available, model = saved.learned, saved.available, saved.model

        self._workspace, bits = _open(self.args, model)
        self._examples = Examples(bits)
        # The label of one row after the other: to make one costs more than to change it.
        self._label = CBLabel()
        self._plan = None if own_exploration else parse_arguments(self.args)

        self.by_row = by_row and self._plan is not None and _needs_only_the_chosen(self.args)
        if self._available and not _needs_only_the_chosen(self.args):
            raise SnapshotError(
                f"a model of '{self.args}' is not taught by row", "payload.available"
            )
        if self.learned:
            self.by_row = self._available > 0

    def learn(self, interactions: Sequence[Interaction]) -> None:
        """Learn from interactions, in order, each with all of its actions.

        Raises:
            InvalidInputError: a chosen index, propensity, reward or feature value that cannot be;
                then nothing is learned.
        """
        for interaction in interactions:
            _check(interaction)

        for interaction in interactions:
            if self.by_row:
                self.learn_row(ChosenRow.of(interaction))
                continue

            examples = self._examples.fill(interaction.context, interaction.actions)
            chosen = examples[1 + interaction.chosen]
            # VW takes the action from where the label stands; the number in the label is unused.
            chosen.set_label(CBLabel(label=(0, -interaction.reward, interaction.propensity)))
            try:
                self._workspace.learn_one(examples)
            finally:
                chosen.set_label(NO_LABEL)
            self.learned += 1

    def learn_row(self, row: ChosenRow) -> None:
        """Learn what ``learn`` does, from the chosen action alone; only ``by_row``.

        Raises:
            InvalidInputError: a propensity or a reward that cannot be.
        """
        _check_numbers(row.propensity, row.reward)
        self._available += row.available
        # In VW's own arithmetic.
        weight = np.float32(self.learned + 1) / np.float32(self._available)

        examples = self._examples.fill_one(row.shared, row.own)
        label = self._label
        label.label, label.weight = (0, -row.reward, row.propensity), float(weight)
        examples[1].set_label(label)
        self._workspace.learn_one(examples)
        self.learned += 1

    def learn_rows(self, rows: ChosenRows) -> None:
        """Learn what ``learn_row`` does, from rows that are columns already; only ``by_row``.

        Raises:
            InvalidInputError: a propensity or a reward that cannot be; then nothing is learned.
        """
        if not len(rows):
            return
        propensities, rewards = rows.propensities.tolist(), rows.rewards.tolist()
        for propensity, reward in zip(propensities, rewards, strict=True):
            _check_numbers(propensity, reward)

        # In VW's own arithmetic.
        counts = np.arange(self.learned + 1, self.learned + 1 + len(rows)).astype(np.float32)
        available = self._available + np.cumsum(rows.available)
        weights = (counts / available.astype(np.float32)).tolist()

        label = self._label
        for at, examples in enumerate(self._examples.fill_rows(rows)):
            label.label, label.weight = (0, -rewards[at], propensities[at]), weights[at]
            examples[1].set_label(label)
            self._workspace.learn_one(examples)
        self.learned, self._available = self.learned + len(rows), int(available[-1])

    def learn_decisions(self, rows: DecisionRows) -> None:
        """Learn what ``learn`` does, from all actions, of interactions that are columns already.

        Raises:
            InvalidInputError: a propensity or a reward that cannot be; then nothing is learned.
        """
        propensities = rows.contexts.propensities.tolist()
        rewards, chosen = rows.contexts.rewards.tolist(), rows.chosen.tolist()
        for propensity, reward in zip(propensities, rewards, strict=True):
            _check_numbers(propensity, reward)

        for at, examples in enumerate(self._examples.fill_decisions(rows)):
            example = examples[1 + chosen[at]]
            example.set_label(CBLabel(label=(0, -rewards[at], propensities[at])))
            try:
                self._workspace.learn_one(examples)
            finally:
                example.set_label(NO_LABEL)
            self.learned += 1

    def learn_prior(
        self,
        lessons: Iterable[ChosenRows | Interaction],
        weight: float,
        time_ms: int = 0,  # noqa: ARG002 - VW knows no time
    ) -> int:
        """Learn each lesson with its weight, in order; only of one that has learned nothing.

        VW weighs an example by its label: the chosen action's where that alone is learned, else
        those of all actions.

        Args:
            lessons: columns only where ``by_row``.
            weight: how many interactions each is worth.
            time_ms: unused.
        """
        count = available = 0
        for lesson in lessons:
            if not isinstance(lesson, ChosenRows):
                self._learn_weighted(lesson, weight)
                count, available = count + 1, available + len(lesson.actions)
                continue

            for reward, examples in zip(
                lesson.rewards.tolist(), self._examples.fill_rows(lesson), strict=True
            ):
                examples[1].set_label(CBLabel(label=(0, -reward, 1.0), weight=weight))
                self._workspace.learn_one(examples)
            count, available = count + len(lesson), available + int(lesson.available.sum())

        self.learned = round(weight * count)
        if self.by_row and self.learned:
            self._available = max(self.learned, round(weight * available))
        return count

    def _learn_weighted(self, taught: Interaction, weight: float) -> None:
        """Learn an interaction that was no choice of ours, with a weight."""
        if self.by_row:
            row = ChosenRow.of(taught)
            examples = self._examples.fill_one(row.shared, row.own)
            examples[1].set_label(CBLabel(label=(0, -taught.reward, 1.0), weight=weight))
            self._workspace.learn_one(examples)
            return

        examples = self._examples.fill(taught.context, taught.actions)
        for index, example in enumerate(examples[1:]):
            chosen = (0, -taught.reward, taught.propensity) if index == taught.chosen else None
            example.set_label(CBLabel(label=chosen, weight=weight))
        try:
            self._workspace.learn_one(examples)
        finally:
            for example in examples[1:]:
                example.set_label(NO_LABEL)

    def snapshot(self, position: str) -> Snapshot:
        """Return what replicas score with, as of the log entry ``position``; see ``load_vw``."""
        if self._plan is None:
            return Snapshot(MODEL_KIND, position, self.learned, self.checkpoint())

        # A view that only a workspace with a single model may be asked for.
        weights = self._workspace.weights()[:, 0, 0]
        indices = np.flatnonzero(weights)
        payload = VwWeightsPayload(
            self.args, indices.astype("<u4").tobytes(), weights[indices].astype("<f4").tobytes()
        )
        return Snapshot(WEIGHTS_KIND, position, self.learned, msgspec.msgpack.encode(payload))

    def checkpoint(self) -> bytes:
        """Return what a learner with the same arguments resumes from."""
        return encode_model(self.args, self.learned, self._available, self._workspace.serialize())


@dataclass(frozen=True, slots=True, eq=False)
class VwWeights:
    """Scores from a snapshot's weights; pure, and safe to share between threads."""

    learned: int
    scorer: WeightScorer

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        """Return the predicted reward of each action, float64[K]; higher is better.

        Args:
            context: features that all actions share, alone and as the arguments cross them.
            actions: K of them, each scored by itself.
        """
        return self.scorer.scores(context, actions)


class VwModel:
    """VW's own PMF, from a whole model. Pure, but not thread-safe."""

    def __init__(self, args: str, model: bytes, learned: int) -> None:
        self.learned = learned
        self._workspace, bits = _open(args, model)
        self._examples = Examples(bits)

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """Return VW's probabilities of the actions, float64[K], scaled to sum to 1 within 1e-12.

        Args:
            context: what the actions share.
            actions: K of them, at least one.

        Raises:
            InvalidPmfError: VW's float32 probabilities are not finite, negative, or do not sum to 1
                within float32's rounding.
        """
        if not actions.ids:
            raise InvalidPmfError("there is no PMF without actions", "pmf")

        predicted = self._workspace.predict_one(self._examples.fill(context, actions))
        pmf = np.zeros(len(actions), dtype=np.float64)
        for index, probability in predicted:
            pmf[index] = probability

        total = float(pmf.sum())
        if not (abs(total - 1.0) <= _PMF_SLACK and float(pmf.min()) >= 0.0):  # also catches NaN
            raise InvalidPmfError(f"VW's probabilities sum to {total!r}", "pmf")
        return pmf / total


def load_vw(snapshot: Snapshot) -> VwWeights | VwModel:
    """Return what a replica scores with.

    Raises:
        SnapshotError: of another kind, corrupt, or made with arguments that are not allowed here.
    """
    try:
        if snapshot.kind == WEIGHTS_KIND:
            return VwWeights(
                snapshot.learned, _load_weights(decode_payload(snapshot.payload, VwWeightsPayload))
            )
        if snapshot.kind == MODEL_KIND:
            saved = decode_model(snapshot.payload)
            return VwModel(saved.args, saved.model, saved.learned)
    except SpecError as error:
        raise SnapshotError(
            f"the snapshot's arguments are refused: {error.message}", "payload.args"
        ) from error
    raise SnapshotError(f"'{snapshot.kind}' is not a kind of VW snapshot", "kind")


def _load_weights(payload: VwWeightsPayload) -> WeightScorer:
    plan = parse_arguments(payload.args)
    if plan is None:
        raise SnapshotError(f"'{payload.args}' cannot be scored from its weights", "payload.args")
    if len(payload.indices) % 4 or len(payload.indices) != len(payload.values):
        raise SnapshotError(
            "every weight has one index and one value, of four bytes each", "payload"
        )
    indices = np.frombuffer(payload.indices, dtype="<u4").astype(np.uint32)
    values = np.frombuffer(payload.values, dtype="<f4").astype(np.float32)
    return WeightScorer(plan, indices, values)
