"""What open decisions teach is put by on a disk, and read in the order in which windows close."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.logs import decision

from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import EncodedDecision
from policies.fold import put_by
from policies.fold.put_by import PutBy

POSITIONS = [f"{10 + number}-0" for number in range(40)]
RECORDS: list[EncodedDecision] = [
    entry.record
    for entry in read_entries(
        [
            (at, encode(decision(f"e{at}", spec=f"spec-{at[-3]}", chosen=(1, 0))))
            for at in POSITIONS
        ],
        lambda *_: None,
    )
]


def added(store: PutBy, window_ms: int, first: int, last: int) -> None:
    store.add(window_ms, POSITIONS[first:last], RECORDS[first:last])


def names(found: EncodedDecision | None) -> tuple[str, str, str, int] | None:
    return found and (found.event_id, found.spec, found.catalogue, found.slots)


@pytest.fixture(params=[1, 1 << 20], ids=["a file of each", "one file"])
def store(request, monkeypatch, tmp_path) -> PutBy:
    monkeypatch.setattr(put_by, "FILE_BYTES", request.param)
    return PutBy(str(tmp_path))


def test_it_is_read_in_order_also_while_more_comes(store):
    taken = []
    for first in range(0, 40, 4):
        added(store, 5000, first, first + 4)
        if first:
            taken += [store.take(5000, at) for at in POSITIONS[first - 4 : first]]
    assert list(map(names, taken)) == list(map(names, RECORDS[:36]))
    assert all(len(each.data) < len(RECORDS[0].data) for each in taken)


def test_what_teaches_nothing_is_passed_over(store):
    added(store, 5000, 0, 10)
    added(store, 5000, 10, 20)
    assert [names(store.take(5000, POSITIONS[at])) for at in (3, 4, 11, 19)] == [
        names(RECORDS[at]) for at in (3, 4, 11, 19)
    ]


def test_windows_of_other_lengths_have_an_order_of_their_own(store):
    added(store, 5000, 0, 5)
    added(store, 900, 5, 10)
    added(store, 5000, 10, 12)
    assert names(store.take(5000, POSITIONS[10])) == names(RECORDS[10])
    assert names(store.take(900, POSITIONS[5])) == names(RECORDS[5])
    store.drop(900)
    assert store.take(900, POSITIONS[6]) is None
    assert names(store.take(5000, POSITIONS[11])) == names(RECORDS[11])


def test_what_was_not_put_by_is_not_there_and_what_comes_after_it_still_is(store):
    added(store, 5000, 3, 5)
    assert store.take(5000, POSITIONS[1]) is None
    assert names(store.take(5000, POSITIONS[3])) == names(RECORDS[3])
    assert store.take(5000, POSITIONS[9]) is None
    assert store.take(700, POSITIONS[4]) is None


def test_several_are_taken_at_once_as_one_after_the_other(store):
    """As far as they are next, and were put by together."""
    other = PutBy()
    for each in (store, other):
        added(each, 5000, 0, 6)
        added(each, 5000, 6, 12)
    found = [*store.take_next(5000, POSITIONS[:4]), store.take(5000, POSITIONS[4])]
    expected = [other.take(5000, at) for at in POSITIONS[:5]]
    assert [(names(each), each.data) for each in found] == [
        (names(each), each.data) for each in expected
    ]

    for wrong in (POSITIONS[6:8], POSITIONS[4:6]):
        assert store.take_next(5000, wrong) == []
    assert store.take_next(700, POSITIONS[5:6]) == []
    assert [names(each) for each in store.take_next(5000, POSITIONS[5:7])] == [names(RECORDS[5])]
    asked = [*POSITIONS[6:9], *POSITIONS[10:12]]
    assert [names(each) for each in store.take_next(5000, asked)] == list(map(names, RECORDS[6:9]))
    assert store.take_next(5000, asked[3:]) == []
    assert names(store.take(5000, POSITIONS[10])) == names(RECORDS[10])
    assert [names(each) for each in store.take_next(5000, asked[4:])] == [names(RECORDS[11])]
    assert store.take_next(5000, POSITIONS[12:13]) == []


def test_the_files_have_no_name(store, tmp_path):
    added(store, 5000, 0, 20)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_needs_none(tmp_path):
    store = PutBy(str(tmp_path / "later"))
    added(store, 5000, 0, 2)
    assert names(store.take(5000, POSITIONS[0])) == names(RECORDS[0])


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses to let a file grow, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_disk_without_room_is_given_up(tmp_path: Path):
    store = PutBy(str(tmp_path))
    added(store, 5000, 0, 2)
    for _ in range(20):
        added(store, 5000, 0, 40)
    assert store.take(5000, POSITIONS[0]) is None
