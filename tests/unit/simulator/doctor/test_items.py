"""What the doctor says of a log of items."""

import pytest
from support.items import MemoryItems, patch, put

from bandits.errors import MissingBlobError
from bandits.log.codec import digest
from bandits.log.records import ItemsBaseRecord
from policies.items import past as pasts
from policies.items import timeline as timelines
from policies.items.catalogue import Catalogue, Item
from policies.items.past import ItemsPast
from simulator.doctor.checks.items import items_log
from simulator.doctor.checks.references import ReferencedBlobs


def a_log() -> MemoryItems:
    log = MemoryItems()
    log.replace([Item("a"), Item("b")])
    for number in range(5):
        log.append(put(Item("a", {"x": float(number)})))
    log.add_base()
    log.append(put(Item("c")))
    return log


def test_a_log_without_entries_is_not_told_of():
    assert list(items_log(MemoryItems())) == []


def test_a_base_is_what_the_entries_before_it_make():
    (finding,) = items_log(a_log())
    assert (finding.check, finding.severity) == ("items", "ok")
    assert finding.figures["entries"] == 8
    assert finding.figures["compared"] == 1


def test_a_base_that_says_something_else_is_a_failure():
    log = a_log()
    other = Catalogue([Item("z")])
    log.blobs[other.digest] = other.encoded
    log._add(ItemsBaseRecord(other.digest, log.timeline.version), None)
    log._add(ItemsBaseRecord(other.digest, "9-9~none"), None)
    (finding,) = items_log(log)
    assert finding.severity == "failure"
    assert finding.figures["faults"] == 2
    assert "has other items" in finding.message


def test_a_catalogue_that_is_gone_is_a_failure():
    log = a_log()

    def gone(name: str) -> bytes:
        raise MissingBlobError(f"blob {name} is gone", "digest")

    log.blob = gone
    (finding,) = items_log(log)
    assert finding.severity == "failure"
    assert "is gone" in finding.message


@pytest.mark.parametrize("name", ["a", "z"])
def test_changes_that_were_refused_are_a_warning(name):
    log = a_log()
    log.append(patch(name, features={"x": 1e300}))
    log.blobs[digest(b"no")] = b"no"
    log._add(ItemsBaseRecord(digest(b"no")), None)
    (finding,) = items_log(log)
    assert finding.severity == "warning"
    assert finding.figures["refused"] == 2


def test_the_versions_of_a_long_log_are_found_in_little_memory(monkeypatch):
    monkeypatch.setattr(pasts, "LEAST_READ", 50)
    monkeypatch.setattr(timelines, "LEAST_DEAD", 50)
    log = MemoryItems()
    log.replace([Item("a"), Item("b")])
    for number in range(3000):
        log.append(put(Item("a", {"x": float(number)})), at=10_000 + 100_000 * number)

    stored = ReferencedBlobs(items=ItemsPast(log))
    for number in range(0, 3000, 10):
        catalogue = stored.catalogue(log.versions[1 + number])
        assert catalogue.one("a").values.tolist() == [number]
        assert stored.catalogue(log.versions[1 + number]) is catalogue
        assert catalogue.features.rows < 300
    assert stored.catalogue(f"9-9~{'0' * 32}") is None
    assert stored.catalogue(log.versions[5]).one("a").values.tolist() == [4]
