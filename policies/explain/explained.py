"""Why a decision is as it is, from its record and the model that made it."""

from operator import itemgetter

import numpy as np

from banditloop_client.explain_schemas import (
    ExplainedAction,
    ExplainedTerm,
    Explanation,
)
from bandits.exploration import LinTs
from bandits.log.records import DecisionRecord
from bandits.terms import TermsOf
from bandits.types import Snapshot
from policies.explain.looked_at import said_of
from policies.explain.named import FeaturesOf, NamedDecision
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

MOST_OTHERS = 10
"""Actions that are explained beside those that were chosen."""
FEW_OTHERS = 3
"""The same where somebody waits for a decision: it is to take no longer than a second one."""
NO_TERMS = {
    "mixture": "the actions of a mixture are its sources: an item's probability is that of its"
    " sources, and what each of them would choose",
    "rl": "a network scored each action, with all others in view: its score is no sum of terms",
    "vw": "Vowpal Wabbit explores by itself with these arguments: it gives probabilities, and no"
    " scores that are sums of terms",
}
ALL_PLACED = "every slot of the page holds an item that was placed there: nothing was drawn"
BESIDE = {
    "first": "the policy is an apprentice, and the first of the actions",
    "request": "the policy is an apprentice, and what the request named",
    "drawn": "the policy is an apprentice, and a draw from the caller's probabilities",
    "source": "the policy is an apprentice, and the best of its baseline",
    "holdout": "the policy is an apprentice, and the holdout's choice",
}
"""By whose choice an apprentice's decision serves, how its explanation begins."""
HELD_OUT = "this decision was held out: {} chose, and neither the model nor boosts were asked"


class Explainer:
    """Explains the decisions of one spec and snapshot."""

    def __init__(self, spec: PolicySpec, snapshot: Snapshot) -> None:
        """Open the model.

        Args:
            spec: the one that the decisions name.
            snapshot: the one that they name.

        Raises:
            SnapshotError: it is corrupt.
        """
        self._spec = spec
        self._terms: TermsOf | None = None
        if spec.kind != "mixture":
            self._terms = spec.learner.terms(snapshot)

    def explain(
        self,
        catalogue: Catalogue,
        record: DecisionRecord,
        features_of: FeaturesOf,
        others: int = MOST_OTHERS,
    ) -> Explanation:
        """Return why a decision is as it is.

        Args:
            catalogue: the one that the record names.
            record: the decision.
            features_of: the items' features by name.
            others: how many actions to explain beside those that were chosen.
        """
        spec, note = self._spec, beside_note(record)
        record = record.own()
        terms = self._terms
        if record.holdout and spec.holdout is not None:
            note, terms = HELD_OUT.format(spec.holdout.policy), None
        elif terms is None:
            note = f"{note}; " if note else ""
            note += NO_TERMS["mixture" if spec.kind == "mixture" else spec.learner.kind]

        kinds = spec.learner.kind, str(spec.exploration.__struct_config__.tag), spec.floor
        if not record.chosen:
            return Explanation(*kinds, [], ALL_PLACED)

        pmf = record.pmfs()[0]
        named = NamedDecision(spec, catalogue, record, features_of)
        likeliest = [
            at for at in np.argsort(-pmf, kind="stable").tolist() if at not in record.chosen
        ]
        shown = [*record.chosen, *likeliest[:others]]
        return Explanation(*kinds, [self._action(record, at, named, terms) for at in shown], note)

    def _action(
        self, record: DecisionRecord, at: int, named: NamedDecision, terms: TermsOf | None
    ) -> ExplainedAction:
        action_id, probability = record.action_ids[at], float(record.pmfs()[0, at])
        found: list[ExplainedTerm] = []
        score = None
        if terms is not None:
            # The largest first. A term is made once it has its place.
            parts = [
                (abs(adds := value * weight), features, value, weight, adds)
                for features, value, weight in terms(action_id, named.of(at))
            ]
            parts.sort(key=itemgetter(0), reverse=True)
            found = [ExplainedTerm(list(part[1]), *part[2:]) for part in parts]
            score = float(sum([part[4] for part in parts]))

        # The floor is shared by the actions that may stand in the first slot.
        boosts, page = record.boosts, record.page
        first = None if page is None else page.after(())
        barred = np.zeros(len(record.action_ids), np.bool_) if first is None else np.isnan(first)
        draws = None
        sampled = isinstance(self._spec.exploration, LinTs) and not barred[at]
        if terms is not None and sampled and self._spec.floor < 1:
            uniform = self._spec.floor / np.count_nonzero(~barred)
            draws = float((probability - uniform) / (1.0 - self._spec.floor))
        drawn = record.chosen.index(at) if at in record.chosen else None
        said = None if page is None or drawn is None else page.after(record.chosen[:drawn])
        return ExplainedAction(
            action_id,
            probability,
            None if drawn is None else record.page_slots()[drawn],
            score,
            0.0 if boosts is None else float(boosts[at]),
            draws,
            found,
            said_of(record, at),
            0.0 if said is None else float(said[at]),
        )


def beside_note(record: DecisionRecord) -> str | None:
    """Return what was served in place of an apprentice's choice; None: it is none's."""
    if record.apprentice is None:
        return None
    served = ", ".join(record.action_ids[index] for index in record.chosen)
    whose = BESIDE[record.apprentice.served]
    return f"{whose} was served: {served}; this is what the policy would have chosen"
