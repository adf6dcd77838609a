"""A new artifact is compared with the one that serves: better, worse, louder, or not at all."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog
from support.refreshes import CATALOGUE, ITEMS, SPEC, artifact, history, shop_log, spec_with

from bandits.errors import LackingItemsError, NothingToLearnError, SpecError
from bandits.log.positions import position_ms
from bandits.log.records import (
    ActivityRecord,
    ErasureRecord,
    LogEntry,
    MergeUsersRecord,
    TickRecord,
)
from policies.artifacts.fitted_with import FITTED_WITH
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.profiles.options import ProfileOptions
from policies.pseudonyms import pseudonym
from policies.spec import ArtifactSource, decode_spec
from policies.training.histories import histories_of
from simulator.refresh.contenders import CURRENT, TAUGHT_AGAIN
from simulator.refresh.course import FEWEST, PolicyState, RefreshOptions, refresh_sources
from simulator.refresh.rescoring import PastProfiles, Rescorer, under_pseudonyms
from simulator.refresh.rewarded import RewardedEvents, joined_decisions
from simulator.refresh.trainer import EVENTS_UNTIL
from simulator.refresh.training_data import before, joined_events

LOG = shop_log(4000)
CATALOGUE_NOW = Catalogue.of(CATALOGUE)
SNAPSHOT = LOG.fold().snapshot()


def _snapshot_before(time_ms: int):
    """The model that has learned from the decisions before a time, and no others."""
    log = FakeLog()
    log.blobs = LOG.blobs
    log.entries = [each for each in LOG.entries if each.time_ms < time_ms]
    log.append(TickRecord(), at=time_ms + 60_000)
    return log.fold().snapshot()


def _state(serving, log: FakeLog = LOG, **changes) -> PolicyState:
    state = PolicyState(
        spec=SPEC,
        salt=SALT,
        snapshot=SNAPSHOT,
        serving=serving,
        items=ItemTimeline(CATALOGUE_NOW),
        catalogue_of=lambda _: CATALOGUE_NOW,
        decisions=lambda: joined_decisions(
            log.entries, SPEC, lambda name: decode_spec(log.blobs[name])
        ),
        snapshot_before=_snapshot_before,
        data=history(),
    )
    return replace(state, **changes)


def _refreshed(state: PolicyState, made, **options):
    asked = []

    def train(request, events, items, *, progress):
        asked.append((request, events, items))
        return made

    return refresh_sources(state, RefreshOptions(**options), train=train), asked[0]


def _measures(refreshed, weights: str = CURRENT):
    return {each.what: each for each in refreshed.report.measures if each.weights == weights}


def test_an_artifact_that_knows_more_is_better_on_decisions_and_on_users(tmp_path):
    good, bad = artifact(tmp_path), artifact(tmp_path, knows=False)
    made, (request, events, _) = _refreshed(_state(bad), good)
    assert made.report.outcome == "measured"
    assert made.report.weights == CURRENT
    measures = _measures(made)
    assert len(measures) == 3
    for measure in measures.values():
        assert measure.low > 0, measure
        assert measure.fresh > measure.serving

    # Training saw nothing of what is compared, and says up to when it saw the log.
    assert 0 < request.events_until_ms == made.report.cut_ms
    assert events.time.max() < made.report.cut_ms
    assert made.report.log_events + len(history()) == made.report.events == len(events)
    assert measures["mean reward (DR)"].n == 400


def test_sources_are_fitted_with_what_those_that_serve_were_fitted_with(tmp_path):
    """Only what is trained is asked for; what a search once found is not lost."""
    good = artifact(tmp_path)
    name = next(iter(good.sources))
    told = f'{{"{name}": {{"neighbours": 7}}, "another": {{"x": 1}}}}'
    made, (request, *_) = _refreshed(_state(replace(good, created_with={FITTED_WITH: told})), good)
    assert request.changes == {name: {"neighbours": 7}}
    assert f"fitted with what serves was fitted with: {name}" in made.report.notes
    _, (usual, *_) = _refreshed(_state(good), good)
    assert usual.changes == {}


def test_an_artifact_that_is_worse_by_more_than_its_interval_is_refused(tmp_path):
    good, bad = artifact(tmp_path), artifact(tmp_path, knows=False)
    made, _ = _refreshed(_state(good), bad)
    assert made.report.outcome == "refused"
    assert "mean reward (DR) of 400 decisions" in made.report.why
    assert "NDCG@10" in made.report.why


def test_the_same_artifact_is_not_refused(tmp_path):
    good = artifact(tmp_path)
    made, _ = _refreshed(_state(good), good)
    assert made.report.outcome == "measured"
    assert not any(shift.moved for shift in made.report.shifts)
    for measure in _measures(made).values():
        assert measure.low <= 0.0 <= measure.high


def test_where_the_scale_of_scores_has_moved_the_weights_are_taught_again(tmp_path):
    """With the current weights a source that is an eighth as loud is hardly heard."""
    good, quiet = artifact(tmp_path), artifact(tmp_path, std=80.0)
    made, _ = _refreshed(_state(good), quiet)
    (shift,) = made.report.shifts
    assert shift.moved
    assert shift.ratio == pytest.approx(0.125, rel=1e-3)
    assert made.report.weights == TAUGHT_AGAIN
    assert made.model is not None
    assert made.model.learned == 3600
    assert made.model.spec().model_digest == SPEC.model_digest
    with_old, with_new = (_measures(made, w) for w in (CURRENT, TAUGHT_AGAIN))
    assert with_old["mean reward (DR)"].worse
    assert not with_new["mean reward (DR)"].worse
    assert made.report.outcome == "measured"

    # Partitions take no warm start: then it is measured, and refused, with the weights there are.
    kept, _ = _refreshed(_state(good), quiet, may_teach=False)
    assert (kept.model, kept.report.outcome) == (None, "refused")


def test_decisions_that_the_serving_artifact_has_seen_say_nothing_of_it(tmp_path):
    good, bad = artifact(tmp_path), artifact(tmp_path, knows=False)
    end_ms = position_ms(LOG.entries[-1].id)
    seen = replace(good, created_with={EVENTS_UNTIL: str(end_ms - 360_000)})
    part, _ = _refreshed(_state(seen), bad)
    assert _measures(part)["mean reward (DR)"].n < 400

    all_of_it = replace(good, created_with={EVENTS_UNTIL: str(end_ms)})
    made, (request, events, _) = _refreshed(_state(all_of_it), bad)
    assert made.report.measures == []
    assert "too few to compare" in made.report.notes[0]
    assert events.time.max() < request.events_until_ms <= end_ms

    few, _ = _refreshed(_state(good, shop_log(FEWEST)), bad)
    assert few.report.measures == []
    assert "too few to hold any back" in few.report.notes[0]


def test_without_an_artifact_that_serves_there_is_nothing_to_compare_with(tmp_path):
    made, _ = _refreshed(_state(None), artifact(tmp_path))
    assert made.report.serving is None
    assert all(each.serving is None and not each.worse for each in made.report.measures)
    assert made.report.outcome == "measured"


def test_what_cannot_be_trained_is_said(tmp_path):
    good = artifact(tmp_path)
    with pytest.raises(NothingToLearnError, match="no rewarded decision in this window"):
        _refreshed(_state(good, FakeLog(SPEC), data=None), good)
    with pytest.raises(NothingToLearnError, match="names a user"):
        _refreshed(_state(good, shop_log(20, named=False), data=None), good)
    with pytest.raises(SpecError, match="nothing to refresh"):
        _refreshed(_state(good, spec=spec_with(sources=[])), good)
    with pytest.raises(SpecError, match="serves item_knn"):
        _refreshed(_state(good), good, sources=["popular"])


def test_items_that_the_catalogue_lacks_are_counted_and_too_many_refused(tmp_path):
    good = artifact(tmp_path)
    few = ItemTimeline(Catalogue.of(CATALOGUE[:-2]))
    made, (_, _, items) = _refreshed(_state(good, items=few), good)
    assert made.report.lacking == 2
    assert len(items) == len(ITEMS)
    assert f"2 of {len(ITEMS)} items" in made.report.notes[0]

    most = ItemTimeline(Catalogue.of(CATALOGUE[:2]))
    with pytest.raises(LackingItemsError, match="98 of 100 items"):
        _refreshed(_state(good, items=most), good)
    allowed, _ = _refreshed(_state(good, items=most), good, most_lacking=0.99)
    assert allowed.report.lacking == 98


def test_a_past_profile_is_the_history_of_the_events_before(tmp_path):
    """As training makes it of those alone; a user of whom nothing is known has none."""
    events = under_pseudonyms(history(), SALT)
    found = RewardedEvents(1)
    for joined in _state(None).decisions():
        found.add(joined)
    both = joined_events([events, found.coded()])
    pasts, cut_ms = PastProfiles(both), 1_500_000
    histories = histories_of(before(both, cut_ms))
    rescorer = Rescorer(artifact(tmp_path), SPEC, pasts)
    for row, user in enumerate(histories.users):
        indices, weights = histories.row(row)
        profile = rescorer.profile(user, cut_ms)
        assert [ITEMS[place] for place in profile.indices] == [histories.items[i] for i in indices]
        assert np.array_equal(profile.weights, weights)
    assert rescorer.profile("nobody", cut_ms).indices.size == 0
    assert rescorer.profile(None, cut_ms).indices.size == 0


def test_another_source_keeps_the_scores_of_the_log(tmp_path):
    spec = spec_with(sources=[ArtifactSource("item_knn")])
    record = _with_remote(LOG.entries[1].record)
    rescorer = Rescorer(artifact(tmp_path), spec, PastProfiles(under_pseudonyms(history(), SALT)))
    scores = rescorer.scores(record, 10_000)
    assert set(scores) == {"item_knn", "remote"}
    assert scores["remote"].tolist() == list(range(8))
    assert np.ptp(scores["item_knn"]) > 0


def _with_remote(record):
    remote = np.arange(8, dtype="<f4").tobytes()
    return msgspec.structs.replace(record, scores={**record.scores, "remote": remote})


def test_what_users_did_outside_of_decisions_is_trained_on_beside_the_rest(tmp_path):
    made = artifact(tmp_path)
    spec = msgspec.structs.replace(SPEC, profile=ProfileOptions())
    user, item = history().user_ids[0], history().item_ids[0]
    keyed = pseudonym(SALT, user)
    did = [
        LogEntry("1-0", ActivityRecord("random", item, "purchase")),
        LogEntry("2-0", ActivityRecord("erased", item, "view")),
        LogEntry("3-0", ErasureRecord("erased", "job")),
        LogEntry("4-0", ActivityRecord("visitor", item, "view")),
        LogEntry("5-0", MergeUsersRecord("visitor", "random")),
    ]
    state = _state(made, spec=spec, activity=lambda: did, persons=lambda _: {user: "random"})
    _, (_, events, _) = _refreshed(state, made)

    # The data set's user and the log's are one person.
    assert {"erased", "visitor", keyed}.isdisjoint(events.user_ids)
    own = events.user == events.user_ids.index("random")
    types = [events.types[kind] for kind in events.type[own].tolist()]
    assert {"purchase", "view"} <= set(types)

    # Without profiles nobody asks.
    state = _state(made, activity=lambda: did)
    _, (_, before, _) = _refreshed(state, made)
    assert "random" not in before.user_ids
    assert own.sum() == 2 + (before.user == before.user_ids.index(keyed)).sum()
