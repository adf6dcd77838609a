"""The items as of each version: what a catalogue made anew of them says, whatever came later."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.items import (
    IDS,
    STEPS,
    MemoryItems,
    delete,
    patch,
    played,
    put,
    said_of,
)

from banditloop_client.schemas import ItemPatch
from bandits.errors import MissingBlobError
from bandits.log.codec import decode, digest, encode
from bandits.log.positions import position_before
from bandits.log.records import ItemChange, ItemsBaseRecord, ItemsRecord, LogEntry
from policies.items import timeline as timelines
from policies.items.catalogue import EMPTIED, Catalogue, Item
from policies.items.changes import checked_patch, decode_patch, encode_item, patched
from policies.items.timeline import ItemTimeline, Offer, position_of, version_after

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def era(log: MemoryItems) -> list[int]:
    """The places of the entries of the newest era: from the last catalogue that replaces all."""
    begins = [
        place
        for place, entry in enumerate(log.entries)
        if isinstance(entry.record, ItemsBaseRecord) and entry.record.version is None
    ]
    return list(range(begins[-1] if begins else 0, len(log.entries)))


@given(st.lists(STEPS, max_size=25))
def test_each_version_says_what_a_catalogue_of_its_items_says(steps):
    log, then = played(steps)
    for place in era(log):
        made, made_anew = log.timeline.at(log.versions[place]), then[place]
        if made.digest == Catalogue().digest:
            assert made.limits is False  # nothing was ever put
            continue
        assert said_of(made) == said_of(made_anew)


@given(st.lists(STEPS, min_size=1, max_size=12))
def test_a_version_stays_as_it_is_when_others_come(steps):
    log, _ = played(steps)
    newest = log.timeline.newest
    before = said_of(newest)
    for number in range(3):
        features = {"price": float(number), "tags": ["t9", str(number)]}
        log.append(put(Item("a", features)), delete("b"))
    assert said_of(newest) == before
    assert newest.digest != log.timeline.version


@given(st.lists(STEPS, min_size=1, max_size=30), st.data())
def test_what_is_not_forgotten_stays(steps, data):
    """Also when the table is made anew, which it is as soon as half of it is dead."""
    log, then = played(steps)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timelines, "LEAST_DEAD", 0)
        again, kept = ItemTimeline(), 0
        for place, entry in enumerate(log.entries):
            held = again.newest, said_of(again.newest)
            again.apply(entry, log.blob)
            assert said_of(held[0]) == held[1]
            if data.draw(st.booleans()):
                kept = data.draw(st.integers(kept, place))
                again.forget(log.entries[kept].id)
            for known in era(log)[: place + 1]:
                if kept <= known <= place and again.holds(log.versions[known]):
                    limited = log.versions[known] != Catalogue().digest
                    assert not limited or said_of(again.at(log.versions[known])) == said_of(
                        then[known]
                    )
            assert again.version == log.versions[place]


@given(st.lists(STEPS, max_size=25), st.data())
def test_whoever_begins_at_a_base_has_the_same_versions(steps, data):
    log, _ = played(steps)
    bases = [
        (entry, entry.record.version)
        for entry in log.entries
        if isinstance(entry.record, ItemsBaseRecord) and entry.record.version
    ]
    if not bases:
        return
    base, version = data.draw(st.sampled_from(bases))
    begins = position_of(version)
    if begins is None:
        return

    again = ItemTimeline(
        Catalogue.decode(log.blobs[base.record.digest]), version=version, at=begins
    )
    for entry in log.encoded(begins):
        again.apply(entry, log.blob)
    assert (again.version, again.position) == (log.timeline.version, log.timeline.position)
    assert again.encoded == log.timeline.encoded
    assert said_of(again.newest) == said_of(log.timeline.newest)
    assert again.offers == log.timeline.offers


def test_changes_of_an_entry_are_made_in_their_order():
    log = MemoryItems()
    first = log.replace([Item("a", {"x": 1.0}), Item("b", {"x": 2.0, "c": "red"})])
    log.append(
        put(Item("c", {"x": 9.0}, available_until=UNTIL)),
        patch("a", features={"x": 4.0, "y": None}),
        delete("b"),
    )
    was, newest = log.timeline.at(first), log.timeline.newest
    assert (was.ids, len(was), newest.ids, len(newest)) == (("a", "b"), 2, ("a", "c"), 2)
    assert [float(newest.one(item_id).values.sum()) for item_id in "abc"] == [4, 0, 9]
    assert [float(was.one(item_id).values.sum()) for item_id in "abc"] == [1, 3, 0]
    assert log.timeline.offers == {"c": Offer(until_ms=UNTIL.timestamp() * 1000)}


def test_a_patch_takes_maps_away_and_with_a_feature_what_is_below_it():
    """As an object that is null takes its members along; what the log holds names each of them.

    So does an object in whose place a value comes.
    """
    log = MemoryItems()
    sizes = {"size": 1.0, "size.cm": 2.0, "size.in": 3.0, "sizes": 4.0, "t.0": 5.0, "t.1": 6.0}
    item = Item("a", sizes, {"title": "A"}, vectors={"v": [1.0]}, hidden=True)
    log.append(put(item))
    for sent, left in (
        ({"size": None}, {"sizes": 4.0, "t.0": 5.0, "t.1": 6.0}),
        ({"t": None, "t.0": 9.0}, {**sizes, "t.0": 9.0, "t.1": None}),
        ({"t": "round"}, {**sizes, "t": "round", "t.0": None, "t.1": None}),
        ({"size": 8.0}, {**sizes, "size": 8.0}),  # the others are names with dots in them
    ):
        made = checked_patch(encode_item(ItemPatch(features=sent)), item)
        assert patched(item, decode_patch(made)).features == {
            name: value for name, value in left.items() if value is not None
        }
    log.append(patch("a", features=None, metadata=None, vectors=None, hidden=None))
    assert log.timeline.item("a") == Item("a")


def test_a_version_is_named_by_the_one_before_and_by_its_entry():
    record = ItemsRecord([delete("a")])
    version = version_after("v0", "5-1", record)
    assert position_of(version) == "5-1"
    assert version == f"5-1~{digest(b'v0 ' + bytes.fromhex('9193a664656c657465a161c400'))}"

    others = {
        version_after("v1", "5-1", record),
        version_after("v0", "5-2", record),
        version_after("v0", "5-1", ItemsRecord([delete("b")])),
    }
    assert version not in others
    assert len(others) == 3


def test_the_records_of_items_are_stored_as_they_were_first():
    """Versions and readers of later builds rely on these bytes."""
    record = ItemsRecord([ItemChange("put", "a", b"{}"), delete("b")])
    data = bytes.fromhex("0192a56974656d739293a3707574a161c4027b7d93a664656c657465a162c400")
    assert encode(record) == data
    assert decode(data) == record
    base = bytes.fromhex("0193aa6974656d735f62617365a164c0")
    assert encode(ItemsBaseRecord("d")) == base


def test_catalogues_of_earlier_builds_keep_their_bytes():
    data = b'[{"id":"a","features":{"x":1.0},"metadata":{}},{"id":"b","features":{},"metadata":{}}]'
    catalogue = Catalogue.decode(data)
    assert catalogue.encoded == data
    assert catalogue.digest == "c067179be96766e7c3c8ac8fff3f7dfa"
    assert ItemTimeline(catalogue).encoded == data
    assert ItemTimeline(catalogue).version == catalogue.digest
    assert Catalogue().encoded == b"[]"
    assert Catalogue.put([]).encoded == EMPTIED


def test_items_that_all_went_were_there():
    log = MemoryItems()
    assert log.timeline.encoded == b"[]"
    assert log.timeline.newest.limits is False

    log.append(put(Item("a")))
    log.append(delete("a"))
    assert log.timeline.newest.limits is True
    assert log.timeline.newest.ids == ()
    assert Catalogue.decode(log.timeline.encoded).limits is True
    again = ItemTimeline(Catalogue.decode(log.timeline.encoded), version=log.timeline.version)
    assert again.encoded == EMPTIED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (ItemChange("put", "a", b"{"), "not an item"),
        (ItemChange("put", "a", b'{"id":"b"}'), "says that its id is 'b'"),
        (ItemChange("put", "a", b'{"id":"a","features":{"x":1e300}}'), "features.x"),
        (ItemChange("put", "a", b'{"id":"a","vectors":{"v":[]}}'), "vectors.v"),
        (put(Item("a", available_from=UNTIL, available_until=UNTIL)), "available_until"),
        (ItemChange("patch", "a", b'{"price":3}'), "not a patch"),
        (ItemChange("patch", "z", b"{}"), "no such item"),
        (ItemChange("patch", "a", b"[]"), "not a patch"),
        (ItemChange("patch", "a", b'{"features":{"x":[1]}}'), "not a patch"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_and_the_others_are_made(change, reason):
    log = MemoryItems()
    log.append(put(Item("a", {"x": 1.0})))
    entry = LogEntry("9000-0", ItemsRecord([put(Item("c")), change, patch("c", hidden=True)]))
    (refused,) = log.timeline.apply(entry, log.blob)
    assert (refused.at, refused.id) == (1, change.id)
    assert reason in refused.reason
    assert log.timeline.item("a") == Item("a", {"x": 1.0})
    assert log.timeline.item("c").hidden is True
    assert log.timeline.offers == {"c": Offer(hidden=True)}


def test_a_whole_catalogue_that_is_none_is_refused_and_the_items_stay():
    log = MemoryItems()
    version = log.append(put(Item("a")))
    log.blobs[digest(b"nonsense")] = b"nonsense"
    entry = LogEntry("9000-0", ItemsBaseRecord(digest(b"nonsense")))
    (refused,) = log.timeline.apply(entry, log.blob)
    assert "not a catalogue" in refused.reason
    assert (log.timeline.version, log.timeline.position) == (version, "9000-0")
    assert log.timeline.item("a") == Item("a")

    log.blobs["d"] = b"[]"
    with pytest.raises(MissingBlobError, match="other bytes"):
        log.timeline.apply(LogEntry("9001-0", ItemsBaseRecord("d")), log.blob)


def test_when_items_are_offered_is_read_from_a_base_too():
    log = MemoryItems()
    log.replace(
        [Item("a"), Item("b", hidden=True), Item("c", metadata={"hidden": "no"})],
    )
    log.append(ItemChange("patch", "a", b'{"available_from":"2026-01-02T00:00:00Z"}'))
    again = ItemTimeline(Catalogue.decode(log.timeline.encoded), version=log.timeline.version)
    assert set(again.offers) == {"a", "b"}
    assert again.offers == log.timeline.offers
    assert again.offers["a"].holds(1_767_312_000_000)
    assert not again.offers["a"].holds(1_767_311_999_999)


def test_a_version_that_is_forgotten_says_so():
    log = MemoryItems()
    first = log.append(put(Item("a")))
    second = log.append(put(Item("a", {"x": 1.0})))
    held = log.timeline.at(first)
    log.timeline.forget(position_before(log.entries[1].id))
    assert log.timeline.at(first).rows(["a"]).tolist() == [0]

    log.timeline.forget(log.entries[1].id)
    assert log.timeline.oldest == second
    with pytest.raises(MissingBlobError, match="no version"):
        log.timeline.at(first)
    with pytest.raises(MissingBlobError, match="forgotten"):
        held.rows(["a"])


def test_memory_is_bounded_by_what_is_needed():
    log = MemoryItems()
    log.replace([Item(item_id, {"x": 0.0}) for item_id in IDS])
    for number in range(5000):
        log.append(put(Item(IDS[number % len(IDS)], {"x": float(number), "n": str(number)})))
        if number % 100 == 0:
            log.timeline.forget(log.entries[-50].id if number > 50 else "0-0")
    assert log.timeline.newest.features.rows < 3 * timelines.LEAST_DEAD
    assert log.timeline.newest.features.hashes.size < 3 * timelines.LEAST_DEAD
    assert len(log.timeline._steps) < 300
    assert said_of(log.timeline.newest) == said_of(Catalogue.decode(log.timeline.encoded))
