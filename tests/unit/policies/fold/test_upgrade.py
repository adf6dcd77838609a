"""Logs and models of an earlier build mean to this one what they meant then, byte for byte."""

from collections.abc import Iterator
from functools import partial

import msgspec
import pytest
from support.upgrades import BUILDS, Left, unpacked

from bandits.log.codec import encode
from bandits.log.positions import START, is_after, log_order, position_ms
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    ItemsBaseRecord,
    LogEntry,
    MergeRecord,
    SpecRecord,
)
from bandits.snapshot_distance import distance
from bandits.types import ActionSet, Context
from policies.archive.archive import ArchiveReader, archive_folders
from policies.archive.openings import openings
from policies.archive.shared import archived_items
from policies.artifacts.learner_model import decode_trained
from policies.blend import load_policy, make_learner
from policies.fold.all_partitions import AllPartitionsFold
from policies.fold.checkpoint import FoldState
from policies.fold.fold import Fold
from policies.fold.verify import ACROSS_BUILDS
from policies.items.past import ItemsPast
from policies.spec import decode_spec
from serve_app.store.snapshots import Published, decode_published
from simulator.learners.trained import read_trained

ALONE = ("ridge", "arrives", "vw", "mixture")
DIVIDED = ("halves", "vwhalves")


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Left:
    return unpacked(tmp_path_factory.mktemp("left"))


@pytest.fixture(scope="module")
def left_by(tmp_path_factory) -> dict[int, Left]:
    """What later builds have left, by the version of their fold."""
    later = [version for version in BUILDS if version > 1]
    return {
        version: unpacked(tmp_path_factory.mktemp(f"left{version}"), version) for version in later
    }


class Archived:
    """The log behind a fold, from the archive alone."""

    def __init__(self, reader: ArchiveReader) -> None:
        self.reader = reader
        self.aside = None
        self.entries = self.behind = self.taught = self.encoded = reader.entries
        self.opened = partial(openings, reader)
        self.blob = reader.blob

    def checkpoint(self, position: str) -> FoldState | None:
        return None


class ArchivedItems:
    """The log of a policy's items, from the archive alone."""

    def __init__(self, left: Left, policy: str) -> None:
        self.reader = archived_items(left.archive, policy)
        self.encoded, self.blob = self.reader.entries, self.reader.blob

    def bases(self, through: str) -> list[LogEntry]:
        entries = self.reader.entries(START, through)
        return [entry for entry in entries if isinstance(entry.record, ItemsBaseRecord)][::-1]


def logs(left: Left, policy: str) -> list[Archived]:
    return [
        Archived(ArchiveReader(left.archive, folder))
        for folder in archive_folders(left.archive, policy)
    ]


def folded(left: Left, policy: str) -> Iterator[Fold]:
    """Yield the fold of the archived log after each entry, or after each merge."""
    if policy in DIVIDED:
        items = ArchivedItems(left, policy)
        together = AllPartitionsFold(logs(left, policy), salt=left.salt, items=items)
        for _ in together.merges():
            yield together.folds[0]
        assert not together.differing
        return
    (log,) = logs(left, policy)
    items = ItemsPast(ArchivedItems(left, policy))
    fold = Fold(log.blob, salt=left.salt, past=log, items=items)
    for entry in log.entries(START):
        fold.apply([entry])
        yield fold


def published(fold: Fold) -> Published:
    made = fold.snapshot()
    return Published(
        made.kind,
        made.position,
        made.learned,
        made.payload,
        fold.spec_id or "",
        fold.catalogue.digest,
        fold.build,
        fold.artifact,
        msgspec.UNSET if made.trends is None else made.trends,
    )


@pytest.mark.parametrize("policy", [*ALONE, *DIVIDED])
def test_an_old_log_folds_to_the_snapshots_that_the_old_build_stored(left, policy):
    demand_stored_snapshots(left, policy, 1)


@pytest.mark.parametrize(
    ("version", "policy"),
    [
        # A log of items, counts that fade, rewards whose signals nobody read.
        *((4, policy) for policy in (*ALONE, *DIVIDED, "fading")),
        # Profiles, signals with weights of their own, what is not offered again.
        *((5, policy) for policy in ("ridge", "vwhalves", "knowing")),
        # Filters, boosts, quotas, pages.
        *((6, policy) for policy in ("arrives", "vw", "ruled")),
    ],
)
def test_a_later_log_folds_to_the_snapshots_that_its_build_stored(left_by, version, policy):
    """Each version brought kinds of entries that the one before did not know."""
    demand_stored_snapshots(left_by[version], policy, version)


