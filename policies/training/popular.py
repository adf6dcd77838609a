"""Popularity: the one source that is fitted without torch and implicit."""

import numpy as np

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource


def fit_popular(histories: Histories) -> TrainedSource:
    """Sum the interaction weights of each item."""
    counts = np.bincount(histories.indices, histories.weights, minlength=len(histories.items))
    return TrainedSource("popular", {"counts": counts.astype(np.float32)})
