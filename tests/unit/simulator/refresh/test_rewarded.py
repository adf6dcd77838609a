"""A log's rewarded decisions become events, whoever reads it and however it is cut."""

from functools import partial

import msgspec
import numpy as np
from support.fakes import SALT, FakeLog, FakePast
from support.logs import decision
from support.refreshes import SPEC, shop_log

from bandits.errors import MissingBlobError
from bandits.log.records import RewardRecord, TickRecord
from policies.pseudonyms import pseudonym
from policies.spec import decode_spec
from simulator.refresh import rewarded
from simulator.refresh.rewarded import (
    RewardedEvents,
    coded_events,
    joined_decisions,
    merged_by_time,
)
from simulator.refresh.training_data import (
    before,
    catalogue_for,
    joined_events,
    read_training_data,
    write_training_data,
)


def _spec(log: FakeLog, name: str):
    if name not in log.blobs:
        raise MissingBlobError("there is no such blob", "digest")
    return decode_spec(log.blobs[name])


def _joined(log: FakeLog, past=None):
    return joined_decisions(log.entries, SPEC, partial(_spec, log), past)


def _events(log: FakeLog, kept: int = 10) -> RewardedEvents:
    found = RewardedEvents(kept)
    for joined in _joined(log):
        found.add(joined)
    return found


def _small(*rewards: RewardRecord, **changes) -> FakeLog:
    log = FakeLog(SPEC)
    log.append(decision(spec=SPEC.digest, user="ab" * 16, chosen=(1, 0), **changes), at=1000)
    for reward in rewards:
        log.append(reward, at=2000)
    log.append(TickRecord(), at=60_000)
    return log


def test_each_rewarded_slot_is_an_event_at_the_time_of_its_decision():
    events = _events(_small(RewardRecord("e", 1.0, slot=0), RewardRecord("e", 3.0, slot=1))).coded()
    assert events.user_ids == ("ab" * 16,)
    assert [events.item_ids[code] for code in events.item.tolist()] == ["b", "a"]
    assert events.time.tolist() == [1000, 1000]
    assert events.value.tolist() == [1.0, 3.0]
    # The mean reward weighs 1.
    assert events.weight.tolist() == [0.5, 1.5]


def test_what_was_not_rewarded_came_late_or_names_nobody_is_no_event():
    assert len(_events(_small())) == 0
    assert len(_events(_small(RewardRecord("e", 0.0), RewardRecord("e", -1.0, slot=1)))) == 0
    late = _small()
    late.append(RewardRecord("e", 1.0), at=70_000)
    assert len(_events(late)) == 0

    nobody = _events(shop_log(50, named=False))
    assert (len(nobody), nobody.anonymous > 0, nobody.decisions) == (0, True, 50)


def test_a_decision_whose_spec_cannot_be_had_is_passed_over():
    log = shop_log(20)
    stray = msgspec.structs.replace(log.entries[1].record, spec="no such spec", event_id="stray")
    log.append(stray, at=500_000)
    log.append(RewardRecord("stray", 1.0), at=500_100)
    log.append(TickRecord(), at=900_000)
    assert _events(log).decisions == 20


def test_however_the_log_is_cut_the_events_are_the_same(monkeypatch):
    log = shop_log(300)
    whole = _events(log).coded()
    monkeypatch.setattr(rewarded, "READ_AT_ONCE", 7)
    cut = _events(log).coded()
    assert whole.user_ids == cut.user_ids
    for name in ("user", "item", "time", "weight"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))

    # With the log behind it, records of long windows need no memory.
    behind = [joined.position for joined in _joined(log, FakePast(log))]
    assert behind == [joined.position for joined in _joined(log)]


def test_the_newest_decisions_are_kept_and_partitions_are_read_in_the_order_of_time():
    found = _events(shop_log(50), kept=3)
    assert [joined.record.event_id for joined in found.newest] == ["e47", "e48", "e49"]

    logs = [_joined(shop_log(5)), _joined(shop_log(5, seed=1))]
    times = [int(joined.position.partition("-")[0]) for joined in merged_by_time(logs)]
    assert len(times) == 10
    assert times == sorted(times)


def test_events_of_a_log_and_a_data_set_are_joined_by_user_and_item(tmp_path):
    log = _events(shop_log(100)).coded()
    user = pseudonym(SALT, "u1")
    other = rewarded.coded_events(
        [user],
        ["i03", "zz"],
        ("view",),
        *(np.array(each) for each in ([0, 0], [1, 0], [0, 0])),
        np.array([-1, 7]),
        np.array([np.nan, 2.0]),
        np.array([1.0, 0.5]),
    )
    both = joined_events([other, log])
    assert len(both) == len(log) + 2
    mine = both.user == both.user_ids.index(user)
    assert [both.item_ids[code] for code in both.item[mine][:2].tolist()] == ["zz", "i03"]
    assert both.types == ("view", "rewarded")
    assert joined_events([log]) is log

    items, lacking = catalogue_for([{"id": "i03"}], before(both, 20_000))
    assert lacking == len(items) - 1
    write_training_data(tmp_path, both, items)
    events, listed = read_training_data(tmp_path)
    assert listed == items
    assert events.item_ids == both.item_ids
    assert np.array_equal(events.weight, both.weight)


def test_texts_and_vectors_of_items_are_trained_on_and_times_are_not():
    """Without them a source that goes by what items are like could not be trained anew."""
    described = {"metadata": {"title": "A lamp"}, "vectors": {"image": [0.5, 1.0]}}
    lamp = {"id": "i03", **described, "hidden": True, "available_until": "2026-01-01T00:00:00Z"}
    events = coded_events(
        ["u"], ["i03"], ("event",), *(np.zeros(1, np.int64) for _ in range(4)), *np.ones((2, 1))
    )
    assert catalogue_for([lamp], events) == ([{"id": "i03", "features": {}, **described}], 0)
