"""Catalogues by version, whichever are asked for first, whatever was forgotten in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.items import IDS, STEPS, MemoryItems, played, put, said_of

from bandits.errors import ArtifactError, MissingBlobError
from bandits.log.codec import digest
from bandits.log.records import ItemsBaseRecord
from policies.items import past as pasts
from policies.items import timeline as timelines
from policies.items.catalogue import NEVER_PUT, Catalogue, Item
from policies.items.past import ItemsPast


@given(st.lists(STEPS, min_size=1, max_size=25), st.data())
def test_every_version_of_every_era_can_be_asked_for_in_any_order(steps, data):
    log, then = played(steps)
    places = data.draw(st.lists(st.integers(0, len(steps) - 1), max_size=12))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pasts, "LEAST_READ", 1)
        patched.setattr(pasts, "SLACK_MS", 0)
        patched.setattr(pasts, "ERAS_KEPT", 2)
        patched.setattr(timelines, "LEAST_DEAD", 0)
        past, needed = ItemsPast(log), set[str]()
        past.asked_by(lambda: needed)

        for place in places:
            version = log.versions[place]
            if version == NEVER_PUT:
                continue
            assert said_of(past.catalogue(version)) == said_of(then[place])
            if data.draw(st.booleans()):
                needed = {log.versions[data.draw(st.sampled_from(places))]}
                past.tidy()


def long_log(entries: int = 300, bases: tuple[int, ...] = (100, 200)) -> MemoryItems:
    log = MemoryItems()
    log.replace([Item(item_id, {"x": 0.0}) for item_id in IDS])
    for number in range(entries):
        log.append(put(Item(IDS[number % len(IDS)], {"x": float(number)})))
        if number in bases:
            log.add_base()
    return log


def test_it_begins_at_the_newest_base_and_then_reads_on():
    log = long_log()
    past = ItemsPast(log)
    assert past.catalogue(log.versions[250]).digest == log.versions[250]
    assert log.reads < 60

    # What was read once is not read again.
    before = log.reads
    for version in log.versions[205:251]:
        past.catalogue(version)
    assert log.reads == before
    assert past.catalogue(log.versions[-1]).digest == log.versions[-1]
    assert log.reads < before + 60


def test_a_version_that_is_forgotten_is_read_again():
    log = long_log()
    past = ItemsPast(log)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pasts, "LEAST_READ", 1)
        patched.setattr(pasts, "SLACK_MS", 0)
        past.asked_by(lambda: {log.versions[280]})
        before = said_of(past.catalogue(log.versions[150]))
        past.catalogue(log.versions[299])
        past.tidy()
        assert said_of(past.catalogue(log.versions[150])) == before


def test_a_base_that_is_gone_is_passed_over_and_one_that_replaces_all_is_not():
    log = long_log()
    last = [each for each in log.entries if isinstance(each.record, ItemsBaseRecord)][-1]
    del log.blobs[last.record.digest]
    assert ItemsPast(log).catalogue(log.versions[250]).one("a").values.tolist() == [245.0]

    version = log.append(put(Item("b")))
    log.blobs[NEVER_PUT] = b"[]"
    log.replace([Item("z")])
    later = log.append(put(Item("b")))
    assert ItemsPast(log).catalogue(version).digest == version
    del log.blobs[Catalogue([Item("z")]).digest]
    assert ItemsPast(log).catalogue(version).digest == version
    with pytest.raises(MissingBlobError, match="gone"):
        ItemsPast(log).catalogue(later)


def test_what_the_log_lacks_is_said():
    log = long_log(20, ())
    past = ItemsPast(log)
    for version in ("9999999-0~" + "0" * 32, f"5000-5~{'0' * 32}", "5000-7~x"):
        with pytest.raises(MissingBlobError, match=f"no version {version}"):
            past.catalogue(version)
    with pytest.raises(MissingBlobError, match="no version"):
        ItemsPast().catalogue(log.versions[3])


def test_whole_catalogues_come_from_either_log():
    log = long_log(5, ())
    older = Catalogue([Item("old")])
    past = ItemsPast(log)
    assert past.catalogue(older.digest, {older.digest: older.encoded}.__getitem__).ids == ("old",)
    assert past.catalogue(older.digest).ids == ("old",)
    assert past.catalogue(log.versions[0]).ids == tuple(IDS)
    with pytest.raises(MissingBlobError, match="gone"):
        past.catalogue("0" * 32)
    with pytest.raises(ArtifactError, match="not a catalogue"):
        past.catalogue(digest(b"x"), lambda _: b"x")
    with pytest.raises(MissingBlobError, match="other bytes"):
        past.catalogue("0" * 32, lambda _: b"x")


def test_a_catalogue_and_its_versions_share_their_rows():
    """So that decisions of both are learned together, and it is in memory once."""
    log = long_log(5, ())
    past = ItemsPast(log)
    whole = past.catalogue(log.versions[0])
    changed = past.catalogue(log.versions[3])
    assert changed.features is whole.features
    assert past.catalogue(log.versions[0]).features is whole.features


def test_a_log_that_goes_on_is_read_on():
    log = long_log(5, ())
    past = ItemsPast(log)
    past.catalogue(log.versions[-1])
    for number in range(3):
        version = log.append(put(Item("new", {"x": float(number)})))
        assert past.catalogue(version).one("new").values.tolist() == [number]


def test_bases_that_lag_behind_are_begun_at_where_they_are_of():
    log = long_log(10, ())
    again = pasts.ItemTimeline(Catalogue.decode(log.blobs[log.entries[0].record.digest]))
    for entry in log.entries[1:5]:
        again.apply(entry, log.blob)
    assert again.version == log.versions[4]
    log.add_base(again)
    version = log.append(put(Item("new")))
    reads = log.reads
    assert said_of(ItemsPast(log).catalogue(version)) == said_of(log.timeline.newest)
    assert log.reads == reads + len(log.entries) - 5
