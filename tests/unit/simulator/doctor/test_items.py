"""What the doctor says of a log of items."""

import pytest
from support.items import MemoryItems, patch, put

from bandits.errors import MissingBlobError
from bandits.log.codec import digest
from bandits.log.records import ItemsBaseRecord
from policies.items.catalogue import Catalogue, Item
from simulator.doctor.checks.items import items_log


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
