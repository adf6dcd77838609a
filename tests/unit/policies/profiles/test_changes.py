"""What entries say of users, gathered."""

from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry, MergeUsersRecord
from policies.profiles.changes import PartChanges
from policies.profiles.part import ERASED, Part, ProfileEvent
from policies.profiles.showings import Showing


def test_an_event_is_of_its_own_time_or_of_its_entrys():
    changes = PartChanges()
    changes.read([LogEntry("500-2", ActivityRecord("u", "a", "view", time_ms=7))])
    changes.read([LogEntry("501-0", ActivityRecord("u", "b", "cart"))])
    assert dict(changes.parts())["u"].events == (
        ProfileEvent(7, 500, 2, "a", "view"),
        ProfileEvent(501, 501, 0, "b", "cart"),
    )
    assert len(changes) == 2


def test_a_merge_of_users_changes_no_part_and_an_erasure_all_of_it():
    changes, others = PartChanges(), PartChanges()
    changes.read([LogEntry("500-2", MergeUsersRecord("u", "v"))])
    changes.read([LogEntry("500-3", ErasureRecord("u", "job"))])
    others.shown("u", "501-4", ["a", "b"])
    others.shown("w", "501-4", ["c"])
    changes.take(others)
    assert dict(changes.parts()) == {"u": ERASED, "w": Part((), (Showing(501, 4, "c"),))}
    assert len(changes) == 4
