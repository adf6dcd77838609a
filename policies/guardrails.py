"""What holds whatever the model says: the holdout, and the fixed policies it is served by."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_HOLDOUT, uniform
from bandits.exploration import greedy
from bandits.types import ActionSet, Context, Float32, Pmf
from policies.spec import UNIFORM, Holdout


def in_holdout(holdout: Holdout | None, *, salt: bytes, name: str, unit: str) -> bool:
    """Whether ``unit`` (the value of the holdout's field) is held out.

    The same answer for ever, under one salt.
    """
    return holdout is not None and uniform(salt, name, unit, 0, PURPOSE_HOLDOUT) < holdout.fraction


@dataclass(frozen=True, slots=True, eq=False)
class FixedPolicy:
    """``uniform``, or a source's best action (ties share.

    Uniform where the source proposes nothing).
    """

    kind: str

    def serves(self, scores: Mapping[str, Float32], slots: int) -> bool:
        """Whether it fills every slot itself, by ``scores`` of a source each, float32[K].

        Else some are uniform.
        """
        return self.kind == UNIFORM or (
            self.kind in scores and int(np.count_nonzero(~np.isnan(scores[self.kind]))) >= slots
        )

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:  # noqa: ARG002
        """float64[K]."""
        count = len(actions)
        scores = actions.scores.get(self.kind) if self.kind != UNIFORM else None
        if scores is None or np.isnan(scores).all():
            return np.full(count, 1.0 / count)
        return greedy(np.where(np.isnan(scores), -np.inf, scores).astype(np.float64))
