"""Inference explanations as Personalizer has them: how much a feature adds to an action's score."""

from collections import defaultdict

from banditloop_client.explain_schemas import ExplainedAction, Explanation
from serve_app.personalizer.bodies import FeatureScore, InferenceExplanation

OF_ITEM = "item"
ID = "id"


def inference_explanation(explanation: Explanation) -> list[InferenceExplanation]:
    """Return why a decision is as it is, feature by feature, the largest first.

    What a product of two features adds is halved between them, so that an action's features sum to
    its score, but for the constant.
    """
    return [
        InferenceExplanation(action.id, _scores(action))
        for action in explanation.actions
        if action.terms
    ]


def _scores(action: ExplainedAction) -> list[FeatureScore]:
    scores: defaultdict[str, float] = defaultdict(float)
    for term in action.terms:
        for feature in term.features:
            scores[_name_of(feature)] += term.adds / len(term.features)
    by_size = sorted(scores.items(), key=lambda each: -abs(each[1]))
    return [FeatureScore(name, score) for name, score in by_size]


def _name_of(feature: str) -> str:
    """Return the name that a caller has for a feature; that of a text is without the text."""
    namespace, _, name = feature.partition(".")
    return ID if namespace == OF_ITEM else name.partition("=")[0]
