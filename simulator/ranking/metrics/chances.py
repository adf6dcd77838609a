"""Chances that candidates are relevant, made of scores: fitted on one part, judged on another.

Whatever the unit of a score is, its chance is the logistic function of a + b * score (Platt 1999),
with a and b fitted on the validation part; so the log loss of all rows can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from policies.training.logistic import fit_logistic, probability
from simulator.ranking.fusion import Fusion, Pools
from simulator.ranking.metrics.lists import ItemSets


@dataclass(frozen=True, slots=True)
class Chances:
    """The lines from scores to logits.

    ``lines``: slope and intercept of each row, by name; ``share``: of the candidates that were
    relevant where the lines were fitted.
    """

    lines: Mapping[str, tuple[float, float]]
    share: float

    def losses(
        self, name: str, values: Float64, allowed: NDArray[np.bool_], relevant: NDArray[np.bool_]
    ) -> Float64:
        """Return the mean log loss of each user's candidates, float64[users], in nats.

        It is NaN for a user without candidates.

        Args:
            name: of the row.
            values: its scores, float64[users, n].
            allowed: which places hold a candidate, bool[users, n].
            relevant: which of them are relevant, bool[users, n].
        """
        slope, intercept = self.lines[name]
        return _means(probability(slope * values + intercept), allowed, relevant)

    def losses_of_share(self, allowed: NDArray[np.bool_], relevant: NDArray[np.bool_]) -> Float64:
        """Return the same for whoever knows the share alone; see ``losses``."""
        return _means(np.full(allowed.shape, self.share), allowed, relevant)


def _means(chance: Float64, allowed: NDArray[np.bool_], relevant: NDArray[np.bool_]) -> Float64:
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    losses = -np.where(relevant, np.log(chance), np.log1p(-chance)) * allowed
    counts = allowed.sum(axis=1)
    means: Float64 = np.divide(
        losses.sum(axis=1), counts, out=np.full(len(counts), np.nan), where=counts > 0
    )
    return means


def values_of(names: Sequence[str], fused: Sequence[Fusion], pools: Pools) -> dict[str, Float64]:
    """Return what each row orders a pool by, float64[users, n]: sources, then fusions.

    Args:
        names: of the sources, in the pools' order.
        fused: ways of fusing.
        pools: the candidates.
    """
    scores = {
        name: pools.scores[:, :, number].astype(np.float64) for number, name in enumerate(names)
    }
    return scores | {fusion.name: fusion.fused(pools) for fusion in fused}


def fit_chances(
    names: Sequence[str], fused: Sequence[Fusion], pools: Pools, relevant: ItemSets
) -> Chances | None:
    """Return the chances that scores stand for; None where all candidates are alike.

    Args:
        names: of the sources, in the pools' order.
        fused: ways of fusing.
        pools: of the validation users.
        relevant: their relevant items.
    """
    allowed = pools.there
    labels = relevant.holds(pools.items)[allowed].astype(np.float64)
    if not 0 < labels.sum() < labels.size:
        return None
    ones = np.ones(labels.size)
    lines = {
        name: fit_logistic(values[allowed], labels, ones)
        for name, values in values_of(names, fused, pools).items()
    }
    return Chances(lines, float(labels.mean()))


def loss_sentence(of_share: float) -> str:
    """Return what a reader should know of the log loss, with that of the share alone."""
    return (
        "log loss is of the candidates in the pool: a chance is the logistic function of a + b *"
        " score, fitted on the validation part; who knows the share of relevant ones alone has"
        f" {of_share:.4f}"
    )
