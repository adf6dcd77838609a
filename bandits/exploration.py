"""Exploration: from scores to a PMF. Pure functions of float64[K]; ties always share alike.

Every PMF a policy serves goes through ``with_floor``, so each action keeps at least floor/K.
"""

from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import SpecError
from bandits.kernels import actions as kernels
from bandits.kernels import alike as each
from bandits.types import Float32, Float64, Pmf

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Scales = Annotated[
    list[tuple[Annotated[int, msgspec.Meta(ge=0)], Positive]], msgspec.Meta(min_length=1)
]
"""Numbers of interactions, rising, and the scale of each."""


class EpsilonGreedy(
    msgspec.Struct, tag="epsilon_greedy", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """A best action with probability 1 - epsilon, any action otherwise.

    Attributes:
        epsilon: the probability of choosing among all actions alike.
    """

    epsilon: Fraction = 0.1

    def pmf(self, scores: Float64, learned: float) -> Pmf:  # noqa: ARG002
        """Return the PMF, float64[K].

        Args:
            scores: float64[K]; higher is better.
            learned: unused; the scores alone decide.
        """
        return kernels.greedy_pmf(scores, self.epsilon)


class Softmax(
    msgspec.Struct, tag="softmax", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """Probability proportional to exp(score / temperature).

    Attributes:
        temperature: the higher, the more alike are the probabilities.
    """

    temperature: Positive = 1.0

    def pmf(self, scores: Float64, learned: float) -> Pmf:  # noqa: ARG002
        """Return the PMF, float64[K].

        Args:
            scores: float64[K]; higher is better.
            learned: unused; the scores alone decide.
        """
        weights = np.exp((scores - scores.max()) / self.temperature)
        return normalised(weights)


class SquareCB(
    msgspec.Struct, tag="squarecb", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """Inverse gap weighting (Foster & Rakhlin 2020, arXiv:2002.04926, algorithm 1).

    gamma = gamma_scale * learned ** gamma_exponent, the schedule of Vowpal Wabbit's ``--squarecb``.
    Differs from the paper: actions tied for best share what the others leave.

    Attributes:
        gamma_scale: the higher, the greedier.
        gamma_exponent: how fast the policy becomes greedy as it learns.
    """

    gamma_scale: Positive = 10.0
    gamma_exponent: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5

    def pmf(self, scores: Float64, learned: float) -> Pmf:
        """Return float64[K] from scores[K].

        Args:
            scores: the expected reward of each action.
            learned: the number of interactions behind the scores, or what they are still worth.
        """
        gap = scores.max() - scores
        best = gap == 0.0
        gamma = self.gamma_scale * float(learned) ** self.gamma_exponent
        pmf = 1.0 / (scores.size + gamma * gap)
        pmf[best] = 0.0
        pmf[best] = (1.0 - pmf.sum()) / np.count_nonzero(best)
        return normalised(pmf)


class Greedy(
    msgspec.Struct, tag="greedy", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """A best action; ties share.

    With a floor of 0 nothing is explored and a log of it supports no other policy.
    """

    def pmf(self, scores: Float64, learned: float) -> Pmf:  # noqa: ARG002
        """Return the PMF, float64[K].

        Args:
            scores: float64[K]; higher is better.
            learned: unused; the scores alone decide.
        """
        return greedy(scores)


class LinUcb(
    msgspec.Struct, tag="linucb", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """Greedy on mean + alpha * standard deviation (Li et al. 2010, arXiv:1003.0146).

    Ridge learners only.

    Attributes:
        alpha: how much an uncertain action is favoured.
    """

    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class LinTs(msgspec.Struct, tag="lints", tag_field="kind", frozen=True, forbid_unknown_fields=True):
    """Thompson sampling (Agrawal & Goyal 2013, arXiv:1209.3352). Ridge learners only.

    Differs from the paper: a snapshot holds fixed posterior draws, and an action's probability is
    the share of draws in which it is best. So the PMF is exact and pure, and the logged propensity
    is the sampling probability.

    Attributes:
        scale: factor of the posterior's standard deviation; the higher, the more is explored. As
            ``[[7000, 0.12], [15000, 0.3], [40000, 0.1]]`` it is another one as the model learns:
            that of each number of interactions, the prior's included, on straight lines between
            them, and level before and after. With a half-life each interaction counts as what it
            is still worth.
        draws: how many posterior draws a snapshot holds.
    """

    scale: Positive | Scales = 0.5
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100

    def __post_init__(self) -> None:
        """Refuse scales that are not in order."""
        if not isinstance(self.scale, list):
            return
        learned = [at for at, _ in self.scale]
        if any(after <= at for at, after in pairwise(learned)):
            raise SpecError(
                f"the numbers of interactions must rise from scale to scale, not {learned}",
                "exploration.scale",
            )

    def scale_at(self, learned: float) -> float:
        """Return the scale of a model that has learned from so many interactions."""
        if not isinstance(self.scale, list):
            return self.scale
        points = np.array(self.scale, np.float64)
        return float(np.interp(learned, points[:, 0], points[:, 1]))


class VwExploration(
    msgspec.Struct, tag="vw", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    """Vowpal Wabbit's own exploration, as its argument string says. VW learners only."""


ScoreExploration = EpsilonGreedy | Softmax | SquareCB | Greedy
Exploration = ScoreExploration | LinUcb | LinTs | VwExploration


def pmf_of_each(
    exploration: ScoreExploration, scores: Float64, starts: NDArray[np.int64], learned: float
) -> Float64:
    """Return the PMF of each of several decisions, one after the other, float64[N].

    Args:
        exploration: by which each is explored.
        scores: float64[N]; higher is better.
        starts: int64[R + 1], where the actions of each decision begin.
        learned: see the explorations' ``pmf``.
    """
    if isinstance(exploration, EpsilonGreedy | Greedy):
        floor = exploration.epsilon if isinstance(exploration, EpsilonGreedy) else 0.0
        return each.greedy_each(scores, starts, floor)
    parts = [exploration.pmf(scores[a:b], learned) for a, b in pairwise(starts.tolist())]
    pmfs: Float64 = np.concatenate(parts)
    return pmfs


def greedy(scores: Float64) -> Pmf:
    """Return all mass on the highest of float64[K], shared by ties."""
    return kernels.greedy_pmf(scores, 0.0)


def votes(draws: Float32) -> Pmf:
    """Return the share of the columns of ``draws``, float32[K, M], in which each row is highest.

    A tie splits its vote.
    """
    return normalised(kernels.count_votes(draws))


def with_floor(pmf: Pmf, floor: float) -> Pmf:
    """Mix a PMF with the uniform one, so that every action gets at least floor/K.

    Args:
        pmf: float64[K].
        floor: the total mass of the uniform one.
    """
    return pmf if floor == 0.0 else kernels.mixed(pmf, floor)


def each_with_floor(pmfs: Float64, starts: NDArray[np.int64], floor: float) -> Float64:
    """Mix each of several PMFs with the uniform one; see ``with_floor``.

    Args:
        pmfs: float64[N], one after the other.
        starts: int64[R + 1], where each begins.
        floor: the total mass of the uniform one.
    """
    return pmfs if floor == 0.0 else each.mixed_each(pmfs, starts, floor)


def normalised(weights: Float64) -> Pmf:
    """Return the PMF that is proportional to these non-negative weights."""
    pmf: Pmf = weights / weights.sum()
    return pmf
