"""Targets whose true value is known, because they are made from the truth of a world."""

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.exploration import Positive
from bandits.types import Float64, Pmf
from policies.typed_yaml import as_type, parse_yaml
from simulator.logs.rows import LoggedDecision
from simulator.ope.targets import RowTarget
from simulator.worlds.synthetic import SyntheticWorld

PAIRS = 1 << 15
"""Contexts from which a true value is computed, each beside its mirror image."""


class UniformTargetKind(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="uniform", tag_field="kind"
):
    """Every action with the same probability."""

    @property
    def name(self) -> str:
        """The target's name in reports."""
        return "uniform"

    def pmfs(self, means: Float64) -> Float64:
        """Return float64[n, K] from expected rewards float64[n, K]."""
        return np.full(means.shape, 1.0 / means.shape[1])


class SoftmaxTargetKind(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="softmax", tag_field="kind"
):
    """Probability proportional to exp(expected reward / temperature)."""

    temperature: Positive = 0.2

    @property
    def name(self) -> str:
        """The target's name in reports."""
        return f"softmax {self.temperature:g}"

    def pmfs(self, means: Float64) -> Float64:
        """Return float64[n, K] from expected rewards float64[n, K]."""
        weights: Float64 = np.exp((means - means.max(axis=1, keepdims=True)) / self.temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights


class BestTargetKind(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="best", tag_field="kind"
):
    """The action of the highest expected reward with probability 1 - epsilon, else any action."""

    epsilon: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1

    @property
    def name(self) -> str:
        """The target's name in reports."""
        return f"best {self.epsilon:g}"

    def pmfs(self, means: Float64) -> Float64:
        """Return float64[n, K] from expected rewards float64[n, K]; ties share."""
        best = means == means.max(axis=1, keepdims=True)
        pmfs: Float64 = (1.0 - self.epsilon) * best / best.sum(
            axis=1, keepdims=True
        ) + self.epsilon / means.shape[1]
        return pmfs


KnownTargetKind = UniformTargetKind | SoftmaxTargetKind | BestTargetKind
TARGETS: tuple[KnownTargetKind, ...] = (UniformTargetKind(), SoftmaxTargetKind(), BestTargetKind())


class KnownTarget(RowTarget):
    """A kind of target in a world.

    It knows the world as it starts, and does not follow its drift.
    """

    def __init__(self, kind: KnownTargetKind, world: SyntheticWorld) -> None:
        super().__init__(kind.name)
        self._kind, self._world = kind, world

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return float64[K]; see Target."""
        pmf: Pmf = self.pmfs(self._world.vectors([row.context]))[0]
        return pmf

    def pmfs(self, contexts: Float64) -> Float64:
        """Return float64[n, K] from contexts float64[n, features]."""
        return self._kind.pmfs(self._world.means(contexts, np.zeros(len(contexts), np.int64)))


class Truth(msgspec.Struct, frozen=True):
    """A target's true mean reward per round.

    ``stderr`` is the standard error of its computation by simulated contexts.
    """

    value: float
    stderr: float


def truth_of(
    target: KnownTarget, world: SyntheticWorld, rounds: int, seed: int, pairs: int = PAIRS
) -> Truth:
    """Return the target's value: the mean over contexts and over rounds 1 to ``rounds``.

    The sum over actions is exact. Contexts are drawn in pairs x, -x (Hammersley & Morton 1956,
    doi:10.1017/S0305004100031455), spread evenly over the rounds.

    Args:
        target: The policy whose value is asked for.
        world: The world in which it would act.
        rounds: The last round.
        seed: Seed of the contexts.
        pairs: How many pairs of contexts are drawn.
    """
    half = world.contexts(pairs, np.random.default_rng([seed, 2]))
    times: NDArray[np.int64] = np.arange(pairs) * rounds // pairs + 1
    values = [(target.pmfs(xs) * world.means(xs, times)).sum(axis=1) for xs in (half, -half)]

    # The two of a pair are not independent; their mean is one case.
    means = (values[0] + values[1]) / 2.0
    return Truth(float(means.mean()), float(means.std(ddof=1) / np.sqrt(pairs)))


def target_named(text: str) -> KnownTargetKind:
    """Return a kind of target by its name, or in YAML with its number.

    A name is ``uniform``, ``softmax`` or ``best``; YAML is ``{kind: softmax, temperature: 0.1}``.

    Raises:
        InvalidFieldError: It is none of these; names the field.
    """
    try:
        raw = parse_yaml(text)
        given = {"kind": raw} if isinstance(raw, str) else raw
        kind: KnownTargetKind = as_type(given, KnownTargetKind)  # type: ignore[arg-type] # a union
    except InvalidFieldError as error:
        raise InvalidFieldError(
            f"--target: {text}: {error.message}; use uniform, softmax, best,"
            f" {{kind: softmax, temperature: 0.1}} or"
            " {kind: best, epsilon: 0.2}",
            "target",
        ) from error

    return kind
