"""From a source's score to a rating, where there are ratings."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandits.types import Float64


@dataclass(frozen=True, slots=True)
class RatingFit:
    """A rating is ``constant + slope * score``, or ``mean`` where a source has no score."""

    constant: float
    slope: float
    mean: float

    def predict(self, scores: Float64) -> Float64:
        """Return predicted ratings, float64[n], for scores of which some are NaN."""
        return np.where(
            np.isfinite(scores), self.constant + self.slope * np.nan_to_num(scores), self.mean
        )


def fit_ratings(scores: Mapping[str, Float64], ratings: Float64) -> dict[str, RatingFit]:
    """Fit each source's scores to ratings by least squares; none where there are no ratings.

    Args:
        scores: by source, NaN where it has none.
        ratings: float64[n].
    """
    if ratings.size == 0:
        return {}

    fits, mean = {}, float(ratings.mean())
    for name, values in scores.items():
        there = np.isfinite(values)
        x, y = values[there], ratings[there]
        spread = float(x.var()) if x.size else 0.0
        slope = float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else 0.0
        constant = float(y.mean() - slope * x.mean()) if x.size else mean
        fits[name] = RatingFit(constant, slope, mean)
    return fits
