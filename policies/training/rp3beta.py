"""Random walks of three steps from a user, with popular items held back.

Paudel, Christoffel, Newell & Bernstein 2016, "Updatable, Accurate, Diverse, and Scalable
Recommendations for Interactive Applications", https://doi.org/10.1145/2955101 (RP³β).
"""

from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
import numpy as np

from policies.artifacts.fitted_with import Count
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import Step, user_items
from policies.training.neighbours import most_similar

Exponent = Annotated[float, msgspec.Meta(ge=-10, le=10)]


@dataclass(frozen=True, slots=True)
class Rp3betaConfig:
    """``alpha`` is the exponent of a step's probability, ``beta`` that of an item's popularity.

    ``neighbours`` are kept per item. The defaults were chosen on a validation part of MovieLens
    100K (docs/benchmarks/sources.md).
    """

    alpha: Exponent = 0.4
    beta: Exponent = 0.6
    neighbours: Count = 100


def fit_rp3beta(histories: Histories, config: Rp3betaConfig, *, step: Step) -> TrainedSource:
    """Find the items that walks from each item reach most often.

    The walk goes from item i to one of its users u, and from u to an item j; a step's probability
    is the interaction's share of the weights. W[i, j] = Σ_u p(u | i)^alpha p(j | u)^alpha /
    d_j^beta, with d_j the summed weights of item j. A user's first step, to an item of the history,
    is the product with its weights at serving time.

    Args:
        histories: who interacted with what.
        config: see Rp3betaConfig.
        step: told when it is done.
    """
    walks = user_items(histories).astype(np.float64)
    of_user, of_item = (np.asarray(walks.sum(axis)).ravel() for axis in (1, 0))
    of_user[of_user == 0] = of_item[of_item == 0] = 1

    # W[i, j] is, but for a factor of row i, a product of two columns of one matrix.
    rows = np.repeat(np.arange(len(histories.users)), np.diff(walks.indptr))
    walks.data **= config.alpha
    walks.data *= of_user[rows] ** (-config.alpha / 2)
    walks.data *= of_item[walks.indices] ** -config.beta
    arrays = most_similar(walks, config.neighbours)
    arrays["similarities"] *= (of_item ** (config.beta - config.alpha))[:, None]
    step(1, 1)
    return TrainedSource("rp3beta", arrays, asdict(config))
