"""What a decision would have been scored with another artifact: also by what sees its context."""

import asyncio

import numpy as np
from support.fakes import fresh_ranker
from support.small_ranking import events_of
from support.small_scorer import CATALOGUE, small_scorer_artifact

from policies.items.catalogue import Catalogue
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import spec_of
from simulator.refresh.rescoring import PastProfiles, Rescorer


def test_a_scorer_of_the_other_artifact_sees_what_the_decision_saw():
    artifact = small_scorer_artifact("fm", "deepfm")
    named = [{"kind": "artifact", "name": name} for name in artifact.sources]
    spec = spec_of({"name": "home", "artifact": "a", "sources": named})
    sources = load_sources(artifact, spec.sources)
    ranker = fresh_ranker(spec, sources.values(), Catalogue.of(CATALOGUE))
    record = asyncio.run(ranker.rank(RankRequest(event_id="e", context={"likes": "red"})))

    rescorer = Rescorer(artifact, spec, PastProfiles(events_of([0], [0], [0])))
    assert set(rescorer.names) == {"popular", "fm", "deepfm"}
    found = rescorer.scores(record, 1)
    for name, column in record.source_scores().items():
        assert np.allclose(found[name], column, atol=1e-6), name
