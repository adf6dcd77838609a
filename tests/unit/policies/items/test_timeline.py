"""Versions of what there is to offer: changed, refused, and asked for again."""

from datetime import UTC, datetime

import pytest

from banditloop_client.schemas import Item
from bandits.errors import MissingBlobError
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline, Offer, position_of

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def put(item_id: str, **fields) -> ItemChange:
    return ItemChange("put", item_id, encode_item(Item(item_id, **fields)))


def begun() -> ItemTimeline:
    return ItemTimeline(Catalogue.put([Item("a", {"x": 1.0}), Item("b", {"x": 2.0, "c": "red"})]))


def stored(name: str) -> bytes:
    raise AssertionError(f"nobody asks for {name}")


def features(catalogue: Catalogue, *ids: str) -> list[float]:
    return [float(catalogue.one(item_id).values.sum()) for item_id in ids]


def test_a_version_stays_what_it_was_while_later_ones_come():
    timeline = begun()
    first = timeline.newest
    changes = [
        put("c", features={"x": 9.0}, available_until=UNTIL),
        ItemChange("patch", "a", b'{"features": {"x": 4.0, "y": null}}'),
        ItemChange("delete", "b"),
    ]
    assert timeline.apply(LogEntry("5-0", ItemsRecord(changes)), stored) == []

    assert (first.ids, len(first), features(first, "a", "b", "c")) == (("a", "b"), 2, [1, 3, 0])
    newest = timeline.newest
    assert (newest.ids, len(newest)) == (("a", "c"), 2)
    assert features(newest, "a", "b", "c") == [4, 0, 9]
    assert features(timeline.at(first.digest), "a", "b", "c") == [1, 3, 0]
    assert timeline.offers == {"c": Offer(until_ms=UNTIL.timestamp() * 1000)}
    assert position_of(newest.digest) == "5-0"
    assert position_of(first.digest) is None

    anew = Catalogue.decode(timeline.encoded)
    assert anew.ids == newest.ids
    assert features(anew, *anew.ids) == features(newest, *anew.ids)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (ItemChange("patch", "q", b"{}"), "no such item"),
        (ItemChange("put", "d", b'{"id": "e"}'), "its id is 'e'"),
        (ItemChange("put", "d", b"{"), "not an item"),
        (ItemChange("patch", "a", b'{"price": 3}'), "not a patch"),
        (put("d", features={"x": 1e30}), "features.x"),
        (put("d", vectors={"image": []}), "vectors.image"),
        (put("d", available_from=UNTIL, available_until=UNTIL), "available_until"),
    ],
)
def test_what_cannot_be_changed_is_refused_alone(change: ItemChange, reason: str):
    timeline = begun()
    entry = LogEntry("5-0", ItemsRecord([change, put("good")]))
    (refused,) = timeline.apply(entry, stored)
    assert (refused.at, refused.id) == (0, change.id)
    assert reason in refused.reason
    assert timeline.newest.ids == ("a", "b", "good")


def test_a_version_that_is_none_is_said():
    with pytest.raises(MissingBlobError, match="no version 7-0~x"):
        begun().at("7-0~x")
