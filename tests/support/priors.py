"""Rows of a prior for tests: three actions of which the later earn more, and no source's scores."""

import numpy as np

from policies.artifacts.prior import PriorDecision, PriorRows


def prior_rows(seed: int = 1, *, decisions: int, chances: tuple[float, float, float]) -> PriorRows:
    """Return three rows a decision; each action earns 1 with its chance, else 0."""
    rng = np.random.default_rng(seed)
    return PriorRows.of(
        PriorDecision.of(
            {"hour": float(rng.integers(24))},
            ["a", "b", "c"],
            {},
            (rng.random(3) < chances).astype(np.float32),
        )
        for _ in range(decisions)
    )
