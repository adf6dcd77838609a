"""What is read of archived decisions to learn from their chosen actions teaches what they teach."""

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.full_logs import full_logs
from support.logs import decision

from bandits.log.codec import encode
from bandits.log.encoded_decisions import DECISIONS, read_entries, starts_of, whole_record
from bandits.log.positions import START
from bandits.log.records import EncodedDecision, LogEntry
from policies.archive import range_file
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.range_file import Range
from policies.archive.taught import taught_decisions
from policies.features import chosen_rows, rows_of_chosen
from policies.fold.put_by import short_records
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

SPEC = PolicySpec("home", use=["context", "item", "features", "scores"])


def taught_rows(entry: LogEntry) -> list[tuple]:
    """The rows of all slots of a decision, as bytes."""
    record = entry.record
    if isinstance(record, EncodedDecision) and not record.has_placed:
        rows = rows_of_chosen(
            SPEC,
            Catalogue(),
            record.data,
            np.repeat(starts_of([record.data])[:1], record.slots),
            np.arange(record.slots),
            np.zeros(record.slots),
        )
        made = [(row.action_id, row.shared, row.own, row.available) for row in rows]
    else:
        whole = whole_record(record)
        found = chosen_rows(SPEC, Catalogue(), whole, whole.chosen)
        made = [(*row, len(whole.action_ids) - slot) for slot, row in enumerate(found)]
    return [
        (
            action_id,
            [
                (space.name, space.hashes.tobytes(), space.values.tobytes())
                for space in (*shared, *own)
                if space.values.size
            ],
            available,
        )
        for action_id, shared, own, available in made
    ]


def decisions_of(entries) -> list[LogEntry]:
    return [entry for entry in entries if isinstance(entry.record, DECISIONS)]


@settings(max_examples=30, deadline=None)
@given(full_logs().filter(bool), st.integers(1, 5), st.data())
def test_of_any_part_of_a_log(tmp_path_factory, log, groups, data):
    root = tmp_path_factory.mktemp("archive")
    before, range_file.GROUP_ENTRIES = range_file.GROUP_ENTRIES, groups
    try:
        committed = Range(START, log[0][0], log[-1][0], len(log))
        ArchiveWriter(root, "home").write(committed, log, lambda _: None)
    finally:
        range_file.GROUP_ENTRIES = before
    reader = ArchiveReader(root, "home")
    ids = [at for at, _ in log]
    after = data.draw(st.sampled_from([START, *ids]))
    through = data.draw(st.sampled_from([None, *ids]))

    found = decisions_of(taught_decisions(reader, after, through))
    expected = decisions_of(reader.encoded(after, through))
    assert [entry.id for entry in found] == [entry.id for entry in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("event_id", "spec", "catalogue", "deferred", "holdout", "slots"):
            assert getattr(one.record, name) == getattr(other.record, name), name
        assert taught_rows(one) == taught_rows(other)

        # What memory gives up is as good, and mostly the same bytes.
        record = other.record
        if isinstance(record, EncodedDecision) and not record.has_placed:
            (short,) = short_records([record])
            assert one.record.data in (short, record.data)
            kept = LogEntry(other.id, msgspec.structs.replace(record, data=short))
            assert taught_rows(kept) == taught_rows(other)


def test_what_is_not_asked_for_is_not_there(tmp_path):
    """A page of three out of many takes a small part of the bytes that its record has."""
    record = decision("e", ids=tuple(f"item-{n:03}" for n in range(200)), chosen=(7, 3, 150))
    log = [("1700000000000-1", encode(record))]
    ArchiveWriter(tmp_path, "home").write(
        Range(START, log[0][0], log[0][0], 1), log, lambda _: None
    )
    (entry,) = taught_decisions(ArchiveReader(tmp_path, "home"), START)
    assert len(entry.record.data) < len(log[0][1]) / 10
    (whole,) = read_entries(log, lambda *_: None)
    assert short_records([whole.record]) == [entry.record.data]
