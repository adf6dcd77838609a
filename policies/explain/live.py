"""Why a decision is as it is, for whoever has just been answered."""

from collections.abc import Callable

from banditloop_client.explain_schemas import Explanation
from bandits.log.records import DecisionRecord
from bandits.values import FeatureMap
from policies.decisions.decider import Serving
from policies.explain.explained import FEW_OTHERS, Explainer
from policies.ranker import Ranker

OPENED = 2
"""Models that stay open; each snapshot that is explained by is opened once."""
ELSEWHERE = (
    "this decision was made with an earlier model or earlier items, which are served no more"
)
Explains = Callable[[DecisionRecord], Explanation]


class LiveExplainer:
    """Explains the decisions of a ranker, while the model that made them is at hand."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker, self._spec_digest = ranker, ranker.spec.digest
        self._opened: dict[str, Explainer] = {}

    def begin(self, others: int = FEW_OTHERS) -> Explains:
        """Return what explains a decision that is made from now on.

        Meanwhile the model or the items may become others, once each.

        Args:
            others: how many actions it explains beside those that were chosen.
        """
        serving, catalogue = self._ranker.serving, self._ranker.offering.catalogue

        def explain(record: DecisionRecord) -> Explanation:
            models = {each.snapshot_id: each for each in (serving, self._ranker.serving) if each}
            items = {each.digest: each for each in (catalogue, self._ranker.offering.catalogue)}
            made_by, made_from = models.get(record.snapshot_id), items.get(record.catalogue)
            if made_by is None or made_from is None or record.spec != self._spec_digest:
                spec = self._ranker.spec
                kinds = spec.learner.kind, str(spec.exploration.__struct_config__.tag)
                return Explanation(*kinds, spec.floor, [], ELSEWHERE)
            return self._of(made_by).explain(made_from, record, self._features_of, others)

        return explain

    def _of(self, serving: Serving) -> Explainer:
        found = self._opened.get(serving.snapshot_id)
        if found is None:
            found = Explainer(self._ranker.spec, serving.snapshot)
            while len(self._opened) >= OPENED:
                del self._opened[next(iter(self._opened))]
            self._opened[serving.snapshot_id] = found
        return found

    def _features_of(self, item_id: str) -> FeatureMap | None:
        item = self._ranker.offering.item(item_id)
        return None if item is None else item.features
