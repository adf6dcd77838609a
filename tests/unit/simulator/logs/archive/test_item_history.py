"""The items of any version, as they were put."""

from support.items import MemoryItems, patch, put

from policies.items import past
from policies.items.catalogue import Catalogue
from policies.requests import Item
from simulator.logs.archive.item_history import ItemHistory


def no_blob(name: str) -> bytes:
    raise AssertionError(name)


def a_log() -> tuple[MemoryItems, dict[str, dict[str, Item | None]]]:
    """A log of three whole catalogues and changes, and what the items were at each version."""
    log, were = MemoryItems(), {}

    def remember() -> None:
        were[log.timeline.version] = {name: log.timeline.item(name) for name in "abcd"}

    for start in (0.0, 100.0, 200.0):
        log.replace([Item("a", {"x": start}), Item("b", {"x": start})])
        remember()
        for number in range(5):
            log.append(patch("a", features={"x": start + number + 1}))
            remember()
            if number == 2:
                log.append(put(Item("c", {"x": start})))
                remember()
                log.add_base()
    return log, were


def test_each_version_has_its_items_in_whatever_order_they_are_asked_for():
    log, were = a_log()
    for versions in (list(were), list(reversed(were)), [*were, *were]):
        history = ItemHistory(log, no_blob)
        for version in versions:
            item = history.at(version)
            assert item is not None
            assert {name: item(name) for name in "abcd"} == were[version], version


def test_versions_that_are_close_are_read_once():
    log, were = a_log()
    history = ItemHistory(log, no_blob)
    for version in list(were)[-7:]:
        history.at(version)
    reads = log.reads
    for version in list(were)[-6:]:
        assert history.at(version)("a") == were[version]["a"]
    assert log.reads == reads


def test_what_is_no_version_has_no_items():
    log, were = a_log()
    history = ItemHistory(log, lambda name: b"other bytes")
    assert history.at("1-0~none") is None
    assert history.at("9000-9~none") is None
    assert history.at(Catalogue([Item("z")]).digest) is None
    last = list(were)[-1]
    assert history.at(f"{last}x") is None
    log.blobs.clear()
    assert ItemHistory(log, lambda name: b"other bytes").at(last) is None


def test_a_catalogue_that_the_log_has_not_is_a_blob():
    catalogue = Catalogue.put([Item("z", {"x": 1.0})])
    history = ItemHistory(MemoryItems(), lambda name: catalogue.encoded)
    assert history.at(catalogue.digest)("z") == Item("z", {"x": 1.0})


def test_what_is_long_past_is_forgotten_and_read_again(monkeypatch):
    monkeypatch.setattr(past, "LEAST_READ", 10)
    monkeypatch.setattr(past, "SLACK_MS", 20_000)
    log = MemoryItems()
    log.replace([Item("a"), Item("b")])
    for number in range(200):
        log.append(patch("a", features={"x": float(number)}))
    history = ItemHistory(log, no_blob)
    for number, version in enumerate(log.versions[1:]):
        assert history.at(version)("a").features["x"] == number
        assert history.at(version)("b") == Item("b")
    timeline = history._past.timeline(log.versions[-1])
    assert len(timeline._steps) < 40
    assert sum(map(len, timeline._were.values())) < 40
    assert history.at(log.versions[5])("a").features["x"] == 4
    assert history.at(log.versions[-1])("a").features["x"] == 199
