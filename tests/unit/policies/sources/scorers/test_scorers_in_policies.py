"""A scorer of an artifact in a policy: in a blend, in a mixture, and for actions of the request."""

import asyncio

import numpy as np
import pytest
from support.fakes import fresh_ranker
from support.small_scorer import CATALOGUE, ITEMS, small_scorer_artifact

from bandits.errors import InvalidFieldError
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from policies.sources import load_sources
from policies.spec import spec_of

KINDS = ("fm", "deepfm")


def ranker_of(**fields):
    artifact = small_scorer_artifact(*KINDS)
    spec = spec_of(
        {
            "name": "home",
            "artifact": "a",
            "sources": [{"kind": "artifact", "name": name} for name in artifact.sources],
            **fields,
        }
    )
    sources = load_sources(artifact, spec.sources)
    return fresh_ranker(spec, sources.values(), Catalogue.of(CATALOGUE))


def rank(ranker, **request):
    return asyncio.run(ranker.rank(RankRequest(event_id="e", **request)))


def test_a_blend_sees_its_score_of_what_others_propose():
    """By the context and by the history; the record holds it, so no model derives it again."""
    ranker = ranker_of(use=["scores"])
    by_context = rank(ranker, context={"likes": "red"})
    assert set(by_context.action_ids) == set(ITEMS)
    scores = by_context.source_scores()
    assert set(scores) == {"popular", *KINDS}
    assert all(np.isfinite(scores[kind]).all() for kind in KINDS)

    for request in ({}, {"context": {"likes": "green"}}, {"history": ["c"]}):
        other = rank(ranker, **request)
        assert other.scores["fm"] != by_context.scores["fm"]
        assert other.scores["deepfm"] != by_context.scores["deepfm"]

    _, actions = featurise_record(ranker.spec, ranker.offering.catalogue, by_context)
    assert np.array_equal(actions.scores["fm"], scores["fm"])


def test_the_order_of_a_history_matters():
    """Its newest item is a field of its own."""
    ranker = ranker_of()
    forth, back = (
        rank(ranker, history=history, actions=[ActionRequest("b")])
        for history in (["a", "c"], ["c", "a"])
    )
    assert forth.scores["fm"] != back.scores["fm"]


def test_actions_of_the_request_are_scored_by_their_own_features():
    ranker = ranker_of()
    actions = [
        ActionRequest("a"),
        ActionRequest("a copy", features={"colour": "red"}),
        ActionRequest("never seen"),
    ]
    scores = rank(ranker, actions=actions).source_scores()
    assert set(scores) == set(KINDS)
    assert all(np.isfinite(column).all() for column in scores.values())
    assert len({*scores["fm"].tolist()}) == 3

    scored = [ActionRequest("a", scores={"fm": 1.0})]
    with pytest.raises(InvalidFieldError, match="scores actions itself") as caught:
        rank(ranker, actions=scored)
    assert caught.value.target == "actions.scores.fm"


def test_in_a_mixture_a_scorer_is_one_of_the_actions():
    """It is credited where it stands behind the item; the marginal adds up to 1."""
    ranker = ranker_of(kind="mixture", floor=0.1)
    record = rank(ranker, context={"likes": "red"})
    assert record.credit is not None
    assert set(record.credit.sources) == {"popular", *KINDS}
    assert np.frombuffer(record.pmf).sum() == pytest.approx(1.0, abs=1e-12)


def test_scores_are_the_same_in_another_process_that_was_asked_otherwise():
    """Nothing of a request stays behind."""
    fresh, used = ranker_of(), ranker_of()
    for history in (["a"], ["b", "c"], []):
        rank(used, history=history, context={"likes": "green"})
    wanted, found = (rank(each, context={"likes": "red"}, history=["b"]) for each in (fresh, used))
    assert found.scores == wanted.scores
