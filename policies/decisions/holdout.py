"""The holdout, whatever the model says, and the fixed policies it is served by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_HOLDOUT, uniform
from bandits.exploration import greedy
from bandits.types import ActionSet, Context, Float32, Pmf
from policies.spec import UNIFORM, Holdout


def in_holdout(holdout: Holdout | None, *, salt: bytes, name: str, unit: str) -> bool:
    """Return whether a unit is held out: the same answer for ever, under one salt.

    Args:
        holdout: the spec's, if it has one.
        salt: the secret.
        name: the policy's name.
        unit: the value of the holdout's field.
    """
    return holdout is not None and uniform(salt, name, unit, 0, PURPOSE_HOLDOUT) < holdout.fraction


@dataclass(frozen=True, slots=True, eq=False)
class FixedPolicy:
    """The policy of a holdout: uniform, or a source's best action.

    ``kind``: ``uniform`` or the source's name. Ties share; where the source proposes nothing it is
    uniform.
    """

    kind: str

    def served(self, scores: Mapping[str, Float32], chosen: Sequence[int]) -> bool:
        """Return whether it filled every slot itself; else some were uniform.

        Args:
            scores: by source, float32[K].
            chosen: by slot, the place of the action.
        """
        return self.kind == UNIFORM or (
            self.kind in scores and not np.isnan(scores[self.kind][list(chosen)]).any()
        )

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:  # noqa: ARG002
        """Return float64[K]: all mass on the source's best, shared by ties.

        Args:
            context: what the actions share; it changes nothing.
            actions: K of them; only the scores that the source gave them count.
        """
        count = len(actions)
        scores = actions.scores.get(self.kind) if self.kind != UNIFORM else None
        if scores is None or np.isnan(scores).all():
            return np.full(count, 1.0 / count)
        return greedy(np.where(np.isnan(scores), -np.inf, scores).astype(np.float64))
