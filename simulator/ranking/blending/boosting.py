"""Boosting by stacking: regression trees on what the sources say of each candidate."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from bandits.types import Float64
from simulator.ranking.fusion import Pools, inputs_of
from simulator.ranking.metrics.lists import ItemSets

TREES: Final = 100
LEAVES: Final = 15
RATE: Final = 0.05
FEWEST: Final = 40
"""Rows in a leaf."""


def can_boost() -> bool:
    """Return whether scikit-learn is installed, which fits the trees."""
    return find_spec("sklearn") is not None


@dataclass(frozen=True, slots=True, eq=False)
class Boosted:
    """Trees, each fitted to what those before it missed; see ``fit_boosted``."""

    trees: Any

    def __call__(self, pools: Pools) -> Float64:
        """Return the logit of each candidate, float64[users, n]."""
        rows = inputs_of(pools)
        found = np.zeros(rows.shape[:2])
        with _one_thread():
            found[pools.there] = self.trees.decision_function(rows[pools.there])
        return found


def fit_boosted(pools: Pools, relevant: ItemSets) -> Boosted | None:
    """Fit whether a candidate turns out to be relevant, by gradient boosting (Friedman 2001).

    The stacking of Wolpert (1992) with trees in the place of a linear model: they see that a
    source is to be believed where another agrees.

    Args:
        pools: of the validation users.
        relevant: their relevant items.

    Returns:
        None where all candidates are relevant, or none is: there is nothing to learn.
    """
    from sklearn.ensemble import (  # noqa: PLC0415 - an extra of its own
        HistGradientBoostingClassifier,
    )

    allowed = pools.there
    target = relevant.holds(pools.items)[allowed]
    if target.all() or not target.any():
        return None
    trees = HistGradientBoostingClassifier(
        learning_rate=RATE,
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=FEWEST,
        early_stopping=False,
        random_state=0,
    )
    with _one_thread():
        return Boosted(trees.fit(inputs_of(pools)[allowed], target))


def _one_thread() -> Any:
    """Limit libraries to one thread: sums have one order, and no thread waits for another."""
    from threadpoolctl import (  # type: ignore[import-untyped] # noqa: PLC0415 - of scikit-learn
        threadpool_limits,
    )

    return threadpool_limits(1)