def demand_stored_snapshots(left: Left, policy: str, version: int) -> None:
    """The same digests.

    Or, on a processor whose sums round otherwise, numbers that differ by as little.
    """
    wanted = {position: name for name, position in left.expected[policy]["snapshots"].items()}
    compared = 0
    for fold in folded(left, policy):
        name = wanted.pop(fold.position, None)
        if name is not None:
            compared += 1
            assert fold.version == version
            again, stored = published(fold), decode_published(left.stored(name), name)
            if again.snapshot_id != name:
                assert (again.spec, again.catalogue, again.build) == (
                    stored.spec,
                    stored.catalogue,
                    stored.build,
                )
                assert distance(stored.snapshot, again.snapshot) <= ACROSS_BUILDS
    assert compared >= 10
    archived = min((log.reader.end for log in logs(left, policy)), key=log_order)
    assert all(is_after(position, archived) for position in wanted)


@pytest.mark.parametrize("policy", ALONE)
def test_an_old_log_is_counted_as_the_old_build_counted_it(left, policy):
    """Rewards of what never was activated as joined, activations that came too early as lost."""
    seen = {fold.position: dict(fold.join.counts) for fold in folded(left, policy)}
    counts = seen[max(seen, key=log_order)]
    expected = left.expected[policy]["outcomes"]
    assert counts["orphan_activation"] == expected["orphan_activation"] > 0
    assert counts["not_activated"] > 0
    assert not {"unactivated", "early_activation"} & set(counts)
    if left.expected[policy]["position"] in seen:
        known = {
            name: count for name, count in seen[left.expected[policy]["position"]].items() if count
        }
        assert known == {name: expected[name] for name in known}


@pytest.mark.parametrize("policy", [*ALONE, *DIVIDED])
def test_old_entries_are_encoded_to_their_own_bytes_again(left, policy):
    """Fields that were appended since are left out, or mean what their lack meant."""
    for log in logs(left, policy):
        entries = dict(log.reader.raw())
        assert len(entries) > 50
        again = {entry.id: entry.record for entry in log.entries(START)}
        assert {name: type(record) for name, record in again.items()}.keys() == entries.keys()
        for name, record in again.items():
            shorter = encode(record)
            assert shorter == entries[name] or len(shorter) > len(entries[name])


@pytest.mark.parametrize("policy", [*ALONE, *DIVIDED])
def test_old_specs_keep_their_names_and_the_names_of_their_models(left, policy):
    """Both are in the log: of the spec in decisions, of the model in merges."""
    spec = left.specs[policy]
    records = [entry.record for log in logs(left, policy) for entry in log.entries(START)]
    said = [record.digest for record in records if isinstance(record, SpecRecord)]
    assert spec.digest in said
    blob = logs(left, policy)[0].blob
    for name in said:
        assert decode_spec(blob(name)).digest == name
        assert decode_spec(blob(name)).model_digest == spec.model_digest
    merges = {record.model for record in records if isinstance(record, MergeRecord)}
    assert merges == ({spec.model_digest} if policy in DIVIDED else set())
    assert {record.spec for record in records if isinstance(record, DecisionRecord)} <= set(said)


@pytest.mark.parametrize("policy", ["vw", "arrives"])
def test_a_model_that_the_old_build_trained_is_read_taught_and_served(left, policy):
    path = left.folder / f"{policy}.model"
    model, spec = decode_trained(path.read_bytes()), left.specs[policy]
    assert model.spec().model_digest == spec.model_digest
    learner = make_learner(spec, salt=left.salt, checkpoint=model.checkpoint)
    snapshot = learner.snapshot("1-0")
    assert snapshot.learned == model.learned > 0
    assert snapshot.payload != make_learner(spec, salt=left.salt).snapshot("1-0").payload
    assert load_policy(spec, snapshot).pmf(
        Context(), ActionSet(("a", "b", "c"))
    ).sum() == pytest.approx(1.0)
    assert read_trained(path).notes


def test_an_old_log_goes_on_under_the_rule_of_this_build(left):
    (log,) = logs(left, "ridge")
    fold = Fold(log.blob, salt=left.salt, past=log)
    fold.apply(log.entries(START))
    ms = position_ms(fold.position)
    fold.apply([LogEntry(f"{ms + 1}-0", BuildRecord({"fold": "2"}))])
    assert fold.version == fold.snapshot().fold == 2
    (first,) = logs(left, "ridge")
    builds = first.reader.builds()
    assert builds
    assert all("fold" not in build for _, build in builds)
