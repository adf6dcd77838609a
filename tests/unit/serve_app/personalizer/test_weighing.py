"""How much features weigh: from what explanations say that they add."""

import itertools

import pytest

from banditloop_client.explain_schemas import ExplainedAction, ExplainedTerm, Explanation
from serve_app.personalizer.evaluations.weighing import importances_of, thinned, weights_of
from serve_app.store.evaluations.kept import FeatureWeight


def explained(*terms: tuple[list[str], float]) -> Explanation:
    parts = [ExplainedTerm(features, 1.0, adds, adds) for features, adds in terms]
    return Explanation(
        "vw", "epsilon_greedy", 0.0, [ExplainedAction("a", 1.0, 0, 0.0, 0.0, None, parts)]
    )


def test_a_product_is_shared_signs_do_not_count_and_the_largest_is_1():
    found = weights_of(
        [
            explained((["features.topic=sport"], 1.0), (["item.a"], -0.5), ([], 9.0)),
            explained((["features.topic=news", "context.user.age"], -2.0)),
        ]
    )
    assert found == [
        FeatureWeight("j", "topic", 1.0),
        FeatureWeight("user", "age", 0.5),
        FeatureWeight("i", "id", 0.25),
    ]
    bare = weights_of([explained((["context.hour", "features.taste.of.0", "scores.als"], 3.0))])
    assert [(each.namespace, each.name) for each in bare] == [
        *(("FromUrl", "hour"), ("scores", "als"), ("taste.of", "0")),
    ]
    assert weights_of([]) == weights_of([explained()]) == []


def test_where_nothing_weighs_it_is_said_why():
    """It is no failure that the model has learned nothing yet."""
    assert importances_of([explained((["item.a"], 0.5))]).scores
    untaught = importances_of([explained((["item.a"], 0.0), ([], 0.0)), explained()])
    assert (untaught.scores, untaught.is_done) == ([], True)
    assert "learned nothing" in untaught.said

    action = ExplainedAction("a", 1.0)
    without = Explanation("rl", "vw", 0.0, [action], "a network scored each action")
    for found, said in (([], "no decision"), ([without], "is a sum: a network scored")):
        nothing = importances_of(found)
        assert (nothing.scores, nothing.is_done) == ([], False)
        assert said in nothing.said


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (10, 10), (11, 6), (21, 6), (1000, 8)])
def test_many_decisions_are_thinned_evenly(count, kept):
    found = thinned(range(count), 10)
    assert len(found) == kept
    steps = {later - each for each, later in itertools.pairwise(found)}
    assert len(steps) <= 1
    assert steps <= {2**power for power in range(10)}
