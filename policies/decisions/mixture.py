"""Sources as actions: a policy over sources, each of which chooses among its own candidates.

The item is drawn from the marginal P(i) = sum_s P(s) P(i | s), whose value is the logged
propensity. Then the source to credit is drawn from P(s | i) and the source learner trains with
P(s). Because the pair (s, i) so drawn has exactly the joint distribution P(s) P(i | s), the
credited source is distributed as P(s).
"""

from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_SOURCE, Decision, left_after, uniform
from bandits.exploration import EpsilonGreedy, Greedy, Softmax, normalised, with_floor
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import ITEM, SCORES
from bandits.kernels.actions import draw
from bandits.log.records import Credit
from bandits.page import PageRule
from bandits.types import ActionSet, Context, Float64, Namespace, Pmf, Policy


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A policy over sources: ``over`` chooses the source, ``within`` how a source chooses an item.

    ``floor``: as everywhere, over the items.
    """

    over: Policy
    within: Softmax | EpsilonGreedy | Greedy
    floor: float

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """Return the marginal over items, float64[K].

        Args:
            context: what the items share; ``over`` chooses a source by it.
            actions: the K items, with the scores of the sources that propose them.
        """
        _, source_pmf, item_pmfs = self._joint(context, actions)
        return normalised(source_pmf @ item_pmfs)

    def credit(
        self,
        context: Context,
        actions: ActionSet,
        decision: Decision,
        *,
        salt: bytes,
        name: str,
        page: PageRule | None = None,
    ) -> Credit | None:
        """Return the source each slot's item is credited to; None if a slot had no source's score.

        Args:
            context: what the actions share.
            actions: those of the decision.
            decision: what was chosen of them.
            salt: the secret that the draw is hashed with.
            name: the policy's name.
            page: what may stand beside what.
        """
        sources = sorted(actions.scores)
        pmfs = np.zeros((len(decision.chosen), len(sources)))
        credited = []

        for slot, index in enumerate(decision.chosen):
            remaining, left = left_after(actions, decision.chosen[:slot], page)
            names, source_pmf, item_pmfs = self._joint(context, left)
            if not names:
                return None

            # P(source | item) is proportional to P(source) P(item | source).
            columns = [sources.index(source) for source in names]
            pmfs[slot, columns] = source_pmf
            posterior = np.zeros(len(sources))
            posterior[columns] = source_pmf * item_pmfs[:, int(np.searchsorted(remaining, index))]
            u = uniform(salt, name, decision.event_id, slot, PURPOSE_SOURCE)
            credited.append(draw(normalised(posterior), u))

        return Credit(sources, pmfs.tobytes(), credited)

    def _joint(self, context: Context, actions: ActionSet) -> tuple[tuple[str, ...], Pmf, Float64]:
        """Return the sources that have a candidate left, P(s) [S] and P(i | s) [S, K]."""
        sources = source_actions(actions)
        # Explicit actions without scores: there is nothing to choose a source by.
        if not sources.ids:
            return (), np.ones(1), np.full((1, len(actions)), 1.0 / len(actions))

        item_pmfs = np.zeros((len(sources), len(actions)))
        for row, source in enumerate(sources.ids):
            scores = actions.scores[source]
            present = np.flatnonzero(~np.isnan(scores))
            item_pmfs[row, present] = self.within.pmf(scores[present].astype(np.float64), 0)
            item_pmfs[row] = with_floor(item_pmfs[row], self.floor)
        return sources.ids, self.over.pmf(context, sources), item_pmfs


def source_actions(actions: ActionSet) -> ActionSet:
    """Return the sources that propose at least one of ``actions``, as actions themselves."""
    names = tuple(
        source for source in sorted(actions.scores) if not np.isnan(actions.scores[source]).all()
    )

    # A source is its own item; its scores say how good its best is, and how much it proposes.
    hashes = np.array([[hash_feature(ITEM, name)] for name in names], np.uint32).reshape(
        len(names), 1
    )
    best = [float(np.nanmax(actions.scores[name])) for name in names]
    share = [float(np.mean(~np.isnan(actions.scores[name]))) for name in names]
    columns = np.array([hash_feature(SCORES, "best"), hash_feature(SCORES, "share")], np.uint32)
    values = np.array([best, share], np.float32).T.reshape(len(names), 2)

    return ActionSet(
        names,
        (
            Namespace(ITEM, hashes, np.ones((len(names), 1), np.float32)),
            Namespace(SCORES, columns, values),
        ),
    )
